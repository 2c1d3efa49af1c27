"""Store what the gateway caches and records: server catalogs, approved tools, names and the call log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.store.audit import NOT_AUDITED, of_call, save_audit
from local_mcp_gateway.store.model import KEPT_NAMES, CallRecord, CatalogEntry, CatalogKind

if TYPE_CHECKING:
    from local_mcp_gateway.database import ConnectionPool

_CALL_COLUMNS = (
    "created_at, profile, server, method, target, status, error, duration_us, request_bytes,"
    " response_bytes, request, response, holder, client"
)


async def load_catalogs(database: ConnectionPool) -> tuple[CatalogEntry, ...]:
    """Return every cached list of every server."""
    rows = await database.fetch_all(
        "SELECT mcp_server_id, kind, body, hash, fetched_at FROM mcp_server_catalog_cache"
    )
    return tuple(CatalogEntry(row[0], CatalogKind(row[1]), row[2], row[3], row[4]) for row in rows)


async def get_catalog(database: ConnectionPool, server_id: str, kind: CatalogKind) -> str | None:
    """Return one cached list of a server, as JSON text."""
    row = await database.fetch_one(
        "SELECT body FROM mcp_server_catalog_cache WHERE mcp_server_id = ? AND kind = ?",
        (server_id, kind.value),
    )
    return None if row is None else str(row[0])


async def load_approved(database: ConnectionPool) -> dict[str, dict[str, str]]:
    """Return the JSON of every approved tool definition, by server id and name."""
    rows = await database.fetch_all("SELECT mcp_server_id, tool_name, body FROM approved_tools")
    found: dict[str, dict[str, str]] = {}
    for server_id, name, body in rows:
        found.setdefault(server_id, {})[name] = body
    return found


async def save_catalogs(
    database: ConnectionPool,
    entries: Sequence[CatalogEntry],
    approved: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Store these lists, and with them the tools (server id, name, JSON) that count as approved.

    A server removed in the meantime is skipped.
    """
    now = now_ms()
    async with database.transaction() as writer:
        await writer.executemany(
            "INSERT INTO mcp_server_catalog_cache (mcp_server_id, kind, body, hash, fetched_at)"
            " SELECT id, ?, ?, ?, ? FROM mcp_servers WHERE id = ?"
            " ON CONFLICT (mcp_server_id, kind) DO UPDATE SET"
            " body = excluded.body, hash = excluded.hash, fetched_at = excluded.fetched_at",
            [(entry.kind.value, entry.body, entry.hash, now, entry.server_id) for entry in entries],
        )
        await writer.executemany(
            "INSERT INTO approved_tools (mcp_server_id, tool_name, body, approved_at)"
            " SELECT id, ?, ?, ? FROM mcp_servers WHERE id = ?"
            " ON CONFLICT (mcp_server_id, tool_name) DO UPDATE SET"
            " body = excluded.body, approved_at = excluded.approved_at",
            [(name, body, now, server_id) for server_id, name, body in approved],
        )


async def load_names(database: ConnectionPool) -> dict[str, str]:
    """Return the cached names that each profile shows, by profile id."""
    rows = await database.fetch_all(
        "SELECT p.id, g.value FROM gateway_settings g JOIN profiles p ON g.key = ? || p.id",
        (KEPT_NAMES,),
    )
    return {row[0]: row[1] for row in rows}


async def save_names(database: ConnectionPool, profile_id: str, names: str | None) -> None:
    """Store the names that a profile shows, or delete them.

    A profile removed in the meantime is skipped.
    """
    async with database.transaction() as writer:
        await writer.execute(
            "DELETE FROM gateway_settings WHERE key = ?", (KEPT_NAMES + profile_id,)
        )
        if names is not None:
            await writer.execute(
                "INSERT INTO gateway_settings (key, value, updated_at)"
                " SELECT ?, ?, ? FROM profiles WHERE id = ?",
                (KEPT_NAMES + profile_id, names, now_ms(), profile_id),
            )


async def save_calls(database: ConnectionPool, calls: Sequence[CallRecord], *, keep: int) -> None:
    """Append a batch to the call log and the audit; note the use of tokens.

    Of the call log all but the newest `keep` are deleted.
    """
    used = {c.holder: (c.created_at, c.client, c.holder) for c in calls if c.holder is not None}
    async with database.transaction() as writer:
        await writer.insert("debug_logs", _CALL_COLUMNS, calls)
        await writer.execute(
            "DELETE FROM debug_logs WHERE id <= (SELECT max(id) FROM debug_logs) - ?", (keep,)
        )
        await save_audit(writer, [of_call(c) for c in calls if c.method not in NOT_AUDITED])
        await writer.executemany(
            "UPDATE client_tokens SET last_used_at = ?, last_client = coalesce(?, last_client)"
            " WHERE name = ?",
            list(used.values()),
        )
