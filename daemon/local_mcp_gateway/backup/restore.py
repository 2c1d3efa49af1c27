"""Put a backup in the database's place."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import names
from local_mcp_gateway.backup.durable import copy_bytes, named_failures, temporary_file
from local_mcp_gateway.backup.room import MARGIN_BYTES, require_free
from local_mcp_gateway.backup.swap import prune_asides, swap
from local_mcp_gateway.backup.verify import checked_hash, first_problem, open_immutable
from local_mcp_gateway.database.integrity import COMPARED_BYTES, pages
from local_mcp_gateway.errors import BackupDamaged, BackupForeign, DiskProblem

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection
    from pathlib import Path

    from local_mcp_gateway.backup.manifest import Backup


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished restore."""

    backup: Backup
    aside: Path | None
    """Where the file is that was replaced; None if there was none."""


def restore(
    database: Path,
    backup: Backup,
    *,
    annotate: Callable[[sqlite3.Connection], None] = lambda _: None,
    keep_aside: int = names.DEFAULT_KEEP_ASIDE,
    stop: threading.Event | None = None,
) -> Restored:
    """Replace the database by the backup, durably; the caller holds the database's lock.

    `annotate` is called inside a transaction on the staged copy, to record the restore in its
    history before it becomes the database. The replaced file is kept under a dated name. Raises
    before anything is changed: BackupDamaged, NoRoom, DatabaseBusy, DiskProblem, Interrupted. Killed
    at any point: the old database or the restored one.
    """
    real = database.resolve()
    require_free(real.parent, backup.bytes + MARGIN_BYTES, what="the restored database")
    staged = names.staged(real)
    with named_failures("stage the backup as", staged), temporary_file(staged) as descriptor:
        _stage(backup, staged, descriptor, annotate, stop)
        aside = names.set_aside(real, datetime.now(UTC)) if real.exists() else None
        swap(real, staged, aside=aside)
    prune_asides(real, max(keep_aside, 1))
    return Restored(backup, aside)


def _stage(
    backup: Backup,
    staged: Path,
    descriptor: int,
    annotate: Callable[[sqlite3.Connection], None],
    stop: threading.Event | None,
) -> None:
    """Write the flushed, checked and annotated file that will be the database."""
    size = backup.path.stat().st_size
    if size != backup.bytes:
        raise BackupDamaged(
            f"The backup {backup.name} has {size} bytes instead of {backup.bytes}: it was cut off "
            "or replaced."
        )
    copy_bytes(backup.path, descriptor)
    # The copy is checked, not the backup: so both are, and nothing can come between.
    if checked_hash(staged, "integrity_check", stop=stop) != backup.sha256:
        raise BackupDamaged(
            f"The backup {backup.name} was changed after it was made (SHA-256 differs)."
        )
    with closing(sqlite3.connect(staged, isolation_level=None)) as connection:
        # A close hides the errors of a checkpoint; a commit with a journal does not.
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        annotate(connection)
        written = pages(connection) if size <= COMPARED_BYTES else None
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA journal_mode={mode}").fetchall()
    os.fsync(descriptor)
    problem = first_problem(staged, "quick_check", stop=stop)
    if problem is not None:
        raise DiskProblem(f"The copy of the backup does not read back as written: {problem}.")
    with closing(open_immutable(staged)) as reader:
        found = pages(reader) if written else None
    if written and found and not found.agree(written):
        raise DiskProblem("The copy of the backup does not read back as written: a write was lost.")


def require_known(backup: Backup, known_tags: Collection[str]) -> None:
    """Raise BackupForeign for a backup with migrations that this program's folder does not have.

    The next start would refuse the restored database as a newer one.
    """
    unknown = [tag for tag in backup.applied if tag not in known_tags]
    if unknown:
        raise BackupForeign(
            f"The backup {backup.name} holds the migration {unknown[0]}, which the migrations "
            "folder does not: it was made by a newer version or for another folder.",
            hint=f"Install version {backup.program_version} (or newer), or give its --migrations.",
        )
