"""Run by an interpreter that has prefect: write the schema after each of its SQLite revisions.

usage: python prefect_states.py FOLDER     → FOLDER/_states.json
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

QUERY = (
    "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
    "AND name <> 'alembic_version' AND sql IS NOT NULL"
)


def main(folder: Path) -> None:
    database = folder / "_prefect.db"
    os.environ["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
    os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
    os.environ["PREFECT_HOME"] = str(folder / "_home")
    os.environ["DO_NOT_TRACK"] = "1"
    import anyio.to_thread
    from alembic import command  # type: ignore[import-not-found]
    from alembic.script import ScriptDirectory  # type: ignore[import-not-found]
    from prefect.server import database as package  # type: ignore[import-not-found]
    from prefect.server.database.alembic_commands import (  # type: ignore[import-not-found]
        alembic_config,
    )

    config = alembic_config()
    versions = Path(package.__file__).parent / "_migrations" / "versions" / "sqlite"
    config.set_main_option("version_locations", str(versions))
    revisions = [
        r for r in ScriptDirectory.from_config(config).walk_revisions() if "sqlite" in r.path
    ]
    states: dict[str, list[Any]] = {}
    for revision in reversed(revisions):
        anyio.run(upgrade, command.upgrade, config, revision.revision)
        connection = sqlite3.connect(database)
        states[revision.revision] = sorted(
            [kind, name, re.sub(r"\s+", " ", sql).strip()]
            for kind, name, sql in connection.execute(QUERY)
        )
        connection.close()
    (folder / "_states.json").write_text(json.dumps(states))


async def upgrade(upgrade: Any, config: Any, revision: str) -> None:
    """Run one revision in a worker thread of anyio's, which is where prefect's environment expects to be."""
    import anyio.to_thread

    await anyio.to_thread.run_sync(upgrade, config, revision)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
