"""Build a form from a tool's JSON Schema, and read the arguments from the filled-in form. Pure.

What has plain values becomes fields: text, numbers, yes or no, choices, lists of plain values (one a
line) and objects of these, a few levels deep. Everything else (`oneOf`, recursion, free objects) is a
field that takes JSON. A field that was left empty is left out; nothing is ever filled in for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEEPEST: Final = 3
MOST_FIELDS: Final = 200
MOST_STEPS: Final = 16
"""How many `$ref` are followed: a schema may refer to itself."""
LONG_TEXT: Final = 120
EMPTY: Final = '""'
"""What is typed for a text that is meant to be empty."""
_PLAIN: Final = {"string", "integer", "number", "boolean"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field; `path` names the property, from the outermost on."""

    path: tuple[str, ...]
    kind: str
    """text, long, number, yesno, choice, list, json, or group: the head of the fields that follow."""
    type: str
    required: bool
    help: str
    limits: str
    default: str
    choices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the form's field."""
        return "a:" + json.dumps(self.path, ensure_ascii=False)

    @property
    def label(self) -> str:
        """Return the name of the property."""
        return self.path[-1]

    @property
    def depth(self) -> int:
        """Return how many objects it is in."""
        return len(self.path) - 1


def fields_of(schema: Any) -> list[Field]:
    """Return the fields for a schema of an object, required ones first."""
    found: list[Field] = []
    for field in _walk(schema, schema, (), 0):
        found.append(field)
        if len(found) >= MOST_FIELDS:
            break
    return found


def _walk(schema: Any, root: Any, path: tuple[str, ...], depth: int) -> Iterator[Field]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return
    listed = schema.get("required")
    required = set(map(str, listed)) if isinstance(listed, list) else set()
    for name in sorted(properties, key=lambda name: name not in required):
        inner = _resolved(properties[name], root)
        here = (*path, str(name))
        kind = _kind(inner, root, depth)
        yield Field(
            here,
            kind,
            _type_words(inner, root),
            name in required,
            str(inner.get("description") or inner.get("title") or ""),
            _limits(inner),
            "" if "default" not in inner else json.dumps(inner["default"], ensure_ascii=False),
            tuple(json.dumps(value, ensure_ascii=False) for value in _choices(inner)),
        )
        if kind == "group":
            yield from _walk(inner, root, here, depth + 1)


def _resolved(schema: Any, root: Any) -> dict[str, Any]:
    """Follow references, and take the one choice that is left besides null."""
    for _ in range(MOST_STEPS):
        if not isinstance(schema, dict):
            return {}
        if isinstance(ref := schema.get("$ref"), str) and ref.startswith("#/"):
            target: Any = root
            for part in ref[2:].split("/"):
                part = part.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901
                target = target.get(part) if isinstance(target, dict) else None
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**target, **rest} if isinstance(target, dict) else rest
            continue
        for word in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(word), list):
                left = [o for o in options if not (isinstance(o, dict) and o.get("type") == "null")]
                if len(left) == 1 and isinstance(left[0], dict):
                    rest = {key: value for key, value in schema.items() if key != word}
                    schema = {**left[0], **rest}
                    break
        else:
            return schema
    return {}


def _types(schema: Mapping[str, Any]) -> list[str]:
    given = schema.get("type")
    types = given if isinstance(given, list) else [given] if given else []
    return [str(one) for one in types if one != "null"]


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    if isinstance(values := schema.get("enum"), list):
        return values
    return [schema["const"]] if "const" in schema else []


def _kind(schema: Mapping[str, Any], root: Any, depth: int) -> str:
    if _choices(schema):
        return "choice"
    types = _types(schema)
    if len(types) != 1 or "anyOf" in schema or "oneOf" in schema:
        return "json"
    (kind,) = types
    if kind == "string":
        longest = schema.get("maxLength")
        long = isinstance(longest, int) and longest > LONG_TEXT
        return "long" if long or schema.get("format") == "textarea" else "text"
    if kind in {"integer", "number"}:
        return "number"
    if kind == "boolean":
        return "yesno"
    if kind == "array":
        inner = _resolved(schema.get("items", {}), root)
        return "list" if _types(inner) in (["string"], ["integer"], ["number"]) else "json"
    if kind == "object" and schema.get("properties") and depth < DEEPEST:
        return "group"
    return "json"


def _type_words(schema: Mapping[str, Any], root: Any) -> str:
    types = _types(schema)
    if types == ["array"]:
        inner = _types(_resolved(schema.get("items", {}), root))
        return f"list of {' or '.join(inner)}" if inner else "list"
    return " or ".join(types) or ("choice" if _choices(schema) else "anything")


def _limits(schema: Mapping[str, Any]) -> str:
    words = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "exclusiveMinimum": "more than {}",
        "exclusiveMaximum": "less than {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minItems": "at least {} entries",
        "maxItems": "at most {} entries",
        "pattern": "matches {}",
        "format": "{}",
    }
    return ", ".join(text.format(schema[key]) for key, text in words.items() if key in schema)


def arguments_of(schema: Any, form: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the arguments that a filled-in form stands for; raises UsageProblem, naming the field."""
    if (document := form.get("document", [""])[-1].strip()) or "document" in form:
        value = _json(document or "{}", "arguments")
        if not isinstance(value, dict):
            raise UsageProblem(
                "The arguments are not a JSON object.", hint='Write {"name": value}.'
            )
        return value
    made: dict[str, Any] = {}
    for field in fields_of(schema):
        text = form.get(field.name, [""])[-1].replace("\r\n", "\n")
        if field.kind == "group" or not text.strip():
            continue
        within = made
        for step in field.path[:-1]:
            within = within.setdefault(step, {})
        within[field.path[-1]] = _value(field, text)
    return made


def _value(field: Field, text: str) -> Any:
    match field.kind:
        case "text" | "long":
            return "" if text.strip() == EMPTY else text
        case "yesno":
            return text == "true"
        case "number":
            return _number(field, text)
        case "list":
            lines = [line for line in text.split("\n") if line.strip()]
            return [_number(field, line) for line in lines] if "string" not in field.type else lines
        case _:
            return _json(text, field.label)


def _number(field: Field, text: str) -> int | float:
    value = _json(text.strip(), field.label)
    whole = "integer" in field.type
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageProblem(f"{field.label} {text!r} is not a number.", hint="Write digits only.")
    if whole and value != int(value):
        raise UsageProblem(
            f"{field.label} {text!r} is not a whole number.", hint="Leave out the fraction."
        )
    return int(value) if whole else value


def _json(text: str, label: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise UsageProblem(f"{label} is nested too deep.", hint="Use fewer levels.") from None
    except ValueError as error:
        raise UsageProblem(
            f"{label} is not JSON: {error}.", hint='Write text in quotes: "like this".'
        ) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")
