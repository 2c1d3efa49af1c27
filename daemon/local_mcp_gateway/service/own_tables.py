"""A gateway can serve from a database only if it holds the gateway's own tables.

The guard takes any folder and any database; `serve` on a folder of another program is a slip of the
hand, and deserves a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.database.connections import reading
from local_mcp_gateway.errors import MigrationsFolderProblem

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = frozenset({"mcp_servers", "profiles", "profile_mcp_servers", "approved_tools"})


def require_own_tables(database: Path, migrations: Path) -> None:
    """Raise MigrationsFolderProblem unless the migrated database has what serving needs."""
    with reading(database) as reader:
        rows = reader.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    missing = sorted(NEEDED - {name for (name,) in rows})
    if missing:
        raise MigrationsFolderProblem(
            f"{database} cannot be served: the migrations in {migrations} do not make the gateway's "
            f"own tables ({', '.join(missing)}).",
            hint="Leave --migrations out to serve; `db migrate` guards any other database.",
        )
