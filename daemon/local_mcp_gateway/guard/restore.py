"""A backup on request, and a restore under the guard's lock, recorded in the history that it brings back.

What a restore or a rewind replaced is kept beside the database, and can be restored by its name.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import Backup, clean_up, create_backup, find_backup, paths
from local_mcp_gateway.backup.atomic_write import named_failures
from local_mcp_gateway.backup.restore import Restored, require_known, restore
from local_mcp_gateway.backup.verify import file_hash, open_immutable
from local_mcp_gateway.database.connections import reading
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import BackupForeign
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import (
    ensure_ledger,
    note_event,
    read_ledger,
    text_fingerprint,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.log import Emit


def restore_guarded(
    database: Path,
    migrations: Path,
    backup: Backup,
    *,
    backup_folder: Path,
    keep_aside: int,
    program_version: str,
    lock_timeout_s: float = 0.0,
    emit: Emit = ignore,
    stop: threading.Event | None = None,
) -> Restored:
    """Put the backup in the database's place while holding its lock; raises LockHeld and as `restore`.

    A backup with migrations that the folder does not know is refused before anything is written:
    the next start would refuse it.
    """
    with DatabaseLock(database, timeout_s=lock_timeout_s, stop=stop, replaces=True) as lock:
        clean_up(database, backup_folder)
        known = read_folder(migrations).migrations
        require_known(backup, {word for item in known for word in (item.tag, item.hash)})
        done = restore(
            database,
            backup,
            annotate=partial(note_restore, backup=backup, program_version=program_version),
            keep_aside=keep_aside,
            stop=stop,
        )
        lock.record_clean_stop()
    emit(
        "database.restored",
        database=str(database),
        backup=backup.name,
        replaced=None if done.aside is None else str(done.aside),
    )
    return done


def note_restore(connection: Connection, *, backup: Backup, program_version: str) -> None:
    """Write into the history of the database that comes back that it came back."""
    ensure_ledger(connection)
    note_event(
        connection,
        "restored",
        backup=backup.name,
        program_version=program_version,
    )


def back_up_now(
    database: Path,
    *,
    backup_folder: Path,
    program_version: str,
    before: str | None = None,
    emit: Emit = ignore,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> Backup:
    """Back up a database that may be in use; needs no lock, and holds up no writer in WAL mode.

    What the manifest says is read just before: a migration that is applied in between is in the
    backup and not in its manifest, which makes a restore of it no less right.
    """
    begun = perf_counter()
    with reading(database) as reader:
        applied = [row.tag or row.hash for row in read_ledger(reader)]
        now = text_fingerprint(reader)
    backup = create_backup(
        database,
        folder=backup_folder,
        before=before,
        fingerprint=now,
        applied=applied,
        program_version=program_version,
        progress=progress,
        stop=stop,
    )
    emit(
        "backup.created",
        path=str(backup.path),
        bytes=backup.bytes,
        sha256=backup.sha256,
        duration_ms=round((perf_counter() - begun) * 1000, 3),
    )
    return backup


def find_to_restore(
    database: Path, name: str, folder: Path | None, *, stop: threading.Event | None = None
) -> Backup:
    """Return the backup of that name, or the replaced database; raises as `find_backup` does."""
    wanted = Path(name).name
    for aside in paths.asides(database):
        if wanted in (aside.name, aside.stem):
            return _as_backup(database, aside, stop)
    return find_backup(database, name, folder)


def _as_backup(database: Path, aside: Path, stop: threading.Event | None) -> Backup:
    """Say of a replaced database what a manifest would; a restore checks the file itself."""
    if any(side.exists() for side in paths.side_files(aside)):
        raise BackupForeign(f"{aside.name} was damaged when it was replaced.")
    with named_failures("read", aside), closing(open_immutable(aside)) as reader:
        applied = tuple(row.tag or row.hash for row in read_ledger(reader))
        fingerprint = text_fingerprint(reader)
        return Backup(
            path=aside,
            name=aside.stem,
            bytes=aside.stat().st_size,
            sha256=file_hash(aside, stop=stop),
            created_at=paths.iso(datetime.fromisoformat(aside.stem.rpartition("replaced-")[2])),
            before=None,
            fingerprint=fingerprint,
            applied=applied,
            program_version="",
            verified=False,
            database=str(database.resolve()),
        )
