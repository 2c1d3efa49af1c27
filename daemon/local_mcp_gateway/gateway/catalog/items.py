"""The items of the servers' lists, and the names under which a profile shows them. Pure.

Servers come in the profile's order. Under the policy `auto` the first server that has a name keeps
it, and only later ones are prefixed: adding a server never renames a tool that a client already uses.
A server that connects late takes no name that was already shown as another's, wherever it stands.
`always` prefixes every name. `never` prefixes none: the first one wins and later ones are hidden. A
resource's URI is an address, so it is another one only where two servers have the same, see `uris`.

Model APIs refuse a request with a tool whose name is not `[a-zA-Z0-9_-]{1,64}`, so other names are made
fit, but under `never`: the other characters become `_`, and a long name ends in a hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import msgspec

from local_mcp_gateway.gateway.catalog.uris import clashing
from local_mcp_gateway.gateway.protocol import MALFORMED
from local_mcp_gateway.store import CatalogKind, Prefix, ProfileDefinition, ToolSetting

SEPARATOR: Final = "__"
FITTING: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""The tool names that every model API accepts."""
LONGEST: Final = 64
HASH_DIGITS: Final = 8
LEAST_SERVER: Final = 8
"""How many characters of a server's name are kept in front of the name of a tool."""
LISTS: Final = (
    CatalogKind.TOOLS,
    CatalogKind.RESOURCES,
    CatalogKind.RESOURCE_TEMPLATES,
    CatalogKind.PROMPTS,
)
METHODS: Final = {
    CatalogKind.TOOLS: ("tools", "tools/list"),
    CatalogKind.RESOURCES: ("resources", "resources/list"),
    CatalogKind.RESOURCE_TEMPLATES: ("resources", "resources/templates/list"),
    CatalogKind.PROMPTS: ("prompts", "prompts/list"),
}
"""List → the capability that declares it, and the method that asks for it."""
KEYS: Final[Mapping[CatalogKind, str]] = {
    CatalogKind.TOOLS: "name",
    CatalogKind.RESOURCES: "uri",
    CatalogKind.RESOURCE_TEMPLATES: "uriTemplate",
    CatalogKind.PROMPTS: "name",
}


class _Named(msgspec.Struct):
    name: str = ""
    uri: str = ""
    uriTemplate: str = ""  # noqa: N815  the protocol's spelling


_decode_named = msgspec.json.Decoder(_Named).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Item:
    """One tool, resource, template or prompt: its key, and its JSON as the server wrote it."""

    key: str
    raw: bytes
    modern_only: bool = False
    """Whether clients of the handshake protocol could not read it."""


Lists = Mapping[CatalogKind, Sequence[Item]]


@dataclass(frozen=True, slots=True)
class Route:
    """The server that a name routes to, and the server's own name for it."""

    server: str
    key: str


Routes = Mapping[CatalogKind, Mapping[str, Route]]


def items_of(kind: CatalogKind, body: bytes | str) -> tuple[Item, ...]:
    """Parse a stored JSON array; skip an item without its key."""
    items = (Item(_key_of(raw, KEYS[kind]), bytes(raw)) for raw in _decode_list(body))
    return tuple(item for item in items if item.key)


def remembered(kind: CatalogKind, body: str | None) -> tuple[Item, ...]:
    """Parse a list from the database; empty if the stored text is malformed."""
    with suppress(*MALFORMED):
        return items_of(kind, body or "[]")
    return ()


def _key_of(raw: msgspec.Raw, key: str) -> str:
    try:
        return str(getattr(_decode_named(raw), key))
    except msgspec.DecodeError:  # not an object, or its name is not a string
        return ""


def body_of(items: Iterable[Item]) -> bytes:
    """Write items as a JSON array."""
    return b"[" + b",".join(item.raw for item in items) + b"]"


def hash_of(body: bytes) -> str:
    """Return the fingerprint that shows whether a list has changed."""
    return hashlib.sha256(body).hexdigest()


def routes_of(
    profile: ProfileDefinition,
    catalogs: Mapping[str, Lists],
    before: Mapping[CatalogKind, Mapping[str, Route]] = MappingProxyType({}),
) -> dict[CatalogKind, dict[str, Route]]:
    """Return the route of each name that the profile shows."""
    return {
        kind: _named(
            profile.prefix, kind, offered, settings_of(profile, kind), before.get(kind, {})
        )
        for kind, offered in offered_by(profile, catalogs).items()
    }


def keeps_names(old: ProfileDefinition, new: ProfileDefinition) -> bool:
    """Return whether shown names stay: the profile's rules and order are unchanged."""
    here = {member.server for member in old.members} & {member.server for member in new.members}
    orders = [[m.server for m in profile.members if m.server in here] for profile in (old, new)]
    return (old.prefix, _rules(old), orders[0]) == (new.prefix, _rules(new), orders[1])


def _rules(profile: ProfileDefinition) -> set[ToolSetting]:
    """Return the configured overrides: which tools are hidden, and which are renamed."""
    settings = (replace(setting, description=None) for setting in profile.tools)
    return {setting for setting in settings if setting.name or not setting.enabled}


def settings_of(profile: ProfileDefinition, kind: CatalogKind) -> dict[Route, ToolSetting]:
    """Return what the profile says of single tools; nothing is said of other kinds."""
    settings = profile.tools if kind is CatalogKind.TOOLS else ()
    return {Route(setting.server, setting.tool): setting for setting in settings}


def offered_by(
    profile: ProfileDefinition, catalogs: Mapping[str, Lists]
) -> dict[CatalogKind, dict[Route, Item]]:
    """Return what may be shown, in order; the first of two items with the same name on one server."""
    servers = [member.server for member in profile.members if member.active]
    found: dict[CatalogKind, dict[Route, Item]] = {}
    for kind in LISTS:
        known, offered = settings_of(profile, kind), found.setdefault(kind, {})
        for server in servers:
            for item in catalogs.get(server, {}).get(kind, ()):
                route = Route(server, item.key)
                setting = known.get(route)
                if setting is None or setting.enabled:
                    offered.setdefault(route, item)
    return found


def _named(
    policy: Prefix,
    kind: CatalogKind,
    offered: Iterable[Route],
    settings: Mapping[Route, ToolSetting],
    before: Mapping[str, Route],
) -> dict[str, Route]:
    here = set(offered)
    fits = _fits if kind is CatalogKind.TOOLS and policy is not Prefix.NEVER else None
    names = {
        name: route
        for name, route in before.items()
        if route in here and (fits is None or fits(name, settings.get(route)))
    }
    here.difference_update(names.values())
    for route in offered:
        if route in here:
            setting = settings.get(route)
            name = _exposed(policy, kind, route.server, route.key, setting, names)
            if name is not None:
                names[name] = route
    return names


def _exposed(
    policy: Prefix,
    kind: CatalogKind,
    server: str,
    key: str,
    setting: ToolSetting | None,
    taken: Mapping[str, Route],
) -> str | None:
    """Return the name under which a client sees this item, or None when it cannot be shown."""
    named = KEYS[kind] == "name"
    name = setting.name if setting is not None and setting.name else key
    prefixed = f"{server}{SEPARATOR}{name}" if named else clashing(server, key)
    if policy is Prefix.ALWAYS and named and not (setting and setting.name):
        candidates = [prefixed]
    elif policy is Prefix.NEVER:
        candidates = [name]
    else:
        candidates = [name, prefixed, f"{server}{SEPARATOR}{key}"] if named else [name, prefixed]
    if kind is CatalogKind.TOOLS and policy is not Prefix.NEVER:
        chosen = candidates[:1] if setting and setting.name else []
        made = [fitting(candidate) for candidate in candidates[len(chosen) :]]
        candidates = [*chosen, *made, _hashed(server, key)]
    return next((candidate for candidate in candidates if candidate not in taken), None)


def fitting(name: str) -> str:
    """Return a name as model APIs accept it: the same one, if they do."""
    if FITTING.fullmatch(name):
        return name
    if len(name) <= LONGEST:
        return _plain(name)
    server, separator, key = name.partition(SEPARATOR)
    return _hashed(server, key) if separator else _hashed("", name)


def _hashed(server: str, key: str) -> str:
    """Return a name with a hash of the whole in it, so that it is unique and never changes."""
    whole = f"{server}{SEPARATOR}{key}" if server else key
    digits = hashlib.sha256(whole.encode()).hexdigest()[:HASH_DIGITS]
    room = LONGEST - len(f"_{digits}{SEPARATOR}{key}")
    if server and room >= LEAST_SERVER:
        return _plain(f"{server[:room]}_{digits}{SEPARATOR}{key}")
    return _plain(whole)[: LONGEST - len(digits) - 1] + f"_{digits}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)


def _fits(name: str, setting: ToolSetting | None) -> bool:
    """Return whether a tool may keep this name: model APIs accept it, or a person chose it."""
    chosen = setting is not None and setting.name == name
    return chosen or FITTING.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class NameTable:
    """The names of one profile that do not follow from its order, and the profile they were made for."""

    profile: ProfileDefinition
    routes: Routes

    def held_by(self, profile: ProfileDefinition) -> Routes:
        """Return the routes that still hold for the profile as it is now."""
        return self.routes if keeps_names(self.profile, profile) else {}

    def written(self) -> str:
        """Return them as JSON text."""
        return msgspec.json.encode(self).decode()


def read_names(text: str) -> NameTable | None:
    """Parse stored names; None if they are not readable (written by a newer version, say)."""
    try:
        return msgspec.json.decode(text, type=NameTable)
    except msgspec.DecodeError:
        return None


def names_to_keep(shown: Routes, by_order: Routes) -> Routes:
    """Return the routes of each kind for which the order alone would give different names.

    All routes of such a kind: each name depends on which others are taken.
    """
    return {kind: routes for kind, routes in shown.items() if routes != by_order[kind]}
