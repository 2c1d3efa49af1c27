"""Fetch a server's lists, page by page. One that cannot be had does not keep the others from coming."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from local_mcp_gateway.gateway import eras
from local_mcp_gateway.gateway.call import Call, UpstreamLost
from local_mcp_gateway.gateway.catalog import MEMBERS, Item, items_of
from local_mcp_gateway.gateway.connection import SILENT
from local_mcp_gateway.gateway.envelope import METHOD_NOT_FOUND, decode_any, decode_members, encode
from local_mcp_gateway.store.model import CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.connection import Connection

METHODS: Final = {
    CatalogKind.TOOLS: ("tools", "tools/list"),
    CatalogKind.RESOURCES: ("resources", "resources/list"),
    CatalogKind.RESOURCE_TEMPLATES: ("resources", "resources/templates/list"),
    CatalogKind.PROMPTS: ("prompts", "prompts/list"),
}
MOST_PAGES: Final = 1000


@dataclass(frozen=True, slots=True)
class Fetched:
    """Lists that a server has given, how long each may be used (where it says so), and why others lack."""

    lists: dict[CatalogKind, tuple[Item, ...]] = field(default_factory=dict)
    ttl_s: dict[CatalogKind, float] = field(default_factory=dict)
    faults: dict[CatalogKind, str] = field(default_factory=dict)


async def fetch_lists(
    connection: Connection, kinds: Collection[CatalogKind], timeout_s: float
) -> Fetched:
    """Return these lists as the server has them; what it does not declare is empty."""
    fetched = Fetched()

    async def fetch(kind: CatalogKind) -> None:
        method = METHODS[kind][1]
        try:
            async with asyncio.timeout(timeout_s):
                items, ttl_ms = await _fetch(connection, kind)
        except UpstreamLost as lost:
            fetched.faults[kind] = lost.reason
        except TimeoutError:
            fetched.faults[kind] = f"{method} was not answered within {timeout_s:g} s"
        else:
            fetched.lists[kind] = items
            if ttl_ms is not None:
                fetched.ttl_s[kind] = ttl_ms / 1000

    await asyncio.gather(*(fetch(kind) for kind in kinds))
    return fetched


async def _fetch(
    connection: Connection, kind: CatalogKind
) -> tuple[tuple[Item, ...], float | None]:
    """Return a whole list, and the shortest `ttlMs` of its pages."""
    capability, method = METHODS[kind]
    if capability not in connection.identity.capabilities:
        return (), None
    items: list[Item] = []
    ttls: list[float] = []
    cursor: str | None = None
    seen: set[str] = set()
    while len(seen) < MOST_PAGES:
        page, cursor, ttl_ms = await _page(connection, kind, method, cursor)
        items.extend(page)
        ttls += [] if ttl_ms is None else [ttl_ms]
        if cursor is None:
            return tuple(items), min(ttls, default=None)
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
        members = decode_members(answer.body)
        items = items_of(kind, bytes(members.get(MEMBERS[kind], msgspec.Raw(b"[]"))))
        following = members.get("nextCursor")
        value = None if following is None else decode_any(following)
        ttl: Any = decode_any(members["ttlMs"]) if "ttlMs" in members else None
    except msgspec.DecodeError as error:
        raise UpstreamLost(f"{method} was answered with something else: {error}") from None
    cursor = value if isinstance(value, str) and value else None
    numeric = isinstance(ttl, int | float) and not isinstance(ttl, bool)
    return items, cursor, float(ttl) if numeric else None
