"""Fetch a server's lists, page by page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

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


async def fetch_lists(
    connection: Connection, timeout_s: float
) -> dict[CatalogKind, tuple[Item, ...]]:
    """Return every list that the server declares; what it does not declare is empty."""
    async with asyncio.timeout(timeout_s):
        fetched = await asyncio.gather(*(_fetch(connection, kind) for kind in METHODS))
    return dict(zip(METHODS, fetched, strict=True))


async def _fetch(connection: Connection, kind: CatalogKind) -> tuple[Item, ...]:
    capability, method = METHODS[kind]
    if capability not in connection.identity.capabilities:
        return ()
    items: list[Item] = []
    cursor: str | None = None
    seen: set[str] = set()
    while len(seen) < MOST_PAGES:
        page, cursor = await _page(connection, kind, method, cursor)
        items.extend(page)
        if cursor is None:
            return tuple(items)
        if cursor in seen:
            raise UpstreamLost(
                f"{method} goes round in a circle: the cursor {cursor[:100]!r} came again"
            )
        seen.add(cursor)
    raise UpstreamLost(f"{method} has more than {MOST_PAGES} pages")


async def _page(
    connection: Connection, kind: CatalogKind, method: str, cursor: str | None
) -> tuple[tuple[Item, ...], str | None]:
    params = b"" if cursor is None else encode({"cursor": cursor})
    answer = await connection.request(Call(method, params, SILENT))
    if answer.failed:
        if eras.error_code(answer) == METHOD_NOT_FOUND:
            return (), None
        raise UpstreamLost(
            f"{method} failed: {bytes(answer.body)[:200].decode('utf-8', 'replace')}"
        )
    try:
        members = decode_members(answer.body)
        items = items_of(kind, bytes(members.get(MEMBERS[kind], msgspec.Raw(b"[]"))))
        following = members.get("nextCursor")
        value = None if following is None else decode_any(following)
    except msgspec.DecodeError as error:
        raise UpstreamLost(f"{method} was answered with something else: {error}") from None
    return items, value if isinstance(value, str) and value else None
