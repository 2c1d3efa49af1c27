"""One transaction on the live file: the write lock, the backup under it, apply, verify, COMMIT, and that it lasts.

`run_batch` is what the rehearsal and the live run have in common. It begins and commits nothing: the
caller decides, after it has looked at what comes back.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from local_mcp_gateway.backup import create_backup, list_backups, require_room
from local_mcp_gateway.backup.atomic_write import flush
from local_mcp_gateway.backup.disk_space import database_bytes
from local_mcp_gateway.backup.manifest import prune
from local_mcp_gateway.database.connections import (
    begin_immediate,
    open_migration,
    reading,
    set_foreign_keys,
)
from local_mcp_gateway.database.errors import translated_errors
from local_mcp_gateway.database.integrity import COMPARED_BYTES, full_check, pages, quick_check
from local_mcp_gateway.errors import Damaged, DiskProblem, GatewayError, VerificationFailed
from local_mcp_gateway.guard.context import BatchResult
from local_mcp_gateway.migrate.apply import apply_pending, wants_foreign_keys
from local_mcp_gateway.migrate.double_quotes import ACCEPTED, double_quoted, refuse_double_quoted
from local_mcp_gateway.migrate.history import APPLIED_IN_DEV
from local_mcp_gateway.migrate.journal import Entry, write_journal
from local_mcp_gateway.migrate.ledger import record_fingerprint, text_fingerprint
from local_mcp_gateway.migrate.verify import count_rows, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.database.integrity import Pages
    from local_mcp_gateway.guard.context import GuardContext, Phases, Plan, Rehearsal
    from local_mcp_gateway.migrate.apply import Inspector, Step
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement


THOROUGH_BYTES = 64 << 20
"""Up to this size the result is checked in full (a third of a second): a page that was never written
can be a whole, older one, and then only its disagreement with an index shows it."""


@contextmanager
def write_lock(context: GuardContext, plan: Plan, *, fresh: bool) -> Iterator[Connection]:
    """Open the live file and hold SQLite's write lock; roll back whatever was not committed.

    Foreign keys are set as the plan's next group asks for it: inside a transaction it is too late.

    Room for the backup and its rehearsal is asked for first: then nothing has been touched.
    """
    if not fresh:
        with context.phases.measured("hold"):
            require_room(context.database, context.backup_folder)
    with closing(open_migration(context.database)) as live:
        context.prepare(live)
        with context.phases.measured("hold"):
            set_foreign_keys(live, on=wants_foreign_keys(plan.group))
            begin_immediate(live, context.database)
        try:
            yield live
        finally:
            if live.in_transaction:
                live.execute("ROLLBACK")


def back_up(context: GuardContext, plan: Plan) -> Backup:
    """Back the live file up from a second connection, while the caller holds the write lock."""
    with context.phases.measured("backup"):
        backup = create_backup(
            context.database,
            folder=context.backup_folder,
            before=plan.pending[0].tag,
            fingerprint=plan.fingerprint,
            applied=[entry.tag for entry in plan.resolution.applied],
            program_version=context.policy.program_version,
            progress=lambda done, total: context.progress("backup", done, total),
            stop=context.stop,
        )
    context.emit(
        "backup.created",
        path=str(backup.path),
        bytes=backup.bytes,
        sha256=backup.sha256,
        duration_ms=context.phases.ms("backup"),
    )
    context.checkpoint()
    return backup


def commit(context: GuardContext, live: Connection) -> None:
    """Make the transaction the database. From here on no signal stops the work."""
    with context.phases.measured("commit"):
        live.set_progress_handler(None, 0)
        with translated_errors(context.database):
            small = database_bytes(context.database) <= COMPARED_BYTES
            # Full-text indexes keep their last rows in memory until COMMIT, or until a savepoint.
            live.execute("SAVEPOINT flush")
            live.execute("RELEASE flush")
            written = pages(live) if small else None
            live.execute("COMMIT")
            # Readers may keep the log from being emptied; in WAL with FULL it is durable all the same.
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if written is not None:
                _require_pages(context, live, written)


def _require_pages(context: GuardContext, live: Connection, written: Pages) -> None:
    """Raise Damaged unless a fresh connection reads the pages that were committed.

    A write that only claimed to have happened may leave an older page in its place, which no check of
    the file's structure can find. If another program has written since, nothing can be said.
    """
    with reading(context.database, locked=True) as reader:
        found = pages(reader)
    (version,) = live.execute("PRAGMA data_version").fetchone()
    if found and version == written.version and not found.agree(written):
        raise Damaged(f"{context.database} does not read back as written: a write was lost.")


def fsync_and_verify(context: GuardContext, done: BatchResult, backup: Backup | None) -> None:
    """Flush file and folder, and read the result back through a fresh connection.

    SQLite hides an EIO of the folder's fsync, and a write that lied leaves a damaged file behind an
    exit code of 0: both are looked for here, before anybody is told that it is done. The caller has
    closed its connections, unless it is serving: then SQLite's own flush at COMMIT has to do.
    """
    with context.phases.measured("settle"):
        try:
            if not context.serving:
                flush(context.database)
            flush(context.database.resolve().parent)
        except OSError as error:
            raise DiskProblem(
                f"The disk could not flush {context.database}: {error.strerror}.",
                hint="The migration may not last: repair the disk, then see `db status`.",
            ) from None
        try:
            with reading(context.database, locked=True) as reader:
                _require_as_written(context, reader, done)
        except Damaged as error:
            hint = f"Restore with `db restore {backup.name}`." if backup else error.hint
            raise Damaged(error.message, hint=hint, **error.data) from None
    for step in done.steps:
        context.emit("migration.applied", **step.as_fields())


def _require_as_written(context: GuardContext, reader: Connection, done: BatchResult) -> None:
    """Raise Damaged unless the file is sound and its schema is the one that was committed."""

    def still() -> None:
        context.progress("settle", 0, 0)

    if database_bytes(context.database) <= THOROUGH_BYTES:
        full_check(reader, context.database, progress=still)
    else:
        limit_s = context.policy.quick_check_limit_s
        quick_check(reader, context.database, limit_s=limit_s, progress=still)
    if text_fingerprint(reader) != done.fingerprint:
        # An older first page is a whole database too: of the schema from before.
        raise Damaged(f"{context.database} does not read back as written: a write was lost.")


def prune_backups(context: GuardContext) -> None:
    """Remove the backups that the policy no longer keeps; a failure is told and stops nothing."""
    if context.policy.retention is None:
        return
    with context.phases.measured("prune"):
        try:
            backups = list_backups(context.database, context.backup_folder)
            removed = prune(backups, context.policy.retention, datetime.now(UTC))
        except GatewayError as error:
            context.emit("backup.prune_failed", message=error.message, hint=error.hint)
            return
    if removed:
        context.emit(
            "backup.pruned",
            names=[backup.name for backup in removed],
            bytes=sum(backup.bytes for backup in removed),
        )


def run_batch(
    context: GuardContext,
    connection: Connection,
    group: Sequence[Migration],
    *,
    backup: Backup | None,
    stamped: bool,
    drifted: bool,
    phases: Phases,
    watch: Inspector | None,
    begun: Callable[[str], None],
    ended: Callable[[str], None] = lambda _tag: None,
) -> BatchResult:
    """Apply one group and verify it, inside the transaction that the caller has begun.

    Raises MigrationFailed, ForbiddenStatement, VerificationFailed, DiskProblem or Interrupted.
    """
    with phases.measured("verify"):
        before = count_rows(connection)
    event = APPLIED_IN_DEV if context.policy.dev else "applied"
    with phases.measured("apply"):
        name = backup.name if backup else None
        version = context.policy.program_version
        if group[0].directives.no_transaction:
            # VACUUM refuses to run in a transaction; the ledger row is committed by itself.
            from local_mcp_gateway.migrate.no_transaction import apply_without_transaction

            connection.execute("ROLLBACK")
            begun(group[0].tag)
            step = apply_without_transaction(
                connection,
                group[0],
                backup=name,
                program_version=version,
                event=event,
                stamped=stamped,
                stop=context.stop,
            )
            steps: tuple[Step, ...] = (step,)
            connection.execute("BEGIN IMMEDIATE")
        else:
            steps = apply_pending(
                connection,
                group,
                backup=name,
                program_version=version,
                event=event,
                stamped=stamped,
                inspect=watch,
                begun=begun,
                ended=ended,
                stop=context.stop,
            )
    with phases.measured("verify"):
        losses = verify(connection, before, steps)
        now = text_fingerprint(connection)
        if not drifted:  # a seal says that the schema is what the migrations make
            record_fingerprint(connection, now)
    return BatchResult(steps, now, losses)


def _telling(context: GuardContext) -> Inspector:
    """Return what tells of text in double quotes on a new database, where it is not refused.

    No row is there to copy it into; and the folder may be old, its files applied elsewhere, where
    mending one would read as an edit.
    """

    def tell(connection: Connection, migration: Migration, statement: Statement) -> None:
        found = double_quoted(connection, migration, statement)
        if found is not None:
            context.emit(
                "guard.hazard_found",
                tag=migration.tag,
                kind=ACCEPTED,
                object=cast("list[str]", found.data["names"])[0],
                message=found.message,
                backup=None,
            )

    return tell


def apply_live(
    context: GuardContext,
    live: Connection,
    plan: Plan,
    backup: Backup | None,
    rehearsal: Rehearsal | None,
) -> BatchResult:
    """Apply the plan's next group to the live file; the result has to be the rehearsed one.

    In dev the journal entries of new files are written here, just before the caller's COMMIT: a kill
    between the two leaves a journaled migration that is pending, which the next start applies.
    """
    place = {migration.tag: number for number, migration in enumerate(plan.group)}
    done = run_batch(
        context,
        live,
        plan.group,
        backup=backup,
        stamped=plan.folder.stamped,
        drifted=bool(plan.drift),
        phases=context.phases,
        watch=None if rehearsal else refuse_double_quoted if backup else _telling(context),
        begun=lambda tag: context.progress(f"apply {tag}", place[tag], len(place)),
    )
    with context.phases.measured("verify"):
        expected = rehearsal.fingerprints.get(done.steps[-1].tag) if rehearsal else None
        if expected is not None and expected != done.fingerprint:
            raise VerificationFailed(
                f"After {done.steps[-1].tag} the live schema differs from the rehearsed one.",
                hint="The migration depends on something besides the data (time, chance): rewrite it.",
            )
        new = [migration for migration in plan.group if migration.tag in plan.new_files]
        if new:
            entries = [Entry(idx, m.tag, m.when) for idx, m in enumerate(new, plan.next_idx)]
            write_journal(context.migrations, entries)
    context.emit(
        "guard.verified",
        fingerprint=done.fingerprint,
        rehearsed=rehearsal is not None,
        duration_ms=context.phases.ms("verify"),
    )
    context.checkpoint()
    return done
