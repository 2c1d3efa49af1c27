"""The short commands of the guard: back up, restore, reset, seed, repair.

A restore is recorded in the restored history. What a restore or a rewind replaced is kept next to the
database, and can be restored by its name.

For a reset, and to take over a database of the original, the fresh database is built next to the old one
by the same guard, with every migration (and seed), and replaces it in one rename: a kill at any point
leaves the old database or the finished new one, and a migration that fails leaves the old one. Seeds are `.sql` or `.py` files, all of them applied or none.

Each repair is recorded. It writes only rows of the ledger and the history, and indexes, never the user's
tables. The user confirms it while the lock is held.
"""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from local_mcp_gateway.backup import (
    Backup,
    Restored,
    aside_path,
    file_hash,
    find_backup,
    hold_still,
    list_asides,
    mark_plain_secrets,
    named_failures,
    prune_asides,
    remove,
    require_known,
    require_room,
    restore_backup,
    side_files,
    staged_path,
    swap,
)
from local_mcp_gateway.database import (
    has_content,
    lock_path,
    open_immutable,
    open_migration,
    reading,
    rebuild_every_index,
    staged_transaction,
    translated_errors,
)
from local_mcp_gateway.errors import (
    BackupForeign,
    Damaged,
    DatabasePathProblem,
    GatewayError,
    NoSuchBackup,
    NotADatabase,
    UsageProblem,
)
from local_mcp_gateway.formats import iso
from local_mcp_gateway.guard.context import GuardContext, GuardPolicy
from local_mcp_gateway.guard.guard import guarded
from local_mcp_gateway.guard.transaction import back_up, exclusive, find_emptied, write_transaction
from local_mcp_gateway.migrate import Ledger, Seeds, Status, read_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.guard.context import GuardReport
    from local_mcp_gateway.migrate import Repair

Done = TypeVar("Done")


def restore_guarded(
    context: GuardContext, backup: Backup, *, lock_timeout_s: float = 0.0, moved: bool = False
) -> Restored:
    """Restore the backup while holding the database's lock; raises LockHeld and as `restore_held`."""
    with exclusive(context, lock_timeout_s=lock_timeout_s, replaces=True):
        return restore_held(context, backup, moved=moved)


def restore_held(context: GuardContext, backup: Backup, *, moved: bool = False) -> Restored:
    """Restore the backup; the caller holds the lock, and has no connection open. Blocks.

    `moved`: see `restore_backup`. A backup with migrations that the folder does not have is refused before anything is written:
    the next start would refuse it. Else raises as `restore_backup`.
    """
    known = read_folder(context.migrations).every_migration()
    require_known(backup, {word for item in known for word in (item.tag, *item.hashes)})
    done = restore_backup(
        context.database,
        backup,
        annotate=partial(_note_restore, context, backup, _identity(context.database.resolve())),
        keep_aside=context.policy.keep_aside,
        moved=moved,
        run=context,
    )
    context.emit(
        "database.restored",
        database=str(context.database),
        backup=backup.name,
        replaced=None if done.aside is None else str(done.aside),
    )
    return done


def _note_restore(
    context: GuardContext, backup: Backup, identity: str | None, connection: Connection
) -> None:
    """Record the restore in the restored history; a backup from before the identity gets that of the old file."""
    ledger = context.ledger(connection)
    ledger.ensure()
    ledger.note("restored", backup=backup.name)
    if identity is not None and ledger.identity() is None:
        ledger.identify(identity)


def back_up_now(context: GuardContext, *, before: str | None = None) -> Backup:
    """Back up a database that may be in use; needs no lock, and blocks no writer in WAL mode.

    The facts for the manifest are read just before: a migration that is applied in between is in the
    backup and not in its manifest, and a restore of it is still correct.
    """
    with reading(context.database) as reader:
        ledger = context.ledger(reader)
        fingerprint, applied = ledger.fingerprint(), ledger.names()
    require_room(context.database, context.backup_folder, rehearsed=False)
    return back_up(context, before=before, fingerprint=fingerprint, applied=applied, full=True)


def identify(context: GuardContext) -> str:
    """Return the identity of the database, given to it at the first call; the caller holds the lock."""
    with reading(context.database) as reader:
        found = context.ledger(reader).identity()
    if found is None:
        found = uuid4().hex
        with write_transaction(context, backs_up=False) as transaction:
            transaction.ledger.ensure()
            transaction.ledger.identify(found)
            transaction.commit()
    return found


def identify_guarded(context: GuardContext) -> str:
    """Return the identity of the database, holding its lock; raises as a start does."""
    with exclusive(context):
        return identify(context)


def find_to_restore(database: Path, name: str, folder: Path | None) -> Backup:
    """Return the backup of that name, the replaced database, or what is in any other database file.

    Raises as `find_backup` does.
    """
    wanted = Path(name).name
    for aside in list_asides(database):
        if wanted in (aside.name, aside.stem):
            if any(side.exists() for side in side_files(aside)):
                raise BackupForeign(f"{aside.name} was damaged when it was replaced.")
            made = datetime.fromisoformat(aside.stem.rpartition("replaced-")[2])
            return _as_backup(database, aside, made)
    try:
        return find_backup(database, name, folder)
    except (NoSuchBackup, BackupForeign):
        file = Path(name)
        if not file.is_file() or file.suffix == ".json" or file.with_suffix(".json").exists():
            raise
        return _copy_as_backup(database, file.resolve())


def _copy_as_backup(database: Path, file: Path) -> Backup:
    """Describe a plain copy that somebody made of a database; raises BackupForeign if it is not whole."""
    if file == database.resolve():
        raise UsageProblem(f"{file} is the database itself.", hint="Give a copy of it.")
    for log in side_files(file):
        if log.suffix != f"{file.suffix}-shm" and log.exists() and log.stat().st_size:
            raise BackupForeign(
                f"{file.name} is not whole: the newest changes are in {log.name} next to it.",
                hint="Open it once with a program that uses SQLite, or copy it with `.backup`.",
            )
    made = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return _as_backup(database, file, made)


def _as_backup(database: Path, file: Path, made: datetime) -> Backup:
    """Describe a file without a manifest as a backup; a restore checks the file itself."""
    with named_failures(file, doing="read"), closing(open_immutable(file)) as reader:
        ledger = Ledger(reader)
        return Backup(
            path=file,
            name=file.stem,
            bytes=file.stat().st_size,
            sha256=file_hash(file),
            created_at=iso(made),
            before=None,
            fingerprint=ledger.fingerprint(),
            applied=tuple(ledger.names()),
            program_version="",
            verified=False,
            database=str(database.resolve()),
        )


@dataclass(frozen=True, slots=True)
class Reset:
    """A finished reset, and where the old rows are."""

    report: GuardReport
    backup: Backup | None
    aside: Path | None
    """The old file, kept only if it was too damaged for a backup."""


def reset_guarded(
    context: GuardContext, *, seeds: Sequence[Path] = (), lock_timeout_s: float = 0.0
) -> Reset:
    """Back the database up, build a fresh one next to it, and swap them."""
    planted = Seeds(seeds)
    real = context.database.resolve()
    with exclusive(context, lock_timeout_s=lock_timeout_s, replaces=True):
        backup, aside = _saved(context, real)
        identity = _identity(real)
        staged = staged_path(real)
        try:
            with named_failures(real, doing="put a fresh database at"):
                remove(staged)
                policy = replace(context.policy, fresh=True)  # a killed reset leaves a lock file
                with guarded(
                    staged, context.migrations, policy=policy, stop=context.stop
                ) as report:
                    _finish(context, staged, backup, planted, identity)
                swap(real, staged, aside=aside)
        finally:
            _clear(staged)
        prune_asides(real, max(context.policy.keep_aside, 1))
    context.emit(
        "database.reset", database=str(context.database), backup=backup.name if backup else None
    )
    return Reset(report, backup, aside)


def _saved(context: GuardContext, real: Path) -> tuple[Backup | None, Path | None]:
    """Back the old database up; if it is damaged, return the name to keep its file under."""
    if not has_content(real):
        return None, None
    try:
        return back_up_now(context), None
    except (Damaged, NotADatabase):
        return None, aside_path(real, datetime.now(UTC))


def _identity(real: Path) -> str | None:
    """Return the identity of the old database: what replaces it is its next state, also for a replica."""
    with suppress(GatewayError), reading(real) as reader:
        return Ledger(reader).identity()
    return None


def _finish(
    context: GuardContext, staged: Path, backup: Backup | None, seeds: Seeds, identity: str | None
) -> None:
    """Seed the fresh database, complete its history, and leave it as one flushed file."""
    with (
        seeds.named_deferred_keys(),
        staged_transaction(staged, foreign_keys=True, run=context) as fresh,
    ):
        context.policy.prepare(fresh)
        ledger = context.ledger(fresh)
        ledger.ensure()
        ledger.note("reset", backup=backup.name if backup else None)
        if identity is not None:
            ledger.identify(identity)
        seeds.run(ledger, backup=backup.name if backup else None)


def take_over_guarded(
    context: GuardContext,
    require: Callable[[Connection], None],
    write: Callable[[Connection, Connection], Done],
    confirm: Callable[[Done], None],
    *,
    lock_timeout_s: float = 0.0,
) -> tuple[Done, Backup]:
    """Replace another program's database by a new one with what `write` makes of its rows.

    `require` gets the old database first, `write` that and the new one, in one transaction, and `confirm`
    what `write` returns; each may raise, with nothing changed. The backup, made last, is marked as
    holding plain secrets. Raises DatabaseBusy while another program has the database open.
    """
    real = context.database.resolve()
    staged = staged_path(real)
    with exclusive(context, lock_timeout_s=lock_timeout_s) as fresh:
        if fresh:
            raise UsageProblem(
                f"There is no database at {context.database}.",
                hint="Give its file with --database.",
            )
        with reading(context.database, locked=True) as reader:
            require(reader)
        require_room(context.database, context.backup_folder)
        try:
            with ExitStack() as writers_out, translated_errors(context.database):
                live = writers_out.enter_context(closing(open_migration(real)))
                seen = hold_still(live, real)
                with named_failures(real, doing="put the new database at"):
                    done, backup = _write_new(context, live, staged, write, confirm)
                    writers_out.close()
                    swap(real, staged, aside=None, seen=seen, keeps_mode=False)
        finally:
            _clear(staged)
    context.emit("database.taken_over", database=str(context.database), backup=backup.name)
    return done, backup


def _write_new(
    context: GuardContext,
    live: Connection,
    staged: Path,
    write: Callable[[Connection, Connection], Done],
    confirm: Callable[[Done], None],
) -> tuple[Done, Backup]:
    """Build the new database in `staged`; the caller holds SQLite's write lock on the old one."""
    remove(staged)
    policy = replace(context.policy, fresh=True, to=None)
    with guarded(staged, context.migrations, policy=policy, stop=context.stop):
        pass
    with staged_transaction(staged, foreign_keys=True, run=context) as fresh:
        done = write(live, fresh)
        confirm(done)
        backup = mark_plain_secrets(back_up_now(context, before="take-over"))
        ledger = context.ledger(fresh)
        ledger.ensure()
        ledger.note("taken_over", backup=backup.name)
    context.checkpoint()
    return done, backup


def _clear(staged: Path) -> None:
    """Remove a staged database and its lock file; what cannot be removed now, the next start removes."""
    with suppress(OSError):
        remove(staged)
        lock_path(staged).unlink(missing_ok=True)


def seed_guarded(
    context: GuardContext, files: Sequence[Path], *, lock_timeout_s: float = 0.0
) -> Backup:
    """Back the database up, then run every seed in one transaction; return the backup.

    A seed that fails leaves the database as it was.
    """
    seeds = Seeds(files)
    if not context.database.exists():
        raise DatabasePathProblem(
            f"There is no database at {context.database}.",
            hint="Create it with `db migrate` first.",
        )
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, foreign_keys=True) as transaction,
    ):
        backup = transaction.back_up(before=None)
        seeds.run(transaction.ledger, backup=backup.name)
        with seeds.named_deferred_keys():
            transaction.commit()
    context.emit(
        "database.seeded", database=str(context.database), files=[str(file) for file in files]
    )
    return backup


@contextmanager
def repairing(context: GuardContext, *, lock_timeout_s: float = 0.0) -> Iterator[Repair]:
    """Lock the database, yield the repairs of its history, and commit what the block has recorded."""
    from local_mcp_gateway.migrate import Repair  # no start needs it

    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, backs_up=False) as transaction,
    ):
        repair = Repair(
            context.database,
            context.migrations,
            transaction.ledger,
            prepare=context.policy.prepare,
        )
        yield repair
        if repair.recorded:
            transaction.commit()
    for tag in repair.tags:
        context.emit("migration.repaired", tag=tag)


def rebuild_indexes(context: GuardContext, *, lock_timeout_s: float = 0.0) -> Backup:
    """Rebuild every index from its table, after a backup; return the backup.

    Raises Damaged, with the database as it was, if that does not make it sound. The backup of a damaged
    database is marked as such, and is only kept in case that the tables were at fault.
    """
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, damaged=True) as transaction,
    ):
        backup = transaction.back_up(before="reindex", full=True)
        rebuild_every_index(transaction.connection, context.database, run=context)
        transaction.ledger.ensure()
        transaction.ledger.note("reindexed", backup=backup.name)
        transaction.commit()
    context.emit("database.reindexed", database=str(context.database), backup=backup.name)
    return backup


def get_status(
    database: Path,
    migrations: Path,
    *,
    backup_folder: Path | None = None,
    to: str | None = None,
    allow_out_of_order: bool = False,
    prepare: Callable[[Connection], None] | None = None,
) -> Status:
    """Read a database and its folder, and say what a start would refuse; takes no lock.

    Raises MigrationsFolderProblem or DatabasePathProblem.
    """
    found = Status.read(
        database, migrations, to=to, allow_out_of_order=allow_out_of_order, prepare=prepare
    )
    if not found.empty:
        return found
    size = database.stat().st_size if database.exists() else 0
    policy = GuardPolicy(backup_folder=backup_folder)
    emptied = find_emptied(GuardContext(database, migrations, policy), size)
    return found if emptied is None else found.refused(emptied)
