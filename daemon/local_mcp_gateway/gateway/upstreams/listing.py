"""Fetch a server's lists, page by page. One that cannot be had does not keep the others from coming."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from local_mcp_gateway.gateway.catalog.union import MEMBERS, Item, items_of
from local_mcp_gateway.gateway.protocol import eras
from local_mcp_gateway.gateway.protocol.envelope import (
    MALFORMED,
    METHOD_NOT_FOUND,
    decode_any,
    decode_members,
    encode,
    member,
)
from local_mcp_gateway.gateway.upstreams.call import Call
from local_mcp_gateway.gateway.upstreams.connection import SILENT
from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.connection import Connection

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
    connection: Connection, kinds: Collection[CatalogKind], timeout_s: float
) -> AsyncIterator[Fetched]:
    """Yield these lists as the server has them; what it does not declare is empty.

    They come all at once, but for those that take long: the tools do not wait for them.
    """
    tasks = {kind: asyncio.create_task(_one(connection, kind, timeout_s)) for kind in kinds}
    try:
        await asyncio.wait(tasks.values(), timeout=HOLD_UP_S)
        await asyncio.wait([tasks.get(CatalogKind.TOOLS) or asyncio.gather(*tasks.values())])
        late = tuple(kind for kind, task in tasks.items() if not task.done())
        early = [task.result() for kind, task in tasks.items() if kind not in late]
        yield _together(early, late)
        if late:
            yield _together([await tasks[kind] for kind in late])
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


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
    except UpstreamLost as lost:
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
            raise UpstreamLost(
                f"{method} goes round in a circle: the cursor {cursor[:100]!r} came again"
            )
        seen.add(cursor)
    raise UpstreamLost(f"{method} has more than {MOST_PAGES} pages")


async def _page(
    connection: Connection, kind: CatalogKind, method: str, cursor: str | None
) -> tuple[tuple[Item, ...], str | None, float | None]:
    params = b"" if cursor is None else encode({"cursor": cursor})
    answer = await connection.request(Call(method, params, SILENT))
    if answer.failed:
        if eras.error_code(answer) == METHOD_NOT_FOUND:
            return (), None, None
        raise UpstreamLost(
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
        raise UpstreamLost(f"{method} was answered with something else: {error}") from None
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
