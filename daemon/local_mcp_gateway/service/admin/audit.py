"""The audit log: an administrator's request as an entry, and the entries as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import iso, now_ms
from local_mcp_gateway.store import AuditEntry, list_audit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from local_mcp_gateway.database import ConnectionPool

MOST: Final = 10_000
"""How many entries are returned at most."""
LONGEST: Final = 500
GUARD: Final = "guard"
"""Who has migrated, reverted or repaired, whichever command or start it was for."""
_NOT_CHANGES: Final = frozenset(
    {"name", "document", "dry_run", "code", "verifier", "state", "redirect"}
)


def entry_of(who: str, verb: str, arguments: Mapping[str, Any]) -> AuditEntry:
    """Return the entry of a verb that is about to change something: the names of what is given, no values."""
    name = arguments.get("name")
    given = ", ".join(sorted(_names(arguments)))[:LONGEST] or None
    return AuditEntry(
        now_ms(), who, None, verb, name if isinstance(name, str) else None, "ok", given
    )


def settings_entry(changed: Sequence[str]) -> AuditEntry:
    """Return the entry of settings that were read again and are others now."""
    return AuditEntry(now_ms(), "settings", None, "reload", None, "ok", ", ".join(changed))


def _names(arguments: Mapping[str, Any]) -> Iterator[str]:
    for key, value in arguments.items():
        if key in _NOT_CHANGES or value is None or value in ({}, [], (), ""):
            continue
        if isinstance(value, dict) and key != "client":
            yield from (f"{key}.{name}" for name in value)
        else:
            yield key


async def _guard_entries(database: ConnectionPool) -> list[AuditEntry]:
    """Return the guard's history as entries: it is written in the transaction of each migration."""
    rows = await database.fetch_all(
        "SELECT applied_at, event, tag, backup FROM __guard_history ORDER BY id"
    )
    return [
        AuditEntry(
            int(datetime.fromisoformat(row["applied_at"]).timestamp() * 1000),
            GUARD,
            None,
            f"db.{row['event']}",
            row["tag"],
            "ok",
            row["backup"] and f"backup {row['backup']}",
        )
        for row in rows
    ]


async def list_entries(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return the newest entries, oldest first, and with them what the guard recorded of its own work."""
    limit = arguments.get("limit") or 100
    if not 0 < limit <= MOST:
        raise UsageProblem(f"{limit} entries cannot be returned.", hint=f"Ask for 1 to {MOST}.")
    since, who, action = (
        arguments.get("since_ms") or 0,
        arguments.get("who"),
        arguments.get("action"),
    )
    found = await list_audit(database, since=since, limit=limit, who=who, action=action)
    if who in {None, GUARD}:
        of_guard = [
            entry
            for entry in await _guard_entries(database)
            if entry.at >= since and (action is None or fnmatchcase(entry.action, action))
        ]
        found = sorted([*found, *of_guard], key=lambda entry: entry.at)[-limit:]
    return [
        {**entry._asdict(), "at": iso(datetime.fromtimestamp(entry.at / 1000, UTC))}
        for entry in found
    ]
