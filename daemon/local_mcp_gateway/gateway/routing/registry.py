"""All upstreams and profiles, the current view of each profile, and the health report for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.gateway.catalog import (
    LISTS,
    HeaderParam,
    Lists,
    NameTable,
    ProfileView,
    Visibility,
    header_params_of,
    merge_lists,
    names_to_keep,
    routes_of,
    visible,
)
from local_mcp_gateway.log import redact_text
from local_mcp_gateway.store import NOTHING, CatalogKind, ClientToken, ProfileDefinition

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.upstreams import Upstream


INTRODUCED_S: Final = 5.0
"""How long `initialize` waits for servers that were never connected."""


class Registry:
    """The registry of upstreams and profiles. Views are built on demand, then cached."""

    def __init__(self, options: GatewayOptions, keep: Callable[[NameTable], None]) -> None:
        self.upstreams: dict[str, Upstream] = {}
        """The connections that clients share, by the server's name."""
        self.owned: dict[object, dict[str, Upstream]] = {}
        """Client → the connections that it has for itself, by the server's name."""
        self._own_views: dict[object, dict[tuple[str, str], ProfileView]] = {}
        """Client → views of its own, where a server shows it something else."""
        self.profiles: Mapping[str, ProfileDefinition] = {}
        self._profiles_of: dict[str, frozenset[str]] = {}
        """The profiles that show a server: each request to it names them."""
        self._options = options
        self.tokens: Mapping[str, ClientToken] = {}
        """The tokens of clients by id."""
        self._merged: dict[str, ProfileView] = {}
        """Profile → what its servers have, whether or not a client may see it."""
        self._views: dict[tuple[str, str], ProfileView] = {}
        """Profile and id of a token → what exists for its clients."""
        self._shown: dict[str, NameTable] = {}
        """What each profile showed last by its id, so that names stay with their servers."""
        self.kept: dict[str, NameTable] = {}
        """The part of it that does not follow from the order, and is stored."""
        self._keep = keep
        """Called with the names of a profile to store from now on; to store none, without routes."""
        self._mirrored: dict[Upstream, dict[str, tuple[HeaderParam, ...]]] = {}

    def reachable(self, token: ClientToken | None) -> Collection[str]:
        """Return the names of the profiles that exist for this client."""
        if token is None or token.profiles is None:
            return self.profiles.keys()
        return [name for name, profile in self.profiles.items() if token.reaches(profile.id)]

    def definition(self, profile: str) -> ProfileDefinition:
        """Return a profile; an empty one when it was removed while something ran in it."""
        return self.profiles.get(profile) or ProfileDefinition(profile)

    def members(self, profile: str, client: object = None) -> list[Upstream]:
        """Return the active upstreams of a profile, in its order: the client's own, or the shared ones."""
        own = self.owned.get(client, {})
        return [
            own.get(member.server) or self.upstreams[member.server]
            for member in self.definition(profile).members
            if member.active and member.server in self.upstreams
        ]

    def at(self, server: str, client: object = None) -> Upstream | None:
        """Return the connection of this client to a server, or the shared one."""
        return self.owned.get(client, {}).get(server) or self.upstreams.get(server)

    def owned_at(self, server: str) -> Iterator[tuple[object, Upstream]]:
        """Yield the connections to this server that belong to one client, each with that client."""
        for client, owned in self.owned.items():
            if server in owned:
                yield client, owned[server]

    def replace(self, upstream: Upstream, fresh: Upstream) -> None:
        """Let clients share another connection in place of this one."""
        self.upstreams[upstream.name] = fresh
        self._mirrored.clear()

    def disown(self, client: object, server: str) -> None:
        """Forget a connection of this client."""
        owned = self.owned.get(client, {})
        if (own := owned.pop(server, None)) is not None:
            self._mirrored.pop(own, None)
        self._own_views.pop(client, None)
        if not owned:
            self.owned.pop(client, None)

    def listed(self, own: Upstream) -> None:
        """Take note that the lists of a client's own connection have changed."""
        self._own_views.pop(own.owner, None)
        self._mirrored.pop(own, None)
        if (shared := self.upstreams.get(own.name)) is not None:
            own.catalog.share(shared.catalog)

    def profiles_of(self, server: str) -> frozenset[str]:
        """Return the names of the profiles that show this server."""
        found = self._profiles_of.get(server)
        if found is None:
            found = self._profiles_of[server] = frozenset(
                profile.name
                for profile in self.profiles.values()
                if any(member.server == server and member.active for member in profile.members)
            )
        return found

    def view(self, profile: str, client: object = None, token: str = "") -> ProfileView:
        """Return what exists in the profile for this client and token, from the last known lists.

        Everything that names a tool asks here.
        """
        if client in self.owned:
            return self._own_view(profile, client, token)
        view = self._views.get((profile, token))
        if view is None:
            view = self._views[profile, token] = self._visible(profile, self._all(profile), token)
        return view

    def _visible(self, profile: str, view: ProfileView, token: str) -> ProfileView:
        """Return the part of a view that the policies of profile and token show."""
        policies = [self.definition(profile).policy]
        if token:
            known = self.tokens.get(token)
            policies.append(NOTHING if known is None else known.policy)
        hiding = tuple(policy for policy in policies if policy.hides)
        if not hiding:
            return view
        trusted = {name for name, u in self.upstreams.items() if u.definition.trust_annotations}
        return visible(view, Visibility(hiding, trusted))

    def _all(self, profile: str) -> ProfileView:
        """Return what the servers of a profile have, under the names that it gives them."""
        view = self._merged.get(profile)
        if view is None:
            members = self.members(profile)
            catalogs = {upstream.name: upstream.catalog.lists or {} for upstream in members}
            held = {upstream.name: upstream.catalog.held for upstream in members}
            definition = self.definition(profile)
            last = self._shown.get(definition.id) or self.kept.get(definition.id)
            before = {} if last is None else last.held_by(definition)
            view = self._merged[profile] = merge_lists(definition, catalogs, held, before)
            self._shown[definition.id] = NameTable(definition, view.routes)
            self._restore_from_cache(definition, view, catalogs)
        return view

    def _own_view(self, profile: str, client: object, token: str) -> ProfileView:
        """Return what the profile shows a client that has connections of its own."""
        known = self._own_views.setdefault(client, {})
        if (profile, token) not in known:
            shared = self._all(profile)
            members = [(self.upstreams[u.name], u) for u in self.members(profile, client)]
            if all(own.catalog.lists is base.catalog.lists for base, own in members):
                own_view = shared
            else:
                catalogs = {own.name: own.catalog for _, own in members}
                own_view = merge_lists(
                    self.definition(profile),
                    {name: catalog.lists or {} for name, catalog in catalogs.items()},
                    {name: catalog.held for name, catalog in catalogs.items()},
                    shared.routes,
                )
            known[profile, token] = self._visible(profile, own_view, token)
        return known[profile, token]

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
        known = self._mirrored.get(upstream)
        if known is None:
            tools = (upstream.catalog.lists or {}).get(CatalogKind.TOOLS, ())
            found = ((item.key, header_params_of(item.raw)) for item in tools)
            known = self._mirrored[upstream] = {key: each for key, each in found if each}
        return known.get(tool, ())

    async def settled_view(
        self, profile: str, client: object = None, token: str = ""
    ) -> ProfileView:
        """Return what the profile shows, after waiting a while for servers that were never connected.

        Servers with stored lists are not waited for: they connect in the background.
        """
        members = self.members(profile, client)
        for upstream in members:
            upstream.lifecycle.request()
            upstream.catalog_sync.refresh_if_stale()
        await self._wait_for_lists(members, self._options.list_timeout_s)
        return self.view(profile, client, token)

    async def _wait_for_lists(self, members: list[Upstream], patience_s: float) -> None:
        unknown = [upstream for upstream in members if upstream.awaits_lists]
        if unknown:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s), asyncio.TaskGroup() as waiting:
                    for upstream in unknown:
                        waiting.create_task(upstream.catalog_ready())

    async def introduced(self, profile: str) -> list[Upstream]:
        """Return the upstreams of a profile, after waiting for what never-connected ones say about themselves.

        That is less than for their lists: without them a client has something to begin with.
        """
        members = self.members(profile)
        for upstream in members:
            upstream.lifecycle.request()
        await self._wait_for_lists(members, min(INTRODUCED_S, self._options.list_timeout_s))
        return members

    def ttl_ms(self, profile: str, client: object, kind: CatalogKind) -> int:
        """Return how long a client may keep this list: 0, unless every server said so of its own."""
        members = self.members(profile, client)
        return min((upstream.catalog_sync.ttl_ms(kind) for upstream in members), default=0)

    def define(self, profiles: Iterable[ProfileDefinition]) -> None:
        """Replace the profiles; forget what was kept of removed ones."""
        self.profiles = {profile.name: profile for profile in profiles}
        self._profiles_of.clear()
        here = {profile.id for profile in self.profiles.values()}
        for known in (self._shown, self.kept):
            for identity in known.keys() - here:
                del known[identity]
        self.forget_views()

    def shown(self) -> dict[str, ProfileView]:
        """Return the views that were built and still hold, by profile; without those of tokens."""
        return {profile: view for (profile, token), view in self._views.items() if not token}

    def changed_views(
        self,
        before: Mapping[str, ProfileDefinition],
        shown: Mapping[str, ProfileView],
        servers: Collection[str],
    ) -> Iterator[tuple[str, set[CatalogKind]]]:
        """Yield each profile that is another than before, or whose servers are, with the lists that are others."""
        profiles = {name for name, profile in self.profiles.items() if before.get(name) != profile}
        for server in servers:
            profiles |= self.profiles_of(server)
        self.forget_views(frozenset(profiles))
        for name in profiles:
            old, new = shown.get(name), self.view(name)
            yield name, {k for k in LISTS if old is None or old.lists[k] != new.lists[k]}

    def forget_views(self, profiles: frozenset[str] | None = None) -> None:
        """Rebuild the views of these profiles, or of all, at the next request."""
        self._mirrored.clear()
        self._own_views.clear()
        for name in tuple(self._merged) if profiles is None else profiles:
            self._merged.pop(name, None)
        for key in [key for key in self._views if profiles is None or key[0] in profiles]:
            del self._views[key]


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
    life, lists = upstream.lifecycle, upstream.catalog.lists or {}
    reason = life.reason or upstream.catalog_sync.fault
    return {
        "state": life.state.value,
        "reason": reason and redact_text(reason),
        "retry_at": life.retry_at,
        "tools": len(lists[CatalogKind.TOOLS]) if lists else None,
        "held": sorted(upstream.catalog.held),
        "protocol": upstream.identity.version if upstream.identity else None,
        "pid": life.pid,
        "wrote": [redact_text(line) for line in life.stderr_lines],
    }
