"""The audit: what an administrator asked for as an entry, and the entries as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
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


async def list_entries(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return the newest entries, oldest first."""
    limit = arguments.get("limit") or 100
    if not 0 < limit <= MOST:
        raise UsageProblem(f"{limit} entries cannot be returned.", hint=f"Ask for 1 to {MOST}.")
    found = await list_audit(
        database,
        since=arguments.get("since_ms") or 0,
        limit=limit,
        who=arguments.get("who"),
        action=arguments.get("action"),
    )
    return [
        {**entry._asdict(), "at": iso(datetime.fromtimestamp(entry.at / 1000, UTC))}
        for entry in found
    ]
