"""Take the newest migration out of the folder again: fix and regenerate.

Only one that no database at hand has applied; in dev it is taken back there first (service/rewind).
The journal is changed first: a crash leaves the new folder, and perhaps a file that no journal lists.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connections import reading
from local_mcp_gateway.errors import MigrationApplied, UsageProblem
from local_mcp_gateway.migrate.journal import replace_durably
from local_mcp_gateway.migrate.ledger import read_ledger
from local_mcp_gateway.migrate.write import Written, snapshot_file

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.migrate.folder import Folder, Migration


def newest(folder: Folder, tag: str | None = None) -> Migration:
    """Return the newest migration, which has to be `tag` if one is named; raises UsageProblem."""
    if not folder.migrations or folder.stamped:
        raise UsageProblem(
            f"There is no migration to drop in {folder.path}.", hint="See `db status`."
        )
    found = folder.migrations[-1]
    if tag not in {None, found.tag}:
        raise UsageProblem(
            f"Only the newest migration can be dropped, and that is {found.tag}.",
            hint=f"Run `db drop {found.tag}` first.",
        )
    return found


def has_applied(database: Path, migration: Migration) -> bool:
    """Tell whether this database has applied it, also in a wording that was edited since."""
    if not database.exists() or database.stat().st_size == 0:
        return False
    with reading(database) as connection:
        return any(
            row.hash == migration.hash or row.created_at == migration.when
            for row in read_ledger(connection)
        )


def applied_here(database: Path, tag: str) -> MigrationApplied:
    """Return the refusal to drop what a database has applied."""
    return MigrationApplied(
        f"{database} has applied {tag}.",
        hint="Go back with `db down --steps 1`, or restore the backup from before it, then drop it; "
        "where `serve --dev` runs, `db drop` does both.",
        tag=tag,
    )


def drop_migration(folder: Folder, migration: Migration) -> Written:
    """Take the newest migration out: its journal entry, then its files; no database may have applied it."""
    journal = folder.path / "meta" / "_journal.json"
    content = json.loads(journal.read_bytes())
    content["entries"] = [
        entry for entry in content["entries"] if entry.get("tag") != migration.tag
    ]
    replace_durably(journal, json.dumps(content, indent=2, ensure_ascii=False).encode())
    files = [migration.path, snapshot_file(folder.path, migration.tag)]
    if migration.down is not None:
        files.append(migration.down)
    removed = [file for file in files if file.exists()]
    for file in removed:
        file.unlink()
    _flush(folder.path)
    _flush(journal.parent)
    return Written(migration.tag, tuple(removed))


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
