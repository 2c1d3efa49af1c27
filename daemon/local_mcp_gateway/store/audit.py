"""Store the audit log: who did what, to what, when, and how it ended. Rows are added, and deleted by age alone."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from local_mcp_gateway.formats import now_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
_SETTINGS: Final = "settings"
"""Where the fingerprints of the settings are kept, and who changed them."""
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


async def audit_settings(
    database: ConnectionPool, fingerprints: Mapping[str, str], action: str
) -> None:
    """Append an entry that names the settings with other values than at the last time, if there are any.

    `fingerprints` has `section.key` → what stands for its value. They are kept in the same transaction.
    """
    async with database.transaction() as writer:
        row = await writer.fetch_one(
            "SELECT value FROM gateway_settings WHERE key = ?", (_SETTINGS,)
        )
        before: object = None
        with suppress(ValueError):  # somebody has edited it
            before = json.loads(row[0]) if row is not None else None
        if before == fingerprints:
            return
        now = now_ms()
        if isinstance(before, dict):
            changed = [key for key in fingerprints if before.get(key) != fingerprints[key]]
            entry = AuditEntry(now, _SETTINGS, None, action, None, "ok", ", ".join(changed))
            await writer.insert("audit_log", _COLUMNS, [entry])
        await writer.execute(
            "INSERT INTO gateway_settings (key, value, updated_at) VALUES (?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            (_SETTINGS, json.dumps(fingerprints), now),
        )


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
