"""All upstreams and profiles, the current view of each profile, and the health report for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.gateway.catalog import (
    HeaderParam,
    Lists,
    NameTable,
    ProfileView,
    header_params_of,
    merge_lists,
    names_to_keep,
    routes_of,
)
from local_mcp_gateway.log import redact_text
from local_mcp_gateway.store import CatalogKind, ProfileDefinition

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams import Upstream


class Registry:
    """The registry of upstreams and profiles. Views are built on demand, then cached."""

    def __init__(self, list_timeout_s: float, keep: Callable[[NameTable], None]) -> None:
        self.upstreams: dict[str, Upstream] = {}
        self.profiles: Mapping[str, ProfileDefinition] = {}
        self._list_timeout_s = list_timeout_s
        self._views: dict[str, ProfileView] = {}
        self._shown: dict[str, NameTable] = {}
        """What each profile showed last by its id, so that names stay with their servers."""
        self.kept: dict[str, NameTable] = {}
        """The part of it that does not follow from the order, and is stored."""
        self._keep = keep
        """Called with the names of a profile to store from now on; to store none, without routes."""
        self._mirrored: dict[str, dict[str, tuple[HeaderParam, ...]]] = {}

    def definition(self, profile: str) -> ProfileDefinition:
        """Return a profile; an empty one when it was removed while something ran in it."""
        return self.profiles.get(profile) or ProfileDefinition(profile)

    def members(self, profile: str) -> list[Upstream]:
        """Return the active upstreams of a profile, in its order."""
        return [
            self.upstreams[member.server]
            for member in self.definition(profile).members
            if member.active and member.server in self.upstreams
        ]

    def profiles_of(self, server: str) -> frozenset[str]:
        """Return the names of the profiles that show this server."""
        return frozenset(
            profile.name
            for profile in self.profiles.values()
            if any(member.server == server and member.active for member in profile.members)
        )

    def view(self, profile: str) -> ProfileView:
        """Return what the profile shows, from the last known lists."""
        view = self._views.get(profile)
        if view is None:
            members = self.members(profile)
            catalogs = {upstream.name: upstream.catalog.lists or {} for upstream in members}
            held = {upstream.name: upstream.catalog.held for upstream in members}
            definition = self.definition(profile)
            last = self._shown.get(definition.id) or self.kept.get(definition.id)
            before = {} if last is None else last.held_by(definition)
            view = self._views[profile] = merge_lists(definition, catalogs, held, before)
            self._shown[definition.id] = NameTable(definition, view.routes)
            self._restore_from_cache(definition, view, catalogs)
        return view

    def _restore_from_cache(
        self, definition: ProfileDefinition, view: ProfileView, catalogs: Mapping[str, Lists]
    ) -> None:
        now = NameTable(definition, names_to_keep(view.routes, routes_of(definition, catalogs)))
        before = self.kept.pop(definition.id, None)
        if now.routes:
            self.kept[definition.id] = now
        if now != before and (now.routes or before is not None):
            self._keep(now)

    def header_params(self, upstream: Upstream, tool: str) -> tuple[HeaderParam, ...]:
        """Return the arguments of a tool that are repeated as headers."""
        known = self._mirrored.get(upstream.name)
        if known is None:
            tools = (upstream.catalog.lists or {}).get(CatalogKind.TOOLS, ())
            found = ((item.key, header_params_of(item.raw)) for item in tools)
            known = self._mirrored[upstream.name] = {key: each for key, each in found if each}
        return known.get(tool, ())

    async def settled_view(self, profile: str) -> ProfileView:
        """Return what the profile shows, after waiting a while for servers that were never connected.

        Servers with stored lists are not waited for: they connect in the background.
        """
        members = self.members(profile)
        for upstream in members:
            upstream.request_connection()
            upstream.catalog_sync.refresh_if_stale()
        unknown = [upstream for upstream in members if upstream.catalog.lists is None]
        if unknown:
            with suppress(TimeoutError):
                async with (
                    asyncio.timeout(self._list_timeout_s),
                    asyncio.TaskGroup() as waiting,
                ):
                    for upstream in unknown:
                        waiting.create_task(upstream.catalog_ready())
        return self.view(profile)

    def define(self, profiles: Iterable[ProfileDefinition]) -> None:
        """Replace the profiles; forget what was kept of removed ones."""
        self.profiles = {profile.name: profile for profile in profiles}
        here = {profile.id for profile in self.profiles.values()}
        for known in (self._shown, self.kept):
            for identity in known.keys() - here:
                del known[identity]
        self.forget_views()

    def forget_views(self, profiles: frozenset[str] | None = None) -> None:
        """Rebuild the views of these profiles, or of all, at the next request."""
        self._mirrored.clear()
        for name in tuple(self._views) if profiles is None else profiles:
            self._views.pop(name, None)


def health(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status without the servers' output, and with only the code of a problem."""
    servers = {
        name: {key: value for key, value in server.items() if key != "wrote"}
        for name, server in status["servers"].items()
    }
    shown = {key: value for key, value in status.items() if key != "problem"}
    problem = status["problem"]
    return {"status": problem["code"] if problem else "ready", **shown, "servers": servers}


def state_of(upstream: Upstream) -> dict[str, Any]:
    """Return a server's state: why it is down or incomplete, and its last output.

    Secrets in it are redacted.
    """
    lists = upstream.catalog.lists or {}
    reason = upstream.reason or upstream.catalog_sync.fault
    return {
        "state": upstream.state.value,
        "reason": reason and redact_text(reason),
        "retry_at": upstream.retry_at,
        "tools": len(lists[CatalogKind.TOOLS]) if lists else None,
        "held": sorted(upstream.catalog.held),
        "protocol": upstream.identity.version if upstream.identity else None,
        "pid": upstream.pid,
        "wrote": [redact_text(line) for line in upstream.stderr_lines],
    }
