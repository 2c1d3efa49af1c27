"""Store the audit log: who did what, to what, when, and how it ended. Rows are added, and deleted by age alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from local_mcp_gateway.formats import now_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.store.model import CallRecord

_COLUMNS: Final = "at, who, client, action, object, outcome, detail"
DAY_MS: Final = 86_400_000
NOT_AUDITED: Final = frozenset(
    (
        *("ping", "server/discover", "logging/setLevel", "initialize"),
        *("tools/list", "prompts/list", "resources/list", "resources/templates/list"),
    )
)
"""Methods that reach no server, or tell only what it has."""
ANYBODY: Final = "anybody"
"""Who a client without a token is; what it calls itself is in `client`."""


class AuditEntry(NamedTuple):
    """One row; `at` is integer milliseconds."""

    at: int
    who: str
    """`token NAME`, `anybody`, or the way in of an administrator: `command`, `rest` or `pages`."""
    client: str | None
    action: str
    """A method of the protocol, or a verb: `server.edit`."""
    object: str | None
    outcome: str
    """`ok`, `error`, `cancelled` or `refused`."""
    detail: str | None
    """The names of what was changed, never values; or why it was refused."""


def of_call(call: CallRecord) -> AuditEntry:
    """Return the entry of a client's call."""
    who = ANYBODY if call.holder is None else f"token {call.holder}"
    target = "/".join(filter(None, (call.server, call.target))) or None
    return AuditEntry(
        call.created_at, who, call.client, call.method, target, call.status, call.error
    )


async def save_audit(database: ConnectionPool, entries: Sequence[AuditEntry]) -> None:
    """Append entries."""
    async with database.transaction() as writer:
        await writer.insert("audit_log", _COLUMNS, entries)


async def forget_audit(database: ConnectionPool, *, keep_days: int) -> None:
    """Delete the entries that are older."""
    async with database.transaction() as writer:
        await writer.execute("DELETE FROM audit_log WHERE at < ?", (now_ms() - keep_days * DAY_MS,))


async def list_audit(
    database: ConnectionPool, *, since: int, limit: int, who: str | None, action: str | None
) -> list[AuditEntry]:
    """Return the newest entries since a time, oldest first; `action` may have `*`."""
    rows = await database.fetch_all(
        f"SELECT {_COLUMNS} FROM audit_log WHERE at >= ? AND (? IS NULL OR who IN (?, 'token ' || ?))"
        " AND (? IS NULL OR action GLOB ?) ORDER BY id DESC LIMIT ?",
        (since, who, who, who, action, action, limit),
    )
    return [AuditEntry(*row) for row in reversed(rows)]
