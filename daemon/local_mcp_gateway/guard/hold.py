"""Holding the live file: the write lock, the backup under it, COMMIT, and making sure that it lasts."""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import create_backup, list_backups, require_room
from local_mcp_gateway.backup.durable import flush
from local_mcp_gateway.backup.retention import prune
from local_mcp_gateway.backup.room import database_bytes
from local_mcp_gateway.database.connect import (
    begin_immediate,
    open_migration,
    reading,
    set_foreign_keys,
)
from local_mcp_gateway.database.faults import explained
from local_mcp_gateway.database.integrity import full_check, quick_check
from local_mcp_gateway.database.pages import COMPARED_BYTES, pages
from local_mcp_gateway.errors import Damaged, DiskProblem, GatewayError
from local_mcp_gateway.migrate.groups import wants_foreign_keys
from local_mcp_gateway.migrate.seals import text_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.database.pages import Pages
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.values import Done, Plan

THOROUGH_BYTES = 64 << 20
"""Up to this size the result is checked in full (a third of a second): a page that was never written
can be a whole, older one, and then only its disagreement with an index shows it."""


@contextmanager
def hold(attempt: Attempt, plan: Plan, *, fresh: bool) -> Iterator[Connection]:
    """Open the live file and hold SQLite's write lock; roll back whatever was not committed.

    Foreign keys are set as the plan's next group asks for it: inside a transaction it is too late.

    Room for the backup and its rehearsal is asked for first: then nothing has been touched.
    """
    if not fresh:
        with attempt.phases.measured("hold"):
            require_room(attempt.database, attempt.backup_folder)
    with closing(open_migration(attempt.database)) as live:
        attempt.prepare(live)
        with attempt.phases.measured("hold"):
            set_foreign_keys(live, on=wants_foreign_keys(plan.group))
            begin_immediate(live, attempt.database)
        try:
            yield live
        finally:
            if live.in_transaction:
                live.execute("ROLLBACK")


def back_up(attempt: Attempt, plan: Plan) -> Backup:
    """Back the live file up from a second connection, while the caller holds the write lock."""
    with attempt.phases.measured("backup"):
        backup = create_backup(
            attempt.database,
            folder=attempt.backup_folder,
            before=plan.pending[0].tag,
            fingerprint=plan.fingerprint,
            applied=[entry.tag for entry in plan.resolution.applied],
            program_version=attempt.policy.program_version,
            progress=lambda done, total: attempt.progress("backup", done, total),
            stop=attempt.stop,
        )
    attempt.emit(
        "backup.created",
        path=str(backup.path),
        bytes=backup.bytes,
        sha256=backup.sha256,
        duration_ms=attempt.phases.ms("backup"),
    )
    attempt.checkpoint()
    return backup


def commit(attempt: Attempt, live: Connection) -> None:
    """Make the transaction the database. From here on no signal stops the work."""
    with attempt.phases.measured("commit"):
        live.set_progress_handler(None, 0)
        with explained(attempt.database):
            small = database_bytes(attempt.database) <= COMPARED_BYTES
            # Full-text indexes keep their last rows in memory until COMMIT, or until a savepoint.
            live.execute("SAVEPOINT flush")
            live.execute("RELEASE flush")
            written = pages(live) if small else None
            live.execute("COMMIT")
            # Readers may keep the log from being emptied; in WAL with FULL it is durable all the same.
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if written is not None:
                _require_pages(attempt, live, written)


def _require_pages(attempt: Attempt, live: Connection, written: Pages) -> None:
    """Raise Damaged unless a fresh connection reads the pages that were committed.

    A write that only claimed to have happened may leave an older page in its place, which no check of
    the file's structure can find. If another program has written since, nothing can be said.
    """
    with reading(attempt.database, locked=True) as reader:
        found = pages(reader)
    (version,) = live.execute("PRAGMA data_version").fetchone()
    if found and version == written.version and not found.agree(written):
        raise Damaged(f"{attempt.database} does not read back as written: a write was lost.")


def settle(attempt: Attempt, done: Done, backup: Backup | None) -> None:
    """Flush file and folder, and read the result back through a fresh connection.

    SQLite hides an EIO of the folder's fsync, and a write that lied leaves a damaged file behind an
    exit code of 0: both are looked for here, before anybody is told that it is done. The caller has
    closed its connections, unless it is serving: then SQLite's own flush at COMMIT has to do.
    """
    with attempt.phases.measured("settle"):
        try:
            if not attempt.serving:
                flush(attempt.database)
            flush(attempt.database.resolve().parent)
        except OSError as error:
            raise DiskProblem(
                f"The disk could not flush {attempt.database}: {error.strerror}.",
                hint="The migration may not last: repair the disk, then see `db status`.",
            ) from None
        try:
            with reading(attempt.database, locked=True) as reader:
                _require_as_written(attempt, reader, done)
        except Damaged as error:
            hint = f"Restore with `db restore {backup.name}`." if backup else error.hint
            raise Damaged(error.message, hint=hint, **error.data) from None
    for step in done.steps:
        attempt.emit("migration.applied", **step.as_fields())


def _require_as_written(attempt: Attempt, reader: Connection, done: Done) -> None:
    """Raise Damaged unless the file is sound and its schema is the one that was committed."""

    def still() -> None:
        attempt.progress("settle", 0, 0)

    if database_bytes(attempt.database) <= THOROUGH_BYTES:
        full_check(reader, attempt.database, progress=still)
    else:
        limit_s = attempt.policy.quick_check_limit_s
        quick_check(reader, attempt.database, limit_s=limit_s, progress=still)
    if text_fingerprint(reader) != done.fingerprint:
        # An older first page is a whole database too: of the schema from before.
        raise Damaged(f"{attempt.database} does not read back as written: a write was lost.")


def thin_out(attempt: Attempt) -> None:
    """Remove the backups that the policy no longer keeps; a failure is told and stops nothing."""
    if attempt.policy.retention is None:
        return
    with attempt.phases.measured("prune"):
        try:
            backups = list_backups(attempt.database, attempt.backup_folder)
            removed = prune(backups, attempt.policy.retention, datetime.now(UTC))
        except GatewayError as error:
            attempt.emit("backup.prune_failed", message=error.message, hint=error.hint)
            return
    if removed:
        attempt.emit(
            "backup.pruned",
            names=[backup.name for backup in removed],
            bytes=sum(backup.bytes for backup in removed),
        )
