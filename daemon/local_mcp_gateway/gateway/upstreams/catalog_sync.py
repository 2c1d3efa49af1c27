"""Keeps a server's lists fresh while it is connected, each list for itself.

All are fetched when it is met; one of them again when the server says that it changed, and behind a
client that asks when it is older than the server said it may become (`ttlMs`; else five minutes). A list that cannot be had
stays as it was known last, is told in the server's health, and is tried again with growing pauses.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.catalog.merge import LISTS, MEMBERS, Item, items_of
from local_mcp_gateway.gateway.protocol import versions
from local_mcp_gateway.gateway.protocol.jsonrpc import (
    MALFORMED,
    METHOD_NOT_FOUND,
    decode_any,
    decode_members,
    encode,
    member,
)
from local_mcp_gateway.gateway.upstreams.backoff import SETTLE_S, ChangeDebounce, backoff_s
from local_mcp_gateway.gateway.upstreams.connection import SILENT, Call
from local_mcp_gateway.gateway.upstreams.errors import UpstreamDisconnected
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.catalog.server_catalog import ServerCatalog
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.upstreams.connection import Connection
    from local_mcp_gateway.log import Emit


METHODS: Final = {
    CatalogKind.TOOLS: ("tools", "tools/list"),
    CatalogKind.RESOURCES: ("resources", "resources/list"),
    CatalogKind.RESOURCE_TEMPLATES: ("resources", "resources/templates/list"),
    CatalogKind.PROMPTS: ("prompts", "prompts/list"),
}
MOST_PAGES: Final = 1000
REQUIRED: Final = {
    CatalogKind.TOOLS: ("inputSchema", b"{"),
    CatalogKind.RESOURCES: ("name", b'"'),
    CatalogKind.RESOURCE_TEMPLATES: ("name", b'"'),
}
"""What an item must have besides its key, and how that begins."""
MOST_LEVELS: Final = 100
"""How deep an item may be nested. Many clients refuse 128 levels, and with them the items of all servers."""
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|[\]}]', re.DOTALL)
HOLD_UP_S: Final = 1.0
"""How long lists wait for each other, to be told and written down together."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Lists that a server has given, how long each may be used (where it says so), and why others lack."""

    lists: dict[CatalogKind, tuple[Item, ...]] = field(default_factory=dict)
    ttl_s: dict[CatalogKind, float] = field(default_factory=dict)
    faults: dict[CatalogKind, str] = field(default_factory=dict)
    unfit: dict[CatalogKind, tuple[str, ...]] = field(default_factory=dict)
    """What was passed over in the lists, and why: clients could not read it, nor what stands beside it."""
    late: tuple[CatalogKind, ...] = ()
    """Lists that are still waited for; they come with the next of these."""


async def fetch_lists(
    connection: Connection,
    kinds: Collection[CatalogKind],
    timeout_s: float,
    take: Callable[[Fetched], None],
) -> None:
    """Let these lists be taken as the server has them; what it does not declare is empty.

    They come all at once, but for those that take long: the tools do not wait for them.
    """
    async with asyncio.TaskGroup() as fetching:
        tasks = {kind: fetching.create_task(_one(connection, kind, timeout_s)) for kind in kinds}
        await asyncio.wait(tasks.values(), timeout=HOLD_UP_S)
        tools = tasks.get(CatalogKind.TOOLS)
        await asyncio.wait(tasks.values() if tools is None else (tools,))
        late = tuple(kind for kind, task in tasks.items() if not task.done())
        early = [task.result() for kind, task in tasks.items() if kind not in late]
        take(_together(early, late))
        if late:
            take(_together([await tasks[kind] for kind in late]))


def _together(parts: Iterable[Fetched], late: tuple[CatalogKind, ...] = ()) -> Fetched:
    whole = Fetched(late=late)
    for part in parts:
        whole.lists.update(part.lists)
        whole.ttl_s.update(part.ttl_s)
        whole.faults.update(part.faults)
        whole.unfit.update(part.unfit)
    return whole


async def _one(connection: Connection, kind: CatalogKind, timeout_s: float) -> Fetched:
    try:
        async with asyncio.timeout(timeout_s):
            items, ttl_ms = await _fetch(connection, kind)
    except UpstreamDisconnected as lost:
        return Fetched(faults={kind: lost.reason})
    except TimeoutError:
        return Fetched(faults={kind: f"{METHODS[kind][1]} was not answered in {timeout_s:g} s"})
    unfit = {item.key: why for item in items if (why := _unfit(kind, item.raw)) is not None}
    return Fetched(
        {kind: tuple(item for item in items if item.key not in unfit)},
        {} if ttl_ms is None else {kind: ttl_ms / 1000},
        unfit={kind: tuple(f"{METHODS[kind][1]}: {key!r} {why}" for key, why in unfit.items())},
    )


async def _fetch(
    connection: Connection, kind: CatalogKind
) -> tuple[tuple[Item, ...], float | None]:
    """Return a whole list, and the shortest `ttlMs` of its pages; of what comes twice, the first."""
    capability, method = METHODS[kind]
    if capability not in connection.identity.capabilities:
        return (), None
    items: dict[str, Item] = {}
    ttls: list[float] = []
    cursor: str | None = None
    seen: set[str] = set()
    while len(seen) < MOST_PAGES:
        page, cursor, ttl_ms = await _page(connection, kind, method, cursor)
        for item in page:
            items.setdefault(item.key, item)
        ttls += [] if ttl_ms is None else [ttl_ms]
        if cursor is None:
            return tuple(items.values()), min(ttls, default=None)
        if cursor in seen:
            raise UpstreamDisconnected(
                f"{method} goes round in a circle: the cursor {cursor[:100]!r} came again"
            )
        seen.add(cursor)
    raise UpstreamDisconnected(f"{method} has more than {MOST_PAGES} pages")


async def _page(
    connection: Connection, kind: CatalogKind, method: str, cursor: str | None
) -> tuple[tuple[Item, ...], str | None, float | None]:
    params = b"" if cursor is None else encode({"cursor": cursor})
    answer = await connection.request(Call(method, params, SILENT))
    if answer.failed:
        if versions.error_code(answer) == METHOD_NOT_FOUND:
            return (), None, None
        raise UpstreamDisconnected(
            f"{method} failed: {bytes(answer.body)[:200].decode('utf-8', 'replace')}"
        )
    try:
        str(answer.body, "utf-8")  # what one server writes otherwise would spoil the list of all
        members = decode_members(answer.body)
        items = items_of(kind, bytes(members.get(MEMBERS[kind], msgspec.Raw(b"[]"))))
        following = members.get("nextCursor")
        value = None if following is None else decode_any(following)
        ttl = _number(members.get("ttlMs"))
    except MALFORMED as error:
        raise UpstreamDisconnected(f"{method} was answered with something else: {error}") from None
    cursor = value if isinstance(value, str) and value else None
    return items, cursor, ttl


def _unfit(kind: CatalogKind, raw: bytes) -> str | None:
    """Say why typed clients would refuse the whole list for this item, or None."""
    if _too_deep(raw):
        return f"is nested deeper than {MOST_LEVELS} levels"
    if kind in REQUIRED:
        key, start = REQUIRED[kind]
        if not member(raw, key).startswith(start):
            return f"has no {key}"
    return None


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


def _number(raw: msgspec.Raw | None) -> float | None:
    """Return the number that these bytes are; None where they are none, or none that can be meant."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=float)
    except msgspec.DecodeError:
        return None


LEAST_TTL_S: Final = 5.0
"""A list is not fetched again more often than that because it may be old, however often it is asked for."""

UNTOLD_TTL_S: Final = 300.0
"""How old a list may become of which the server does not say so: it may have no way to tell of changes."""

Listed = Callable[[frozenset["CatalogKind"], frozenset["CatalogKind"]], None]
"""Lists were fetched: which are different, and of which the server said that they are."""


class CatalogSync:
    """`run` it beside each connection of the upstream."""

    def __init__(
        self,
        server: str,
        catalog: ServerCatalog,
        listed: Listed,
        options: GatewayOptions,
        emit: Emit,
    ) -> None:
        self.catalog_ready = asyncio.Event()
        """Set when nobody has to wait for the lists: they are there, or will be announced."""
        self.faults: dict[CatalogKind, str] = {}
        self._unfit: dict[CatalogKind, tuple[str, ...]] = {}
        self._server = server
        self._catalog = catalog
        self._listed = listed
        self._options = options
        self._emit = emit
        self._due: set[CatalogKind] = set()
        self._under_way: set[CatalogKind] = set()
        self._stir = asyncio.Event()
        self._announced: frozenset[CatalogKind] = frozenset()
        self._fresh_until: dict[CatalogKind, float] = {}
        self._gathering = ChangeDebounce()
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

    def refresh_if_stale(self) -> None:
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

        def take(fetched: Fetched) -> None:
            self._under_way -= fetched.lists.keys() | fetched.faults.keys()
            if connection.lost is None:
                self._take(fetched, announced)
            self._stir.set()

        await fetch_lists(connection, kinds, self._patience_s(), take)

    def warn(self, altered: tuple[str, ...]) -> None:
        """Tell that tools are not as they were approved."""
        if altered:
            held = not self._catalog.held.isdisjoint(altered)
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
            self._emit("upstream.logged", server=self._server, line=line + ": it is passed over")
        for kind in fetched.late:
            self.faults.setdefault(kind, f"{METHODS[kind][1]} is not answered yet")
        for kind in fetched.lists:
            ttl_s = fetched.ttl_s.get(kind, UNTOLD_TTL_S)
            self._fresh_until[kind] = now + max(ttl_s, LEAST_TTL_S)
        self._retry(fetched.faults, announced)
        if fetched.lists:
            news = self._catalog.take(fetched.lists)
            self.warn(news.altered)
            self._listed(news.changed, announced.intersection(fetched.lists))
        self.catalog_ready.set()

    def _retry(self, faults: dict[CatalogKind, str], announced: frozenset[CatalogKind]) -> None:
        """Try again later what failed; it is announced when it comes."""
        self._announced |= announced & faults.keys()
        for reason in dict.fromkeys(faults.values()):
            self._emit("upstream.logged", server=self._server, line=reason)
        self.faults.update(faults)
        if not self.faults:
            self._failures = 0
        if faults:
            self._failures += 1
            pause_s = backoff_s(self._failures, self._options.backoff_max_s)
            loop = asyncio.get_running_loop()
            self._retrying = loop.call_later(pause_s, self._fetch, tuple(faults))
