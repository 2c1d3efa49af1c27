"""Validate what servers list and declare against the schema of the MCP specification. Pure.

A typed client refuses a whole list because of one invalid item, and the list of a profile holds the
items of all its servers. So each item is validated when it is fetched, against the official schema of
the newest revision of either protocol (`item_schema.json`: their definitions, without descriptions).

An item is repaired where only one repair is possible: a null member is dropped, since no optional
member may be null, and a required member that may have one value only (`"type": "object"`) is added. Of
members with the same name the last is listed, which is the one that the gateway and the official clients
read, and names are listed without escapes: clients read what is compared with an approval.

The same holds for capabilities: a typed client refuses the whole `initialize` because of one of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from local_mcp_gateway.gateway.protocol import (
    MALFORMED,
    decode_any,
    decode_batch,
    decode_members,
    edit,
    encode,
    versions,
)
from local_mcp_gateway.store import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog.items import Item

SCHEMA: Final = Path(__file__).with_name("item_schema.json")
MOST_LEVELS: Final = 120
"""Maximum nesting depth of an item, two for each object of a schema. Many clients reject a message of 128
levels, and with it the whole list."""
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|[\]}]', re.DOTALL)
_ESCAPED: Final = re.compile(rb'\\.(?:[^"\\]++|\\.)*+"(\s*:)?', re.DOTALL)
"""The rest of a JSON string from its first escape on; the group matches if that is a member's name."""
_LACKING: Final = re.compile(r"Object missing required field `(.+)`")
_DEFINITIONS: Final[Mapping[CatalogKind, str]] = {
    CatalogKind.TOOLS: "Tool",
    CatalogKind.RESOURCES: "Resource",
    CatalogKind.RESOURCE_TEMPLATES: "ResourceTemplate",
    CatalogKind.PROMPTS: "Prompt",
}
CAPABILITIES: Final = "ServerCapabilities"
ICON: Final = "Icon"
_FORMATS: Final[Mapping[str, str]] = {
    "uri": r"^[A-Za-z][A-Za-z0-9+.\-]*:",
    "date-time": r"^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)$",
}
"""What the official clients check of a format, which is less than its standard says."""
_LIKE_CLIENTS: Final = (
    ("Icon", "src", {"type": "string"}),
    ("Annotations", "lastModified", {"type": "string", "format": "date-time"}),
)
"""Where the official clients read a member otherwise than the schema says: no URI, and ISO 8601."""


@dataclass(frozen=True, slots=True)
class Validated:
    """The items that clients can read, and what is wrong with the others."""

    items: tuple[Item, ...]
    problems: tuple[str, ...]


def validate(kind: CatalogKind, items: Iterable[Item]) -> Validated:
    """Repair each item or leave it out; one that only stateless clients can read is marked so."""
    handshake = _schema(versions.NEWEST_HANDSHAKE)
    valid: list[Item] = []
    problems: list[str] = []
    for item in items:
        if _too_deep(item.raw):
            problems.append(
                f"{item.key!r} is left out: it is nested deeper than {MOST_LEVELS} levels"
            )
            continue
        own = item.raw if _is_plain(item.raw) else _rewritten(item.raw)
        if own is not item.raw and _has_twice(item.raw):
            problems.append(f"{item.key!r} has a member that appears twice: the last one counts")
        raw, fault = handshake.read(_DEFINITIONS[kind], own)
        if fault is None:
            valid.append(item if raw is item.raw else replace(item, raw=raw))
            continue
        raw, worse = _schema(versions.NEWEST_MODERN).read(_DEFINITIONS[kind], own)
        if worse is None:
            valid.append(replace(item, raw=raw, modern_only=True))
            problems.append(
                f"{item.key!r} is only for clients of {versions.NEWEST_MODERN}: {fault}"
            )
        else:
            problems.append(f"{item.key!r} is left out: {worse}")
    return Validated(tuple(valid), tuple(problems))


def readable_capabilities(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the capabilities that clients can read; of one that they cannot, the members that they can."""
    return _readable_members(declared, lambda members: members)


def unread_capabilities(given: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """Return why clients are not told of some capabilities of a server."""
    declared = decode_any(encode(given))
    readable = readable_capabilities(declared)
    return tuple(
        f"its capability {name!r} is not shown as it is: clients could not read it"
        for name in declared
        if declared[name] != readable.get(name)
    )


def _readable_members(
    members: Mapping[str, Any], whole: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Return the members that clients can read; `whole` puts some at their place in the capabilities."""
    readable: dict[str, Any] = {}
    for name, value in members.items():

        def here(inner: Any, name: str = name) -> dict[str, Any]:
            return whole({name: inner})

        if is_readable(CAPABILITIES, here(value)):
            readable[name] = value
        elif isinstance(value, dict) and is_readable(CAPABILITIES, here({})):
            readable[name] = _readable_members(value, here)
    return readable


def is_readable(definition: str, value: object) -> bool:
    """Return whether clients of either protocol can read this: a server's capabilities, or an icon."""
    raw = encode(value)
    schemas = (_schema(versions.NEWEST_HANDSHAKE), _schema(versions.NEWEST_MODERN))
    return all(schema.read(definition, raw) == (raw, None) for schema in schemas)


class _Schema:
    """The definitions of one revision, and a decoder for each kind of item that enforces them."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        for name, key, schema in _LIKE_CLIENTS:
            definitions[name]["properties"][key] = schema
        self._definitions = definitions
        self._types: dict[str, Any] = {}
        self._decoders = {
            name: msgspec.json.Decoder(self._type(definitions[name], name))
            for name in (*_DEFINITIONS.values(), CAPABILITIES, ICON)
        }

    def read(self, definition: str, raw: bytes) -> tuple[bytes, str | None]:
        """Return what is defined so, repaired if need be, and why it is invalid anyway."""
        decode = self._decoders[definition].decode
        try:
            decode(raw)
        except msgspec.ValidationError:
            raw = self._repaired(self._definitions[definition], raw)
            try:
                decode(raw)
            except msgspec.ValidationError as error:
                return raw, _described(error)
        except MALFORMED as error:
            return raw, str(error)
        return raw, None

    def _type(self, schema: dict[str, Any], name: str) -> Any:
        """Return the Python type of a schema, which msgspec validates while it decodes."""
        if reference := schema.get("$ref"):
            name = reference.rpartition("/")[2]
            if name not in self._types:
                self._types[name] = self._type(self._definitions[name], name)
            return self._types[name]
        if values := schema.get("enum") or ("const" in schema and [schema["const"]]):
            return Literal[tuple(values)]
        match schema.get("type"):
            case "object":
                return self._object(schema, name)
            case "array":
                return list[self._type(schema.get("items", {}), name + "Item")]  # type: ignore[misc]
            case "string":
                pattern = _FORMATS.get(schema.get("format", ""))
                return str if pattern is None else Annotated[str, msgspec.Meta(pattern=pattern)]
            case "integer" | "number" as what:
                least, most = schema.get("minimum"), schema.get("maximum")
                number = int if what == "integer" else float
                return Annotated[number, msgspec.Meta(ge=least, le=most)]
            case "boolean":
                return bool
        return msgspec.Raw

    def _object(self, schema: dict[str, Any], name: str) -> Any:
        members: dict[str, Any] = schema.get("properties", {})
        if not members:
            rest = schema.get("additionalProperties")
            return dict[str, self._type(rest if isinstance(rest, dict) else {}, name + "Value")]  # type: ignore[misc]
        required = schema.get("required", ())
        fields: list[Any] = []
        for number, (key, inner) in enumerate(members.items()):
            kind = self._type(inner, name + key.strip("$_").capitalize())
            attribute = f"member_{number}"
            fields.append(
                (attribute, kind)
                if key in required
                else (attribute, kind | msgspec.UnsetType, msgspec.UNSET)
            )
        renamed = {f"member_{number}": key for number, key in enumerate(members)}
        return msgspec.defstruct(name, fields, rename=renamed, kw_only=True)

    def _repaired(self, schema: dict[str, Any], raw: bytes) -> bytes:
        before = decode_any(raw)
        after = self._repair(schema, before)
        changes: dict[str, bytes | None] = {
            key: encode(value) for key, value in after.items() if value != before.get(key)
        }
        changes.update((key, None) for key in before.keys() - after.keys())
        return edit(raw, changes) if changes else raw

    def _repair(self, schema: Any, value: Any) -> Any:
        """Return the value without null members where the schema allows none, and with constants."""
        schema = self._resolved(schema)
        if isinstance(value, list):
            return [self._repair(schema.get("items"), item) for item in value]
        if not isinstance(value, dict) or not schema:
            return value
        members, rest = schema.get("properties", {}), schema.get("additionalProperties")
        repaired = {
            key: self._repair(members.get(key, rest), item)
            for key, item in value.items()
            if item is not None or not self._resolved(members.get(key, rest))
        }
        for key in schema.get("required", ()):
            if key not in repaired and "const" in members[key]:
                repaired[key] = members[key]["const"]
        return repaired

    def _resolved(self, schema: Any) -> dict[str, Any]:
        """Return the schema that a reference names; an empty one for a schema that allows anything."""
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        return self._definitions[reference.rpartition("/")[2]] if reference else schema


@cache
def _schema(version: str) -> _Schema:
    return _Schema(json.loads(SCHEMA.read_bytes())[version])


def _described(error: msgspec.ValidationError) -> str:
    """Return what is not valid, and where."""
    what, _, where = str(error).partition(" - at ")
    for name, pattern in _FORMATS.items():
        what = what.replace(f"`str` matching regex {pattern!r}", f"a {name}")
    place = where.strip("`").removeprefix("$").removeprefix(".")
    if lacking := _LACKING.match(what):
        return f"{place or 'it'} has no {lacking[1]}"
    return f"{place or 'it'}: {what[:1].lower()}{what[1:]}"


def _is_plain(raw: bytes) -> bool:
    """Return whether each name in this JSON appears once, and without escapes."""
    with suppress(*MALFORMED):  # `read` says what is wrong
        if encode(decode_any(raw)) == raw:  # most items: much faster than to look at each name
            return True
    return not _has_twice(raw) and not any(found[1] for found in _ESCAPED.finditer(raw))


def _has_twice(raw: bytes) -> bool:
    """Return whether an object in this JSON has two members of the same name."""
    found = False

    def members(pairs: list[tuple[str, Any]]) -> int:
        nonlocal found
        found = found or len({name for name, _ in pairs}) < len(pairs)
        return 0

    with suppress(ValueError):  # `read` says what is wrong
        json.loads(raw, object_pairs_hook=members)
    return found


def _rewritten(raw: bytes) -> bytes:
    """Return JSON with each name once and without escapes; the values keep their bytes."""
    if raw[:1] == b"{":
        members = {name: bytes(value) for name, value in decode_members(raw).items()}
        return encode({name: msgspec.Raw(_rewritten(value)) for name, value in members.items()})
    if raw[:1] == b"[":
        return encode([msgspec.Raw(_rewritten(bytes(value))) for value in decode_batch(raw)])
    return raw


def _too_deep(raw: bytes) -> bool:
    if raw.count(b"{") + raw.count(b"[") <= MOST_LEVELS:
        return False
    level = 0
    for found in _BRACKETS.finditer(raw):
        if found[1]:
            level += 1
        elif found[0] in b"]}":
            level -= 1
        if level > MOST_LEVELS:
            return True
    return False
