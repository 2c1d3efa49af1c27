"""A history mended on purpose: adopted, trusted, an edit accepted. Each is recorded, none is silent.

Only rows of the ledger and of the history are written, never the user's tables; in one transaction,
under the database's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import clean_up
from local_mcp_gateway.database.connections import begin_immediate, open_migration
from local_mcp_gateway.database.integrity import probe
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import HistoryRefused, NotAdopted, ProblemCode, UsageProblem
from local_mcp_gateway.guard.plan import find_drift
from local_mcp_gateway.guard.transaction import commit
from local_mcp_gateway.migrate.adopt import find_point
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.history import accept
from local_mcp_gateway.migrate.ledger import (
    Entry,
    ensure_ledger,
    read_ledger,
    record_all,
    record_fingerprint,
    text_fingerprint,
)
from local_mcp_gateway.migrate.resolve import resolve

if TYPE_CHECKING:
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate.folder import Folder
    from local_mcp_gateway.migrate.resolve import Edited, Resolution

Confirm = Callable[[Sequence[str]], None]
"""Told what is about to be recorded; raises NotConfirmed to leave everything as it was."""


@contextmanager
def write_transaction(context: GuardContext, lock_timeout_s: float) -> Iterator[Connection]:
    """Hold the database's lock and SQLite's, and commit at the end; rolls back on an exception."""
    with DatabaseLock(context.database, timeout_s=lock_timeout_s, stop=context.stop) as lock:
        clean_up(context.database, context.backup_folder)
        probe(context.database, quick_check_limit_s=context.policy.quick_check_limit_s)
        with closing(open_migration(context.database)) as live:
            context.prepare(live)
            begin_immediate(live, context.database)
            try:
                yield live
                commit(context, live)
            finally:
                if live.in_transaction:
                    live.execute("ROLLBACK")
        lock.record_clean_stop()


def adopt_database(context: GuardContext, live: Connection, confirm: Confirm) -> tuple[str, ...]:
    """Mark as applied what gives exactly the schema that the database has; return those tags.

    Raises NotAdopted with the difference where no point of the folder does, UsageProblem where a
    ledger describes the database already.
    """
    folder = read_folder(context.migrations)
    problems = [p for p in resolve(folder, ()).problems if p.code != ProblemCode.OUT_OF_ORDER]
    if problems:
        raise HistoryRefused(problems)
    if read_ledger(live):
        raise UsageProblem(
            f"{context.database} has a ledger already, so nothing needs to be adopted.",
            hint="See `db status`; edited files are taken as they are with `db adopt --trust-files`.",
        )
    point = find_point(folder.migrations, live, prepare=context.prepare)
    if point.count is None or point.earliest is None:
        where = folder.migrations[point.nearest - 1].tag if point.nearest else "an empty database"
        more = f" (and {len(point.differences) - 1} more)" if len(point.differences) > 1 else ""
        raise NotAdopted(
            f"No point of {folder.path} gives the schema of {context.database}; the nearest is {where}:"
            f" {point.differences[0]}{more}.",
            nearest=where,
            differences=[str(difference) for difference in point.differences],
        )
    adopted = folder.migrations[: point.count]
    told = [f"{len(adopted)} of {len(folder.migrations)} migrations will be marked as applied."]
    told += [
        f"{migration.tag} changes no schema: whether its data is there cannot be seen."
        for migration in folder.migrations[point.earliest : point.count]
    ]
    confirm(told)
    ensure_ledger(live, stamped=folder.stamped)
    record_all(
        live,
        [Entry(migration, None) for migration in adopted],
        backup=None,
        program_version=context.policy.program_version,
        fingerprint=None,
        event="adopted",
    )
    if adopted:
        record_fingerprint(live, text_fingerprint(live))
    return tuple(migration.tag for migration in adopted)


def trust_files(context: GuardContext, live: Connection, confirm: Confirm) -> tuple[str, ...]:
    """Take every edited file as what was applied; return their tags."""
    folder, found = _read(context, live)
    if found.edited:
        confirm([_told(entry) for entry in found.edited])
        _accept(context, live, folder, found.edited, "trusted")
    return tuple(entry.migration.tag for entry in found.edited)


def find_edited(context: GuardContext, live: Connection, tag: str) -> Edited:
    """Return the edited migration of this tag; raises UsageProblem if it is none."""
    for entry in resolution(context, live).edited:
        if entry.migration.tag == tag:
            return entry
    raise UsageProblem(
        f"{tag} is not an applied migration whose file was edited.", hint="See `db status`."
    )


def accept_edited(context: GuardContext, live: Connection, entry: Edited) -> None:
    """Take one edited file as what was applied."""
    folder, _ = _read(context, live)
    _accept(context, live, folder, (entry,), "edit_accepted")


def has_ledger(live: Connection) -> bool:
    """Tell whether a ledger describes this database already."""
    return bool(read_ledger(live))


def resolution(context: GuardContext, live: Connection) -> Resolution:
    """Return how the folder and the ledger fit together."""
    return _read(context, live)[1]


def _read(context: GuardContext, live: Connection) -> tuple[Folder, Resolution]:
    folder = read_folder(context.migrations)
    return folder, resolve(folder, read_ledger(live))


def _accept(
    context: GuardContext,
    live: Connection,
    folder: Folder,
    entries: Sequence[Edited],
    event: str,
) -> None:
    """Write the new hashes, and the fingerprint if the files still give the schema that is there."""
    ensure_ledger(live, stamped=folder.stamped)
    for entry in entries:
        accept(
            live,
            entry,
            event=event,
            program_version=context.policy.program_version,
        )
        context.emit("migration.mended", tag=entry.migration.tag)
    # Replays the folder as it is now: a file that does not even run is refused here.
    if not find_drift(live, resolve(folder, read_ledger(live)), context.prepare):
        record_fingerprint(live, text_fingerprint(live))


def _told(entry: Edited) -> str:
    return (
        f"{entry.migration.tag} will be taken as it is: hash {entry.migration.hash[:12]}…"
        f" instead of {entry.row.hash[:12]}…."
    )
