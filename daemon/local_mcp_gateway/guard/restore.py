"""A restore under the guard's lock, recorded in the history of the database that it brings back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import sweep
from local_mcp_gateway.backup.restore import Restored, require_known, restore
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import ensure_ledger, note_event

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connect import Connection
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
        sweep(database, backup_folder)
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
