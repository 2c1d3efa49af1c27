"""Read a client's YAML file as the values that JSON has, in YAML 1.2's core schema.

YAML 1.1, which PyYAML follows, takes `yes` for true, `2026-11-29` for a date and `012` for ten; the
clients that write these files do not.
"""

from __future__ import annotations

import re
from typing import Any

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
