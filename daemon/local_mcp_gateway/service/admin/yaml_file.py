"""Read a client's YAML file as the values that JSON has, and edit one entry of it.

It is read in YAML 1.2's core schema. YAML 1.1, which PyYAML follows, takes `yes` for true, `2026-11-29` for
a date and `012` for ten; the clients that write these files do not.

An edit leaves every other line as it is. As in `text_edit`, whole lines are inserted or cut, and the result
is parsed and compared with what the edit should make: a list in braces on one line, or a value that goes on
in blank lines, raises CannotEdit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.text_edit import (
    MISSING,
    CannotEdit,
    checked,
    value_at,
    with_value,
    without_value,
)

if TYPE_CHECKING:
    import yaml

_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", "-+0123456789"),
)
"""Which plain words are not text: tag, spelling, first characters; the first that fits."""
_TEXT = f"{_TAG}str"
_KINDS = {_TEXT, f"{_TAG}seq", f"{_TAG}map", *(f"{_TAG}{tag}" for tag, *_ in _CORE)}
"""The tags of what JSON has, too."""
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""What no reader of YAML, old or new, may take for a key's text."""


def parse_yaml(text: str) -> object:
    """Return the document, keys as text; raises ValueError with the line of a mistake, and for aliases."""
    import yaml  # no other command needs it

    spellings = {f"{_TAG}{tag}": re.compile(rf"^(?:{spelling})$") for tag, spelling, _ in _CORE}

    class Core(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own form
        yaml_constructors = {  # noqa: RUF012
            tag: construct
            for tag, construct in yaml.SafeLoader.yaml_constructors.items()
            if tag is None or tag in _KINDS
        }

        def construct_mapping(
            self,
            node: yaml.MappingNode,
            deep: bool = False,  # noqa: FBT001, FBT002  as in PyYAML
        ) -> dict[Any, Any]:
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    key.tag = _TEXT
            return super().construct_mapping(node, deep)

        def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
            value = super().construct_scalar(node)
            spelling = spellings.get(node.tag)  # a document can call any word a number
            if spelling and not spelling.match(value):
                problem = f"{value!r} is not of the kind {node.tag.removeprefix(_TAG)}"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return value

    for tag, _, first in _CORE:
        letters = ["" if letter == "\0" else letter for letter in first]
        Core.add_implicit_resolver(f"{_TAG}{tag}", spellings[f"{_TAG}{tag}"], letters)
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("aliases are not read; write the values out")
        return yaml.load(text, Core)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        at = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{at}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None


def set_in_yaml(text: str, path: Sequence[str], value: Mapping[str, object]) -> str:
    """Return the document with the mapping `value` at `path`, a key of a key of the document."""
    before = _document(text)
    if value_at(before, path) == value:
        return text
    expected = with_value(before, path, value)
    return checked(_edited(text, path, value), _document, expected)


def remove_from_yaml(text: str, path: Sequence[str]) -> str:
    """Return the document without the key at `path`; the same text if there is none."""
    before = _document(text)
    if value_at(before, path) is MISSING:
        return text
    return checked(_edited(text, path, None), _document, without_value(before, path))


def _document(text: str) -> dict[str, Any]:
    try:
        document = parse_yaml(text)
    except ValueError as error:
        raise CannotEdit(f"it is not valid YAML ({error})") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise CannotEdit("it holds no mapping")
    return document


def _edited(text: str, path: Sequence[str], value: Mapping[str, object] | None) -> str:
    """Return the text with the entry at `path` replaced, added or, without a value, cut."""
    import yaml  # no other command needs it

    newline = "\r\n" if "\r\n" in text else "\n"
    text += newline if text and not text.endswith("\n") else ""
    holder, name = path

    def lines(key: str, held: object, column: int) -> str:
        return "".join(line + newline for line in _lines(key, held, " " * column))

    root = yaml.compose(text, yaml.SafeLoader)
    held = _pair(root, holder)
    if held is None:
        return text + lines(holder, {name: value}, root.start_mark.column if root else 0)
    key, entries = held
    if not entries.value or isinstance(entries.value, str):  # an empty mapping, or null
        behind = entries.end_mark.index
        end = _line_end(text, behind)
        head = f"{text[: key.end_mark.index]}: {text[behind:end].strip()}".rstrip()
        return head + newline + lines(name, value, key.start_mark.column + 2) + text[end:]
    found = _pair(entries, name)
    if found is None:
        start = end = _line_end(text, _end(entries))
    else:
        start = text.rfind("\n", 0, found[0].start_mark.index) + 1
        end = _line_end(text, _end(found[1]))
    if value is not None:
        return text[:start] + lines(name, value, entries.start_mark.column) + text[end:]
    if len(entries.value) == 1:  # a key without a value would be null
        return f"{text[: key.end_mark.index]}: {{}}{newline}{text[end:]}"
    return text[:start] + text[end:]


def _pair(mapping: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return key and value of a name in a mapping; raises CannotEdit for one in braces."""
    if mapping is None:
        return None
    if getattr(mapping, "flow_style", True):
        raise CannotEdit("it is written in a form that this program does not know")
    return next((pair for pair in mapping.value if pair[0].value == name), None)


def _end(node: yaml.Node) -> int:
    """Return where the text of a node ends; a block in YAML ends where the next one begins."""
    while isinstance(node.value, list) and node.value and not getattr(node, "flow_style", True):
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _line_end(text: str, place: int) -> int:
    """Return where the line of the last character before a place ends, its line break included."""
    return text.index("\n", len(text[:place].rstrip())) + 1


def _lines(key: str, value: object, indent: str) -> Iterator[str]:
    """Yield a key and its value as lines; texts are written as in JSON, which YAML reads too."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", key) and key.lower() not in _WORDS
    written = key if plain else json.dumps(key)
    if isinstance(value, Mapping) and value:
        yield f"{indent}{written}:"
        for inner, held in value.items():
            yield from _lines(inner, held, indent + "  ")
    else:
        yield f"{indent}{written}: {json.dumps(value, ensure_ascii=False)}"
