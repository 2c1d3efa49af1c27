"""Dev mode's `db drop`: the newest migration out of the database, then out of the folder.

The rewind works from a folder that says what should be applied. Here that is a copy without the
migration, so the real folder changes only once the database has. Killed in between, the migration is
pending again: nothing is lost, and a second `db drop` goes on.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.guard.course import find_course
from local_mcp_gateway.guard.rewind import Rewound, rewind
from local_mcp_gateway.migrate import drop as dropping
from local_mcp_gateway.migrate.folder import read_folder

if TYPE_CHECKING:
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.migrate.write import Written


def drop_newest(attempt: Attempt, tag: str) -> tuple[Rewound | None, Written]:
    """Take it back, if it is applied, and delete its files. Blocks.

    The caller holds the lock, has no connection open, and lets nothing else look at the folder.
    Raises what the rewind raises, with database and folder as they were.
    """
    folder = read_folder(attempt.migrations)
    newest = dropping.newest(folder, tag)
    done = None
    if dropping.has_applied(attempt.database, newest):
        done = _take_back(attempt, tag)
        if done is None:
            raise dropping.applied_here(attempt.database, tag)
    return done, dropping.drop_migration(folder, newest)


def _take_back(attempt: Attempt, tag: str) -> Rewound | None:
    with tempfile.TemporaryDirectory(prefix="local-mcp-gateway-") as place:
        without = Path(place) / "migrations"
        shutil.copytree(attempt.migrations, without)
        (without / f"{tag}.sql").unlink()
        on_copy = replace(attempt, migrations=without)
        course = find_course(on_copy, at_start=False)
        return rewind(on_copy, course) if course else None
