"""Back up on request, and restore under the guard's lock (`db backup`, `db restore`).

A restore is recorded in the restored history. What a restore or a rewind replaced is kept beside the
database, and can be restored by its name.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import Backup, find_backup
from local_mcp_gateway.backup.create import file_hash
from local_mcp_gateway.backup.files import list_asides, named_failures, side_files
from local_mcp_gateway.backup.restore import Restored, require_known, restore
from local_mcp_gateway.database.connections import open_immutable, reading
from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.errors import BackupForeign, NoSuchBackup, UsageProblem
from local_mcp_gateway.formats import iso
from local_mcp_gateway.guard.transaction import back_up, exclusive
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import Ledger

if TYPE_CHECKING:
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext


def restore_guarded(
    context: GuardContext, backup: Backup, *, lock_timeout_s: float = 0.0
) -> Restored:
    """Restore the backup while holding the database's lock; raises LockHeld and as `restore`.

    A backup with migrations that the folder does not have is refused before anything is written:
    the next start would refuse it.
    """
    with exclusive(context, lock_timeout_s=lock_timeout_s, replaces=True):
        known = read_folder(context.migrations).migrations
        require_known(backup, {word for item in known for word in (item.tag, *item.hashes)})
        done = restore(
            context.database,
            backup,
            annotate=partial(_note_restore, context, backup),
            keep_aside=context.policy.keep_aside,
            run=context,
        )
    context.emit(
        "database.restored",
        database=str(context.database),
        backup=backup.name,
        replaced=None if done.aside is None else str(done.aside),
    )
    return done


def _note_restore(context: GuardContext, backup: Backup, connection: Connection) -> None:
    """Record the restore in the history of the restored database."""
    ledger = context.ledger(connection)
    ledger.ensure()
    ledger.note("restored", backup=backup.name)


def back_up_now(context: GuardContext, *, before: str | None = None) -> Backup:
    """Back up a database that may be in use; needs no lock, and blocks no writer in WAL mode.

    The facts for the manifest are read just before: a migration that is applied in between is in the
    backup and not in its manifest, and a restore of it is still correct.
    """
    with reading(context.database) as reader:
        ledger = context.ledger(reader)
        fingerprint, applied = ledger.fingerprint(), ledger.names()
    return back_up(context, before=before, fingerprint=fingerprint, applied=applied, full=True)


def find_to_restore(database: Path, name: str, folder: Path | None, run: Run = UNWATCHED) -> Backup:
    """Return the backup of that name, the replaced database, or what is in any other database file.

    Raises as `find_backup` does.
    """
    wanted = Path(name).name
    for aside in list_asides(database):
        if wanted in (aside.name, aside.stem):
            if any(side.exists() for side in side_files(aside)):
                raise BackupForeign(f"{aside.name} was damaged when it was replaced.")
            made = datetime.fromisoformat(aside.stem.rpartition("replaced-")[2])
            return _as_backup(database, aside, made, run)
    try:
        return find_backup(database, name, folder)
    except (NoSuchBackup, BackupForeign):
        file = Path(name)
        if not file.is_file() or file.suffix == ".json" or file.with_suffix(".json").exists():
            raise
        return _copy_as_backup(database, file.resolve(), run)


def _copy_as_backup(database: Path, file: Path, run: Run) -> Backup:
    """Describe a plain copy that somebody made of a database; raises BackupForeign if it is not whole."""
    if file == database.resolve():
        raise UsageProblem(f"{file} is the database itself.", hint="Give a copy of it.")
    for log in side_files(file):
        if log.suffix != f"{file.suffix}-shm" and log.exists() and log.stat().st_size:
            raise BackupForeign(
                f"{file.name} is not whole: the newest changes are in {log.name} beside it.",
                hint="Open it once with a program that uses SQLite, or copy it with `.backup`.",
            )
    made = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return _as_backup(database, file, made, run)


def _as_backup(database: Path, file: Path, made: datetime, run: Run) -> Backup:
    """Describe a file without a manifest as a backup; a restore checks the file itself."""
    with named_failures("read", file), closing(open_immutable(file)) as reader:
        ledger = Ledger(reader)
        return Backup(
            path=file,
            name=file.stem,
            bytes=file.stat().st_size,
            sha256=file_hash(file, run=run),
            created_at=iso(made),
            before=None,
            fingerprint=ledger.fingerprint(),
            applied=tuple(ledger.names()),
            program_version="",
            verified=False,
            database=str(database.resolve()),
        )
