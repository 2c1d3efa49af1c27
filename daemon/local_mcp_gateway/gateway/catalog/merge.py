"""Merge the lists of a profile's servers into the one view that a client gets. Pure.

What a client may not use is not in its view: `Visibility` is the one place that decides it, for whatever
names a tool. A tool is shown if the policy of the profile and that of the token allow it. One that is not
shown keeps its name, as a held tool does, so that no client's names depend on what another may see.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from local_mcp_gateway.gateway.catalog.items import (
    KEYS,
    Item,
    Lists,
    Route,
    offered_by,
    routes_of,
    settings_of,
)
from local_mcp_gateway.gateway.catalog.uris import Template, app_uris, clashing, with_shown_uris
from local_mcp_gateway.gateway.protocol import edit, encode, member
from local_mcp_gateway.store import CatalogKind, Policy, ProfileDefinition, ToolSetting

NAMED: Final = (CatalogKind.TOOLS, CatalogKind.PROMPTS)
MEMBERS: Final[Mapping[CatalogKind, str]] = {
    CatalogKind.TOOLS: "tools",
    CatalogKind.RESOURCES: "resources",
    CatalogKind.RESOURCE_TEMPLATES: "resourceTemplates",
    CatalogKind.PROMPTS: "prompts",
}


class Reader(NamedTuple):
    """What a client can read, which decides what is listed for it."""

    modern: bool = False
    """Whether it speaks the stateless protocol."""
    tasks: bool = False
    """Whether it can call a tool that only runs as a task."""


class Listed(NamedTuple):
    """The JSON of an item under its shown name, and the clients that it is listed for."""

    raw: bytes
    modern_only: bool = False
    tasks_only: bool = False
    route: Route | None = None

    def is_for(self, reader: Reader) -> bool:
        """Return whether this client can read and use it."""
        return (reader.modern or not self.modern_only) and (reader.tasks or not self.tasks_only)


ALL: Final = Reader(modern=True, tasks=True)


@dataclass(frozen=True, slots=True)
class ProfileView:
    """What one profile shows: the items of each list, and the routes behind their names."""

    lists: Mapping[CatalogKind, Sequence[Listed]]
    routes: Mapping[CatalogKind, Mapping[str, Route]]
    templates: tuple[tuple[Template, Route], ...] = ()
    hidden: tuple[str, ...] = ()
    servers: tuple[str, ...] = field(default=())
    own_names: Mapping[CatalogKind, Mapping[str, Route]] = field(default_factory=dict)
    """The servers' own names of what is shown under another name, where only one server has that name."""
    referenced: Mapping[str, Route] = field(default_factory=dict)
    """URIs of apps that tools refer to and no list has."""
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Server → its own URI of a resource → the URI that is shown in its place."""
    visibility: Visibility | None = field(default=None, compare=False)
    """What hides tools from the client; None where nothing does."""
    _results: dict[tuple[CatalogKind, Reader], bytes] = field(default_factory=dict, compare=False)

    def result(self, kind: CatalogKind, reader: Reader = ALL) -> bytes:
        """Return the result of a list method for such a client, as JSON."""
        result = self._results.get((kind, reader))
        if result is None:
            shown = b",".join(item.raw for item in self.lists[kind] if item.is_for(reader))
            result = b'{"' + MEMBERS[kind].encode() + b'":[' + shown + b"]}"
            self._results[kind, reader] = result
        return result


def merge_lists(
    profile: ProfileDefinition,
    catalogs: Mapping[str, Lists],
    held: Mapping[str, Collection[str]] = MappingProxyType({}),
    before: Mapping[CatalogKind, Mapping[str, Route]] = MappingProxyType({}),
) -> ProfileView:
    """Return what `profile` shows, given the last known lists of each server by name.

    A tool that is `held` is not listed, but keeps its name: no other server's tool may take it. Names
    in `before`, the routes that were shown last, stay with their servers if those still offer them.
    """
    servers = tuple(member.server for member in profile.members if member.active)
    routes = routes_of(profile, catalogs, before)
    all_offered = offered_by(profile, catalogs)
    referenced = _referenced(all_offered[CatalogKind.TOOLS], routes[CatalogKind.RESOURCES])
    renamed: dict[str, dict[str, str]] = {}
    for uri, route in (*routes[CatalogKind.RESOURCES].items(), *referenced.items()):
        if uri != route.key:
            renamed.setdefault(route.server, {})[route.key] = uri
    lists: dict[CatalogKind, tuple[Listed, ...]] = {}
    hidden: list[str] = []
    for kind, offered in all_offered.items():
        known = settings_of(profile, kind)
        names = {route: name for name, route in routes[kind].items()}
        hidden += [f"{route.server}:{route.key}" for route in offered if route not in names]
        lists[kind] = tuple(
            Listed(
                _shown(kind, item, names[route], known.get(route), renamed.get(route.server)),
                item.modern_only,
                kind is CatalogKind.TOOLS and only_as_task(item.raw),
                route,
            )
            for route, item in offered.items()
            if route in names
            and (kind is not CatalogKind.TOOLS or route.key not in held.get(route.server, ()))
        )
    templates = tuple(
        (Template.of(name), route) for name, route in routes[CatalogKind.RESOURCE_TEMPLATES].items()
    )
    own = {kind: _own_names(routes[kind], settings_of(profile, kind)) for kind in NAMED}
    return ProfileView(lists, routes, templates, tuple(hidden), servers, own, referenced, renamed)


def _own_names(
    routes: Mapping[str, Route], settings: Mapping[Route, ToolSetting]
) -> dict[str, Route]:
    """Return the servers' own names that are shown otherwise, without those that a person renamed.

    An app calls the tools of its server by these names.
    """
    found: dict[str, list[Route]] = {}
    for route in routes.values():
        found.setdefault(route.key, []).append(route)
    return {
        key: only[0]
        for key, only in found.items()
        if len(only) == 1
        and key not in routes
        and not ((setting := settings.get(only[0])) and setting.name)
    }


def _referenced(tools: Mapping[Route, Item], resources: Mapping[str, Route]) -> dict[str, Route]:
    """Return the URIs of apps that tools name and no server lists, by the URI that is shown."""
    listed, found = set(resources.values()), {}
    for tool, item in tools.items():
        for key in app_uris(item.raw):
            route = Route(tool.server, key)
            if route not in listed:
                listed.add(route)
                taken = key in resources or key in found
                found[clashing(tool.server, key) if taken else key] = route
    return found


def only_as_task(tool: bytes) -> bool:
    """Return whether a tool is to be called as a task only (2025-11-25, `taskSupport`)."""
    if b'"taskSupport"' not in tool:
        return False
    return member(member(tool, "execution"), "taskSupport") == b'"required"'


def _shown(
    kind: CatalogKind,
    item: Item,
    name: str,
    setting: ToolSetting | None,
    renamed: Mapping[str, str] | None,
) -> bytes:
    changes: dict[str, bytes | None] = {}
    if name != item.key:
        changes[KEYS[kind]] = encode(name)
    if setting is not None and setting.description is not None:
        changes["description"] = encode(setting.description)
    raw = edit(item.raw, changes) if changes else item.raw
    return with_shown_uris(raw, renamed) if renamed and kind is CatalogKind.TOOLS else raw


class _Annotations(msgspec.Struct):
    readOnlyHint: bool = False  # noqa: N815  the protocol's spelling


class _Annotated(msgspec.Struct):
    annotations: _Annotations = msgspec.field(default_factory=_Annotations)


_decode_annotated: Final = msgspec.json.Decoder(_Annotated).decode


@dataclass(frozen=True, slots=True)
class Visibility:
    """The policies that hide something from a client, and the servers whose annotations are believed."""

    policies: tuple[Policy, ...]
    trusted: Container[str]

    def shows(self, route: Route, name: str, definition: bytes | None) -> bool:
        """Return whether a tool exists for the client under this name.

        `definition` is its JSON; None for a tool that its server does not list, and says nothing of.
        """
        names = (name, route.key, f"{route.server}/{route.key}")
        for policy in self.policies:
            if policy.allowed and not _matches(policy.allowed, names):
                return False
            if policy.denied and _matches(policy.denied, names):
                return False
            if policy.read_only and not self._only_reads(route, definition):
                return False
        return True

    def _only_reads(self, route: Route, definition: bytes | None) -> bool:
        if definition is None or route.server not in self.trusted:
            return False
        try:
            return _decode_annotated(definition).annotations.readOnlyHint
        except msgspec.DecodeError:  # null, or anything else that is not clearly said
            return False


def visible(view: ProfileView, visibility: Visibility) -> ProfileView:
    """Return the part of a view that exists for a client."""
    tools = CatalogKind.TOOLS
    listed = {item.route: item.raw for item in view.lists[tools] if item.route is not None}
    shown = {
        name: route
        for name, route in view.routes[tools].items()
        if visibility.shows(route, name, listed.get(route))
    }
    here = set(shown.values())
    return replace(
        view,
        lists={**view.lists, tools: [item for item in view.lists[tools] if item.route in here]},
        routes={**view.routes, tools: shown},
        own_names={
            **view.own_names,
            tools: {name: r for name, r in view.own_names[tools].items() if r in here},
        },
        visibility=visibility,
        _results={},
    )


def _matches(patterns: tuple[str, ...], names: Iterable[str]) -> bool:
    matching = _compiled(patterns)
    return any(matching.fullmatch(name) is not None for name in names)


@lru_cache(256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{translate(pattern)})" for pattern in patterns))
