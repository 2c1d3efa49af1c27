"""Cache the servers' lists and the profiles' names in the database, so that a start has them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from local_mcp_gateway.database import ConnectionPool, Error
from local_mcp_gateway.gateway.catalog import (
    LISTS,
    Lists,
    NameTable,
    body_of,
    hash_of,
    items_of,
    read_names,
    validate,
)
from local_mcp_gateway.gateway.protocol import MALFORMED, encode
from local_mcp_gateway.gateway.upstreams import Identity
from local_mcp_gateway.store import (
    CatalogEntry,
    CatalogKind,
    load_approved,
    load_catalogs,
    load_names,
    save_catalogs,
    save_names,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from local_mcp_gateway.gateway.tasks import TaskScope
    from local_mcp_gateway.gateway.upstreams import Upstream
    from local_mcp_gateway.log import Emit

Approvals = dict[str, dict[str, bytes]]
"""Id of a server → its tools, each as it was approved."""


class CatalogCache:
    """Loads what is remembered, and saves what is new in `tasks`. What cannot be saved is reported."""

    def __init__(self, database: ConnectionPool, emit: Emit, tasks: TaskScope) -> None:
        self._database = database
        self._emit = emit
        self._tasks = tasks

    async def approvals(self, database: ConnectionPool) -> Approvals:
        """Return the tools that are approved."""
        stored = await load_approved(database)
        return {
            server: {name: body.encode() for name, body in tools.items()}
            for server, tools in stored.items()
        }

    async def restore(self, upstreams: Collection[Upstream], approvals: Approvals) -> None:
        """Load the stored lists and the approvals into new upstreams."""
        if not upstreams:
            return  # of a large catalog the lists are megabytes
        remembered: dict[str, dict[CatalogKind, str]] = {}
        for entry in await load_catalogs(self._database):
            remembered.setdefault(entry.server_id, {})[entry.kind] = entry.body
        for upstream in upstreams:
            identity = upstream.definition.id
            self._restore(upstream, remembered.get(identity, {}), approvals.get(identity, {}))

    def _restore(
        self, upstream: Upstream, known: Mapping[CatalogKind, str], approved: Mapping[str, bytes]
    ) -> None:
        upstream.catalog.approve(approved)
        if CatalogKind.INITIALIZE not in known:
            return  # never connected
        try:
            identity = msgspec.json.decode(known[CatalogKind.INITIALIZE], type=Identity)
            lists: Lists = {
                kind: validate(kind, items_of(kind, known[kind])).items
                for kind in LISTS
                if kind in known
            }
        except MALFORMED as error:  # edited by hand
            message = f"What is remembered of its lists is malformed: {error}"
            self._emit("catalog.load_failed", server=upstream.name, message=message)
            return
        upstream.restore_from_cache(identity, lists, approved)

    def keep(self, upstream: Upstream, changed: frozenset[CatalogKind]) -> None:
        """Save what a server has said about itself, those of its lists that changed, and new approvals."""
        self._tasks.start(self._keep, upstream, changed)

    async def _keep(self, upstream: Upstream, changed: frozenset[CatalogKind]) -> None:
        identity = encode(upstream.identity)
        bodies = {CatalogKind.INITIALIZE: identity}
        lists = upstream.catalog.lists or {}
        bodies |= {kind: body_of(lists.get(kind, ())) for kind in changed.intersection(LISTS)}
        entries = [
            CatalogEntry(upstream.definition.id, kind, body.decode(), hash_of(body))
            for kind, body in bodies.items()
        ]
        catalog = upstream.catalog
        unsaved, catalog.unsaved = catalog.unsaved, set()
        tools = [
            (upstream.definition.id, name, catalog.approved[name].decode()) for name in unsaved
        ]
        try:
            await save_catalogs(self._database, entries, tools)
        except Error as error:
            catalog.unsaved |= unsaved
            self._emit("catalog.save_failed", server=upstream.name, message=str(error))
        else:
            self._emit("catalog.saved", server=upstream.name, lists=sorted(changed))

    async def names(self) -> dict[str, NameTable]:
        """Return the names that profiles have shown, by the id of the profile."""
        stored = await load_names(self._database)
        found = {profile: read_names(text) for profile, text in stored.items()}
        return {profile: each for profile, each in found.items() if each is not None}

    def keep_names(self, table: NameTable) -> None:
        """Save the names that a profile shows."""
        self._tasks.start(self._keep_names, table)

    async def _keep_names(self, table: NameTable) -> None:
        try:
            text = table.written() if table.routes else None
            await save_names(self._database, table.profile.id, text)
        except Error as error:
            self._emit("catalog.save_failed", profile=table.profile.name, message=str(error))
        else:
            self._emit("catalog.saved", profile=table.profile.name)
