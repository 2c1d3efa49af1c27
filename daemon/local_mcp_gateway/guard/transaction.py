"""The steps of every command that changes a database: lock, check, hold, back up, commit, make durable.

`exclusive`: lock → clean up → check, and a clean stop at the end. The lock file keeps other gateways
and commands out. Under it, what a crash left is cleaned up, and the file is checked unless the last
stop was clean.

`write_transaction`: hold → (back up, change, verify) → commit → durable. SQLite's write lock keeps
every other program out (a database browser, Drizzle), from before the backup through COMMIT. A kill at
any point leaves the old database or the new one, and an exception the old one. The backup is made from
a second connection: on the one that holds the transaction it would deadlock with itself.
"""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import (
    clean_up,
    create_backup,
    holds,
    list_backups,
    newest_good,
    record_attempt,
    require_room,
)
from local_mcp_gateway.bundled import bundled
from local_mcp_gateway.database import (
    ENGINE_ERRORS,
    REBUILD_INDEXES,
    DatabaseLock,
    Run,
    check_sound,
    commit_and_compare,
    database_bytes,
    last_stop,
    make_durable,
    open_immutable,
    open_reader,
    probe,
    quick_check,
    raise_translated,
    reading,
    require_own_logs,
    write_lock,
)
from local_mcp_gateway.errors import BackupFailed, Damaged, DatabaseEmptied, NotADatabase
from local_mcp_gateway.formats import counted
from local_mcp_gateway.migrate import Ledger
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database import Connection, Holder
    from local_mcp_gateway.guard.context import GuardContext


@contextmanager
def exclusive(
    context: GuardContext, *, lock_timeout_s: float = 0.0, replaces: bool = False
) -> Iterator[bool]:
    """Hold the database's lock, with the file checked; yield whether the database is new.

    `replaces`: the existing file will be replaced, so it may be anything and is not checked. Raises
    LockHeld, naming the holder, NotADatabase, Damaged, DatabaseEmptied or DatabasePathProblem. After a block that ended
    without an exception the clean stop is recorded: the next start need not check the file.
    """
    with _way_out(context):
        context.phases.begin("lock")
        with DatabaseLock(
            context.database,
            timeout_s=lock_timeout_s,
            on_wait=partial(_report_holder, context),
            stop=context.stop,
            replaces=replaces,
        ) as lock:
            context.emit("guard.locked", database=str(context.database), pid=os.getpid())
            context.phases.begin("check")
            gone = clean_up(context.database, context.backup_folder)
            fresh = not replaces and _check(context, gone)
            if not replaces:
                lock.accept_file()
            yield fresh
            lock.record_clean_stop()


def _report_holder(context: GuardContext, holder: Holder | None) -> None:
    """Report once which process holds the lock."""
    facts = {"pid": holder.pid, "since": holder.since, "command": holder.command} if holder else {}
    context.emit("guard.waiting", database=str(context.database), **facts)


def _check(context: GuardContext, gone: Sequence[Path]) -> bool:
    limit_s = context.policy.quick_check_limit_s
    found = probe(context.database, quick_check_limit_s=limit_s, run=context)
    context.emit(
        "guard.checked",
        state=found.state,
        complete=found.complete,
        bytes=found.bytes,
        removed=len(gone),
        duration_ms=context.phases.ms("check"),
    )
    if found.state != "new":
        return False
    if not context.policy.fresh:
        if (emptied := find_emptied(context, found.bytes)) is not None:
            raise emptied
        require_own_logs(context.database)  # SQLite would remove the log of an empty file
    return True


def find_emptied(context: GuardContext, size: int) -> DatabaseEmptied | None:
    """Return an error if the empty or missing database, of this size, is not a new one.

    A first start that was killed leaves an empty database too, but it has no backup, and it did not shrink.
    """
    real = context.database
    before = (last_stop(real) or {}).get("size", 0)
    listed = list_backups(real, context.backup_folder)
    if not (listed or before > size):
        return None
    because = (
        f"it had {before} bytes when it was last closed"
        if before > size
        else f"{context.backup_folder} has {counted(len(listed), 'backup')} of it"
    )
    return DatabaseEmptied(
        f"{real} {'is empty' if real.exists() else 'does not exist'}, but {because}.",
        hint=f"{_restore_command(context)} To begin with a new database: `db migrate --fresh`"
        " or `serve --fresh`.",
        path=str(real),
    )


@contextmanager
def _way_out(context: GuardContext) -> Iterator[None]:
    """Name the newest good backup where the database is damaged and nothing less helps."""
    try:
        yield
    except (Damaged, NotADatabase) as error:
        known = isinstance(error, Damaged) or list_backups(context.database, context.backup_folder)
        if known and error.hint == error.default_hint:
            error.hint = _restore_command(context)
        elif error.hint == REBUILD_INDEXES:
            command = _restore_command(context)
            error.hint += f" If not, {command[:1].lower()}{command[1:]}"
        raise


def _restore_command(context: GuardContext) -> str:
    """Return the exact command that restores the newest backup that still verifies."""
    listed = list_backups(context.database, context.backup_folder)
    good = newest_good(listed, run=context)
    if good is None:
        return (
            f"There is no good backup in {context.backup_folder}; put a copy of your own in place with"
            " `db restore FILE`."
        )
    words = ["local-mcp-gateway", "--database", str(context.database)]
    if context.migrations != bundled("migrations"):
        words += ["--migrations", str(context.migrations)]
    command = shlex.join([*words, "db", "restore", good.name])
    return f"Restore the newest good backup, of {good.created_at}: `{command}`."


class WriteTransaction:
    """The live file with SQLite's write lock held. What is not committed is rolled back."""

    def __init__(
        self, context: GuardContext, connection: Connection, closed_after: ExitStack
    ) -> None:
        self.connection = connection
        self.ledger = Ledger(connection, program_version=context.policy.program_version)
        self.backups: tuple[Backup, ...] = ()
        """All that there are, newest first, once this transaction has made one of the database before it."""
        self.untouched: Callable[[], Connection] | None = None
        """Opens the backup that was made, which nobody writes to; most migrations remove no row, and never do."""
        self.fingerprint = ""
        """Of the schema that was committed."""
        self._closed_after = closed_after
        """Left once SQLite has closed the file: closing another descriptor before would drop its locks."""
        self._context = context

    def back_up(
        self,
        *,
        before: str | None,
        applied: Sequence[str] | None = None,
        full: bool = False,
        replicated: int | None = None,
    ) -> Backup:
        """Back the live file up; `applied` goes into its manifest, by default what the ledger has.

        Where nothing was written since the newest backup, that is the backup. Otherwise the retries of
        a start that fails would take the place of older ones. `full`: the database was not checked before,
        so a new backup is. `replicated`: the replica's transaction with the same content, to note with it.
        """
        context = self._context
        listed = () if full else list_backups(context.database, context.backup_folder)
        newest = next(iter(listed), None)
        if newest is not None and self._is_held_by(newest):
            backup = record_attempt(newest, before)
            _report_backup(context, backup, newest)
        else:
            backup = back_up(
                context,
                before=before,
                fingerprint=self.ledger.fingerprint(),
                applied=self.ledger.names() if applied is None else applied,
                full=full,
                newest=newest,
            )
        others = listed[1:] if newest is not None and backup.name == newest.name else listed
        self.backups = (backup, *others)
        self.untouched = cache(partial(self._open, backup))
        if replicated is not None:
            self.ledger.note_replicated(replicated, backup=backup.name)
        context.checkpoint()
        return backup

    def _open(self, backup: Backup) -> Connection:
        opened = self._closed_after.enter_context(closing(open_immutable(backup.path)))
        self._context.policy.prepare(opened)
        return opened

    def _is_held_by(self, backup: Backup) -> bool:
        """Return whether a backup has the live content, if the file can tell: the write lock is held."""
        database = self._context.database.resolve()
        if self._context.serving or database_bytes(database) != backup.bytes:
            return False  # a WAL has something in it, or other connections have locks to lose
        self._context.phases.begin("backup")
        descriptor = open_file(database)
        self._closed_after.callback(os.close, descriptor)
        return holds(backup, descriptor, run=self._context)

    def commit(self, fingerprint: str = "") -> None:
        """Commit the transaction. From here on no signal stops the work.

        `fingerprint`: of the schema, if the caller knows it.
        """
        self._context.checkpoint()
        self._context.phases.begin("commit")
        self._context.progress("durable", 0, 0)
        self.fingerprint = fingerprint or self.ledger.fingerprint()
        with _told_as_committed():
            commit_and_compare(self.connection, self._context.database)


@contextmanager
def write_transaction(
    context: GuardContext,
    *,
    foreign_keys: bool = False,
    backs_up: bool = True,
    damaged: bool = False,
) -> Iterator[WriteTransaction]:
    """Hold SQLite's write lock for the block; what the block has committed is durable after it.

    The file (unless it may be `damaged`), and the free space for a backup and its rehearsal, are checked
    first, before anything is touched. The caller is inside `exclusive`, or serves the database and has paused its own writers.
    Errors of SQLite or the system inside are translated.
    """
    with _way_out(context):
        try:
            full = _check_before(context, backs_up=backs_up, damaged=damaged)
            context.phases.begin("hold")
            if backs_up:
                require_room(context.database, context.backup_folder)
            with (
                ExitStack() as closed_after,
                write_lock(context.database, foreign_keys=foreign_keys) as connection,
            ):
                context.policy.prepare(connection)
                transaction = WriteTransaction(context, connection, closed_after)
                yield transaction
                if transaction.fingerprint:
                    context.phases.begin("durable")
            if transaction.fingerprint:
                make_durable(context.database, serving=context.serving)
                with _told_as_committed():
                    _read_back(context, transaction.fingerprint, full=full)
        except ENGINE_ERRORS as error:
            raise_translated(error, context.database)


def _check_before(context: GuardContext, *, backs_up: bool, damaged: bool) -> bool:
    """Check the file before it is changed, raising Damaged; return whether the full check fits.

    Neither the header nor a quick check shows that an index disagrees with its table. A statement that
    looks up its rows in such an index changes too few, and COMMIT would make that last. A large file is
    only checked quickly, by the backup if one is made.
    """
    size = database_bytes(context.database)
    limit = context.policy.full_check_limit_bytes
    full = size <= limit
    if damaged or not size:
        return full
    context.phases.begin("check")
    if not full:
        context.emit("guard.not_checked_in_full", bytes=size, limit_bytes=limit)
        if backs_up:
            return False
    limit_s = context.policy.quick_check_limit_s
    with closing(open_reader(context.database, locked=True)) as reader:
        check_sound(reader, context.database, full=full, limit_s=limit_s, run=context)
    return full


def back_up(
    context: GuardContext,
    *,
    before: str | None,
    fingerprint: str,
    applied: Sequence[str],
    full: bool = False,
    newest: Backup | None = None,
) -> Backup:
    """Back the database up with these facts in the manifest, and report it.

    `full`: check the backup's indexes too, unless it is too large for that. If `newest` turns out to
    have the same content, that is the backup.
    """
    limit = context.policy.full_check_limit_bytes
    context.phases.begin("backup")
    try:
        backup = create_backup(
            context.database,
            folder=context.backup_folder,
            before=before,
            fingerprint=fingerprint,
            applied=applied,
            program_version=context.policy.program_version,
            full=full and database_bytes(context.database) <= limit,
            newest=newest,
            run=context,
        )
    except BackupFailed as error:
        if error.data.get("unsound"):
            with _way_out(context), reading(context.database) as reader:
                quick_check(reader, context.database, run=context)
        raise
    _report_backup(context, backup, newest)
    return backup


def _report_backup(context: GuardContext, backup: Backup, newest: Backup | None) -> None:
    reused = newest is not None and backup.name == newest.name
    context.emit(
        "backup.reused" if reused else "backup.created",
        path=str(backup.path),
        bytes=backup.bytes,
        sha256=backup.sha256,
        duration_ms=context.phases.ms("backup"),
    )


@contextmanager
def _told_as_committed() -> Iterator[None]:
    """Say of damage that is found after COMMIT that the change is committed."""
    try:
        yield
    except Damaged as error:
        error.message = f"The change is committed, but {error.message}"
        raise


def _read_back(context: GuardContext, fingerprint: str, *, full: bool) -> None:
    """Raise Damaged unless the file is sound and its schema is the one that was committed.

    Checked in full only if it was before: damage that was there already is not reported as new.
    """
    # It is committed: nothing stops this check, and its progress is that of the whole phase.
    run = Run(progress=lambda *_: context.progress("durable", 0, 0), phases=context.phases)
    limit_s = context.policy.quick_check_limit_s
    with reading(context.database, locked=True) as reader:
        check_sound(reader, context.database, full=full, limit_s=limit_s, run=run)
        if Ledger(reader).fingerprint() != fingerprint:
            # A stale first page is a valid database too, with the schema from before.
            raise Damaged(f"{context.database} does not read back as written: a write was lost.")
