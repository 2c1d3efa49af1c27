"""Fetch a server's lists and keep them fresh while it is connected.

All lists are fetched on connecting. Each one is fetched again when the server says that it changed,
and in the background of a client request once it is older than its `ttlMs` (default: five minutes).
A list that cannot be fetched keeps its last known content, is reported in the server's health, and is
retried with growing delays. Items that clients could not read are left out, see `item_schema`.

Some servers have tools but do not declare them. Such a list is asked for once, and counts as empty
unless the server answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.catalog import (
    KEYS,
    LISTS,
    MEMBERS,
    METHODS,
    Item,
    ServerCatalog,
    items_of,
    unread_capabilities,
    validate,
)
from local_mcp_gateway.gateway.protocol import (
    MALFORMED,
    METHOD_NOT_FOUND,
    decode_any,
    decode_batch,
    decode_members,
    encode,
    versions,
)
from local_mcp_gateway.gateway.upstreams.backoff import SETTLE_S, ChangeDebounce, backoff_s
from local_mcp_gateway.gateway.upstreams.connection import (
    SILENT,
    Call,
    Connection,
    UpstreamDisconnected,
)
from local_mcp_gateway.store import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.log import Emit


MOST_PAGES: Final = 1000
UNDECLARED_S: Final = 2.0
"""How long to wait for a list that the server does not declare."""
HOLD_UP_S: Final = 1.0
"""How long to wait for other lists, so that all are announced and stored together."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The fetched lists, the `ttlMs` of those that have one, and why others are missing."""

    lists: dict[CatalogKind, tuple[Item, ...]] = field(default_factory=dict)
    ttl_s: dict[CatalogKind, float] = field(default_factory=dict)
    faults: dict[CatalogKind, str] = field(default_factory=dict)
    unfit: dict[CatalogKind, tuple[str, ...]] = field(default_factory=dict)
    """Why a list is shown otherwise than the server sent it."""
    late: tuple[CatalogKind, ...] = ()
    """Lists that are still being fetched; they come with the next result."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Return why the lists are missing or shown otherwise than the server sent them."""
        return tuple(dict.fromkeys((*self.faults.values(), *chain(*self.unfit.values()))))

    def add(self, other: Fetched) -> None:
        """Add other lists to these."""
        self.lists.update(other.lists)
        self.ttl_s.update(other.ttl_s)
        self.faults.update(other.faults)
        self.unfit.update(other.unfit)


def undeclared(connection: Connection) -> frozenset[CatalogKind]:
    """Return the lists that a server may have although it does not declare them.

    Tools; every list, if it declares none at all.
    """
    declared = connection.identity.capabilities
    missing = {kind for kind in LISTS if METHODS[kind][0] not in declared}
    return frozenset(missing if len(missing) == len(LISTS) else missing & {CatalogKind.TOOLS})


async def fetch_lists(
    connection: Connection,
    kinds: Collection[CatalogKind],
    timeout_s: float,
    take: Callable[[Fetched], None],
    undeclared: Collection[CatalogKind] = (),
) -> None:
    """Fetch these lists from the server; one that it does not declare is empty, unless in `undeclared`.

    They are returned together, except those that take long: tools do not wait for them.
    """
    async with asyncio.TaskGroup() as fetching:
        tasks = {
            kind: fetching.create_task(
                _undeclared(connection, kind, ask=kind in undeclared)
                if METHODS[kind][0] not in connection.identity.capabilities
                else _one(connection, kind, timeout_s)
            )
            for kind in kinds
        }
        await asyncio.wait(tasks.values(), timeout=HOLD_UP_S)
        tools = tasks.get(CatalogKind.TOOLS)
        await asyncio.wait(tasks.values() if tools is None else (tools,))
        late = tuple(kind for kind, task in tasks.items() if not task.done())
        early = [task.result() for kind, task in tasks.items() if kind not in late]
        unread = unread_capabilities(connection.identity.capabilities)
        told = Fetched(unfit={CatalogKind.INITIALIZE: unread})
        take(_together([told, *early], late))
        if late:
            take(_together([await tasks[kind] for kind in late]))


def _together(parts: Iterable[Fetched], late: tuple[CatalogKind, ...] = ()) -> Fetched:
    whole = Fetched(late=late)
    for part in parts:
        whole.add(part)
    return whole


async def _undeclared(connection: Connection, kind: CatalogKind, *, ask: bool) -> Fetched:
    """Return a list that the server does not declare: empty unless we ask and it answers."""
    fetched = await _one(connection, kind, UNDECLARED_S) if ask else Fetched()
    return fetched if fetched.lists else Fetched({kind: ()})


async def _one(connection: Connection, kind: CatalogKind, timeout_s: float) -> Fetched:
    try:
        async with asyncio.timeout(timeout_s):
            whole = await _fetch(connection, kind)
    except UpstreamDisconnected as lost:
        return Fetched(faults={kind: lost.reason})
    except TimeoutError:
        return Fetched(faults={kind: f"{METHODS[kind][1]} was not answered in {timeout_s:g} s"})
    valid = validate(kind, whole.items.values())
    problems = [f"{METHODS[kind][1]}: {what}" for what in (*whole.problems, *valid.problems)]
    return Fetched(
        {kind: valid.items},
        {kind: min(whole.ttls_ms) / 1000} if whole.ttls_ms else {},
        unfit={kind: tuple(problems)},
    )


@dataclass(slots=True)
class _Pages:
    """What the pages of one list hold so far: its items without duplicates."""

    items: dict[str, Item] = field(default_factory=dict)
    ttls_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def _fetch(connection: Connection, kind: CatalogKind) -> _Pages:
    """Return a whole list. One whose cursors go round, or never end, is what came until then."""
    whole = _Pages()
    cursor: str | None = None
    seen: set[str] = set()
    while len(seen) < MOST_PAGES:
        cursor = await _page(connection, kind, cursor, whole)
        if cursor is None:
            return whole
        if cursor in seen:
            whole.problems.append(f"it ends where the cursor {cursor[:100]!r} came again")
            return whole
        seen.add(cursor)
    whole.problems.append(f"it ends after {MOST_PAGES} pages")
    return whole


async def _page(
    connection: Connection, kind: CatalogKind, cursor: str | None, whole: _Pages
) -> str | None:
    """Add one page; return the cursor of the next."""
    method = METHODS[kind][1]
    params = b"" if cursor is None else encode({"cursor": cursor})
    answer = await connection.request(Call(method, params, SILENT))
    if answer.failed:
        if versions.error_code(answer) == METHOD_NOT_FOUND:
            return None
        raise UpstreamDisconnected(
            f"{method} failed: {bytes(answer.body)[:200].decode('utf-8', 'replace')}"
        )
    try:
        str(answer.body, "utf-8")  # one server's malformed item would break the list of all servers
        members = decode_members(answer.body)
        body = bytes(members.get(MEMBERS[kind], b"[]"))
        items, number = items_of(kind, body), len(decode_batch(body))
        following = members.get("nextCursor")
        value = None if following is None else decode_any(following)
        ttl_ms = _number(members.get("ttlMs"))
    except MALFORMED as error:
        raise UpstreamDisconnected(f"{method} was answered with something else: {error}") from None
    if len(items) < number:
        whole.problems.append(f"{number - len(items)} of its items have no {KEYS[kind]}")
    if value is not None and not isinstance(value, str):
        whole.problems.append("it ends where the next cursor is not a text")
    for item in items:
        whole.items.setdefault(item.key, item)
    whole.ttls_ms += [] if ttl_ms is None else [ttl_ms]
    return value if isinstance(value, str) and value else None


def _number(raw: msgspec.Raw | None) -> float | None:
    """Parse a number; None for anything that is not a usable number."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=float)
    except msgspec.DecodeError:
        return None


LEAST_TTL_S: Final = 5.0
"""Minimum age at which a list is fetched again because it is stale, however often clients ask."""

UNTOLD_TTL_S: Final = 300.0
"""Maximum age of a list without `ttlMs`: the server may have no way to announce changes."""

Listed = Callable[[frozenset["CatalogKind"], frozenset["CatalogKind"]], None]
"""Called after lists were fetched: those to store, and those that clients are to fetch again."""


class CatalogSync:
    """Keeps the catalog of one upstream in sync; call `run` for each connection."""

    def __init__(
        self,
        server: str,
        catalog: ServerCatalog,
        listed: Listed,
        options: GatewayOptions,
        emit: Emit,
    ) -> None:
        self.catalog_ready = asyncio.Event()
        """Set when no request has to wait for the lists: they are there, or will be announced."""
        self.fetched = asyncio.Event()
        """Set once the lists of the present connection have been fetched, or could not be."""
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
        self._told_until: dict[CatalogKind, float] = {}
        """The same by the server's own word."""
        self._gathering = ChangeDebounce()
        self._failures = 0
        self._retrying: asyncio.TimerHandle | None = None
        self._undeclared: dict[CatalogKind, bool] = {}
        """Lists that were asked for although the server does not declare them: whether it has them."""

    @property
    def fault(self) -> str | None:
        """Return why lists differ from the server's, or None."""
        unfit = chain.from_iterable(self._unfit.values())
        return "; ".join(dict.fromkeys(chain(self.faults.values(), unfit))) or None

    def ttl_ms(self, kind: CatalogKind) -> int:
        """Return how long this list may be cached from now on, as the server said; 0 if it did not."""
        left_s = self._told_until.get(kind, 0.0) - asyncio.get_running_loop().time()
        return max(0, int(left_s * 1000))

    def changed(self, kinds: frozenset[CatalogKind]) -> None:
        """Schedule a fetch of these lists: the server said that they changed."""
        self._announced |= kinds
        for kind in kinds:
            self._told_until.pop(kind, None)
        self._fetch(kinds)

    def refresh_if_stale(self) -> None:
        """Schedule a fetch of stale lists in the background of a client request."""
        if self._fresh_until:
            now = asyncio.get_running_loop().time()
            old = [kind for kind, until in self._fresh_until.items() if until < now]
            for kind in old:
                del self._fresh_until[kind]
            if old:
                self._fetch(old)

    async def run(self, connection: Connection) -> None:
        """Fetch all lists, then whichever are due, until cancelled. None is fetched twice at a time."""
        self.fetched.clear()
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

        undeclared = self._to_ask(connection, kinds)
        await fetch_lists(connection, kinds, self._patience_s(), take, undeclared)

    def _to_ask(
        self, connection: Connection, kinds: Collection[CatalogKind]
    ) -> frozenset[CatalogKind]:
        """Return the undeclared lists to ask for.

        Each is asked for once, whatever becomes of it: a server may end itself at an unknown method.
        """
        candidates = undeclared(connection).intersection(kinds)
        asked = frozenset(kind for kind in candidates if self._undeclared.get(kind, True))
        self._undeclared.update(dict.fromkeys(asked, False))
        return asked

    def warn(self, altered: tuple[str, ...]) -> None:
        """Report tools that differ from their approved definitions."""
        if altered:
            held = not self._catalog.held.isdisjoint(altered)
            self._emit("catalog.altered", server=self._server, tools=list(altered), held=held)

    def _fetch(self, kinds: Collection[CatalogKind]) -> None:
        self._due.update(kinds)
        self._stir.set()

    def _patience_s(self) -> float:
        """Return how long to wait for a list: briefly at first, since other changes wait for it."""
        first = self._options.list_timeout_s
        return min(first * 2.0 ** min(self._failures, 16), self._options.call_timeout_s)

    def _take(self, fetched: Fetched, announced: frozenset[CatalogKind]) -> None:
        now = asyncio.get_running_loop().time()
        for kind, items in fetched.lists.items():
            self.faults.pop(kind, None)
            if kind in self._undeclared:
                self._undeclared[kind] = bool(items)
        self._unfit.update(fetched.unfit)
        for line in chain.from_iterable(fetched.unfit.values()):
            self._emit("upstream.logged", server=self._server, line=line)
        for kind in fetched.late:
            self.faults.setdefault(kind, f"{METHODS[kind][1]} is not answered yet")
        for kind in fetched.lists:
            ttl_s = fetched.ttl_s.get(kind, UNTOLD_TTL_S)
            self._fresh_until[kind] = now + max(ttl_s, LEAST_TTL_S)
            self._told_until[kind] = now + fetched.ttl_s.get(kind, 0.0)
        self._retry(fetched.faults, announced)
        news = self._catalog.take(fetched.lists) if fetched.lists else None
        if news is not None:
            self.warn(news.altered)
        self.catalog_ready.set()
        self.fetched.set()
        if news is not None:
            self._listed(news.changed, news.visible | announced.intersection(fetched.lists))

    def _retry(self, faults: dict[CatalogKind, str], announced: frozenset[CatalogKind]) -> None:
        """Retry failed lists later; they are announced when they arrive."""
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
