"""Keeps a server's lists fresh while it is connected, each list for itself.

All are fetched when it is met; one of them again when the server says that it changed, and behind a
client that asks when it is older than the server said it may become (`ttlMs`; else five minutes). A list that cannot be had
stays as it was known last, is told in the server's health, and is tried again with growing pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from itertools import chain
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.catalog.union import LISTS
from local_mcp_gateway.gateway.upstreams.listing import METHODS, Fetched, fetch_lists
from local_mcp_gateway.gateway.upstreams.pace import SETTLE_S, Gathering
from local_mcp_gateway.gateway.upstreams.waiting import backoff_s

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog.shelf import Shelf
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.upstreams.connection import Connection
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.store.model import CatalogKind

LEAST_TTL_S: Final = 5.0
"""A list is not fetched again more often than that because it may be old, however often it is asked for."""

UNTOLD_TTL_S: Final = 300.0
"""How old a list may become of which the server does not say so: it may have no way to tell of changes."""

Listed = Callable[[frozenset["CatalogKind"], frozenset["CatalogKind"]], None]
"""Lists were fetched: which are different, and of which the server said that they are."""


class Keeper:
    """`run` it beside each connection of the upstream."""

    def __init__(
        self, server: str, shelf: Shelf, listed: Listed, options: GatewayOptions, emit: Emit
    ) -> None:
        self.known = asyncio.Event()
        """Set when nobody has to wait for the lists: they are there, or will be announced."""
        self.faults: dict[CatalogKind, str] = {}
        self._unfit: dict[CatalogKind, tuple[str, ...]] = {}
        self._server = server
        self._shelf = shelf
        self._listed = listed
        self._options = options
        self._emit = emit
        self._due: set[CatalogKind] = set()
        self._under_way: set[CatalogKind] = set()
        self._stir = asyncio.Event()
        self._announced: frozenset[CatalogKind] = frozenset()
        self._fresh_until: dict[CatalogKind, float] = {}
        self._gathering = Gathering()
        self._failures = 0
        self._retrying: asyncio.TimerHandle | None = None

    @property
    def fault(self) -> str | None:
        """Return why lists are not as the server has them, or None."""
        unfit = chain.from_iterable(self._unfit.values())
        return "; ".join(dict.fromkeys(chain(self.faults.values(), unfit))) or None

    def changed(self, kinds: frozenset[CatalogKind]) -> None:
        """Fetch these lists again soon: the server said that they changed."""
        self._announced |= kinds
        self._fetch(kinds)

    def asked(self) -> None:
        """Fetch again behind what is older than it may become: a client wants the lists."""
        if self._fresh_until:
            now = asyncio.get_running_loop().time()
            old = [kind for kind, until in self._fresh_until.items() if until < now]
            for kind in old:
                del self._fresh_until[kind]
            if old:
                self._fetch(old)

    async def run(self, connection: Connection) -> None:
        """Fetch all lists, and then what is due, until cancelled. None is fetched twice at a time."""
        self._fresh_until.clear()
        self._under_way.clear()
        self._failures = 0
        self._fetch(LISTS)
        try:
            async with asyncio.TaskGroup() as fetching:
                while connection.lost is None:
                    await self._stir.wait()
                    self._stir.clear()
                    if kinds := self._due - self._under_way:
                        self._due -= kinds
                        self._under_way |= kinds
                        fetching.create_task(self._refresh(connection, kinds))
                        await asyncio.sleep(self._pause_s(kinds))
        finally:
            if self._retrying is not None:
                self._retrying.cancel()

    def _pause_s(self, kinds: Collection[CatalogKind]) -> float:
        if self._announced.isdisjoint(kinds):
            return SETTLE_S
        return self._gathering.pause_s(asyncio.get_running_loop().time())

    async def _refresh(self, connection: Connection, kinds: Collection[CatalogKind]) -> None:
        announced = self._announced.intersection(kinds)
        self._announced -= announced
        async for fetched in fetch_lists(connection, kinds, self._patience_s()):
            self._under_way -= fetched.lists.keys() | fetched.faults.keys()
            if connection.lost is None:
                self._take(fetched, announced)
            self._stir.set()

    def warn(self, altered: tuple[str, ...]) -> None:
        """Tell that tools are not as they were approved."""
        if altered:
            held = not self._shelf.held.isdisjoint(altered)
            self._emit("catalog.altered", server=self._server, tools=list(altered), held=held)

    def _fetch(self, kinds: Collection[CatalogKind]) -> None:
        self._due.update(kinds)
        self._stir.set()

    def _patience_s(self) -> float:
        """Return how long a list may take: not long at first, since news of others wait for it."""
        first = self._options.list_timeout_s
        return min(first * 2.0 ** min(self._failures, 16), self._options.call_timeout_s)

    def _take(self, fetched: Fetched, announced: frozenset[CatalogKind]) -> None:
        now = asyncio.get_running_loop().time()
        for kind in fetched.lists:
            self.faults.pop(kind, None)
        self._unfit.update(fetched.unfit)
        for line in chain.from_iterable(fetched.unfit.values()):
            self._emit("upstream.wrote", server=self._server, line=line + ": it is passed over")
        for kind in fetched.late:
            self.faults.setdefault(kind, f"{METHODS[kind][1]} is not answered yet")
        for kind in fetched.lists:
            ttl_s = fetched.ttl_s.get(kind, UNTOLD_TTL_S)
            self._fresh_until[kind] = now + max(ttl_s, LEAST_TTL_S)
        self._retry(fetched.faults, announced)
        if fetched.lists:
            news = self._shelf.take(fetched.lists)
            self.warn(news.altered)
            self._listed(news.changed, announced.intersection(fetched.lists))
        self.known.set()

    def _retry(self, faults: dict[CatalogKind, str], announced: frozenset[CatalogKind]) -> None:
        """Try again later what failed; it is announced when it comes."""
        self._announced |= announced & faults.keys()
        for reason in dict.fromkeys(faults.values()):
            self._emit("upstream.wrote", server=self._server, line=reason)
        self.faults.update(faults)
        if not self.faults:
            self._failures = 0
        if faults:
            self._failures += 1
            pause_s = backoff_s(self._failures, self._options.backoff_max_s)
            loop = asyncio.get_running_loop()
            self._retrying = loop.call_later(pause_s, self._fetch, tuple(faults))
