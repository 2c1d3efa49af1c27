"""Decide which tools exist for a client: the one place that does, for whatever names a tool. Pure.

A tool is shown if the policy of the profile and that of the token allow it. What is not shown keeps its name,
as a held tool does, so that no client's names depend on what another may see.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.store import CatalogKind, Policy

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog.merge import ProfileView, Route


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
