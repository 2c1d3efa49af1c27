"""Recognise a database of the original local-mcp-gateway, whose default path is ours.

It had five schemas in four months and two ledgers: `migrations` of its own runner, and Prisma's
`_prisma_migrations`. For two days it had none. What its rows become here is in `store.original`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.database import columns_of
from local_mcp_gateway.errors import HistoryRefused, Problem, ProblemCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.database import Connection

ORIGINAL = "local-mcp-gateway"
"""Its name, for `db adopt --from`."""
TAKE_OVER = f"Take it over: `db adopt --from {ORIGINAL}`. Or give another file with --database."
_OWN_STEPS = (
    "001_initial_schema",
    "002_add_oauth_support",
    "003_add_monetization",
    "004_migrate_to_better_auth",
    "005_add_tool_customizations",
)
_PRISMA_STEPS = ("20260112154021_init", "20260116110819_add_gateway_settings")
_AGES = {
    "001_initial_schema": "of November 2025",
    "002_add_oauth_support": "of November 2025 to January 2026",
    "005_add_tool_customizations": "of January 2026",
    "": "of 10 to 12 January 2026",
    "20260112154021_init": "0.2.0 to 0.4.1",
    "20260116110819_add_gateway_settings": "0.5.0 to 0.8.0",
}
"""Which versions left a database with this as its last step."""
_NEEDED = {
    "profiles": {"id", "name"},
    "mcp_servers": {"id", "name", "type", "config"},
    "profile_mcp_servers": {"profile_id", "mcp_server_id", "order"},
}
"""What every one of its schemas has; ours has other columns for a server."""


@dataclass(frozen=True, slots=True)
class Original:
    """A database of the original: of which versions, and why it cannot be taken over as it is."""

    version: str
    broken: Problem | None = None

    @property
    def problem(self) -> Problem:
        """Return what a start says of it."""
        return self.broken or _problem(
            f"This database belongs to the original {ORIGINAL} ({self.version})"
        )

    def require_whole(self) -> None:
        """Raise HistoryRefused for one that its own program left half done, or of a newer version."""
        if self.broken is not None:
            raise HistoryRefused([self.broken])


def find_original(connection: Connection) -> Original | None:
    """Return what is known of a database of the original; None for any other database."""
    found = columns_of(connection)
    if any(not columns <= found.get(table, set()) for table, columns in _NEEDED.items()):
        return None
    if "kind" in found["mcp_servers"]:
        return None
    if "checksum" in found.get("_prisma_migrations", ()):
        rows = connection.execute(
            "SELECT migration_name, finished_at FROM _prisma_migrations"
            " WHERE rolled_back_at IS NULL ORDER BY started_at, migration_name"
        ).fetchall()
        half = [str(name) for name, finished in rows if finished is None]
        return _judge([str(name) for name, _ in rows], half, _PRISMA_STEPS)
    rows = (
        connection.execute("SELECT name FROM migrations ORDER BY name").fetchall()
        if "name" in found.get("migrations", ())
        else []
    )
    return _judge([str(name) for (name,) in rows], [], _OWN_STEPS)


def _judge(applied: Sequence[str], half: Sequence[str], known: Sequence[str]) -> Original:
    """Say which versions a ledger is of; each finished version is one of `_AGES`."""
    newer = [name for name in applied if name not in known]
    last = applied[-1] if applied else ""
    version = _AGES.get(last, "of a version that is not known here")
    if newer:
        sentence = (
            f"This database belongs to a newer version of the original {ORIGINAL} than is known here"
            f" (its migration {newer[0]})"
        )
        return Original(version, _problem(sentence, hint=_NEWER))
    if half or list(applied) != list(known[: len(applied)]) or last not in _AGES:
        where = half[0] if half else last
        sentence = f"This database belongs to the original {ORIGINAL}, which left its migration {where} half done"
        return Original(version, _problem(sentence, hint=_HALF))
    return Original(version)


_NEWER = "Update this program, or add its servers by hand with `server add`, into another file: --database."
_HALF = (
    "Start the original once more, so that it finishes its migration, and stop it; or put a copy from"
    " before it in this place. Then try again."
)


def _problem(sentence: str, *, hint: str = TAKE_OVER) -> Problem:
    return Problem(ProblemCode.ORIGINAL, f"{sentence}.", hint)
