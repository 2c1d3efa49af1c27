"""Repair a database on request: adopt, trust, accept an edit, mark as applied, renumber, rebuild indexes.

Each repair is recorded. It writes only rows of the ledger and the history, and indexes, never the user's
tables, in one transaction under the database's lock. The user confirms it while the lock is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from local_mcp_gateway.database.integrity import rebuild_every_index
from local_mcp_gateway.errors import HistoryRefused, NotAdopted, ProblemCode, UsageProblem
from local_mcp_gateway.guard.plan import find_drift, up_to
from local_mcp_gateway.guard.transaction import exclusive, write_transaction
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.folder_edits import plan_renumber, renumber
from local_mcp_gateway.migrate.replay import differences_from, find_point
from local_mcp_gateway.migrate.resolve import resolve
from local_mcp_gateway.sql import first_words

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.folder_edits import RenumberedMigration
    from local_mcp_gateway.migrate.resolve import Edited, Resolution

Confirm = Callable[[Sequence[str]], None]
"""Gets what is about to be recorded; raises NotConfirmed to leave everything as it was."""
_SCHEMA_VERBS = ("CREATE", "ALTER", "DROP")
ConfirmEdit = Callable[["Edited", str | None], None]
"""The same, with the edited migration and the text that was applied, if that is known."""


def adopt_database(
    context: GuardContext, confirm: Confirm, *, lock_timeout_s: float = 0.0
) -> tuple[str, ...]:
    """Record as applied the migrations that make exactly the database's schema; return their tags.

    Raises NotAdopted with the difference if no prefix of the folder does, UsageProblem if the database
    has a ledger already.
    """
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, backs_up=False) as transaction,
    ):
        adopted = _adopt(context, transaction.connection, confirm)
        transaction.commit()
        return adopted


def _adopt(context: GuardContext, live: Connection, confirm: Confirm) -> tuple[str, ...]:
    folder = read_folder(context.migrations)
    problems = [p for p in resolve(folder, ()).problems if p.code != ProblemCode.OUT_OF_ORDER]
    if problems:
        raise HistoryRefused(problems)
    ledger = context.ledger(live)
    if ledger.rows():
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
    ledger.ensure(stamped=folder.stamped)
    ledger.record([(migration, None) for migration in adopted], event="adopted")
    if adopted:
        ledger.record_fingerprint(ledger.fingerprint())
    return tuple(migration.tag for migration in adopted)


def trust_files(
    context: GuardContext, confirm: Confirm, *, lock_timeout_s: float = 0.0
) -> tuple[str, ...]:
    """Accept every edited file as the one that was applied; return their tags."""
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, backs_up=False) as transaction,
    ):
        folder, found = _read(context, transaction.connection)
        if found.edited:
            confirm([_told(entry) for entry in found.edited])
            _accept(context, transaction.connection, folder, found.edited, "trusted")
            transaction.commit()
    return tuple(entry.migration.tag for entry in found.edited)


def accept_edited(
    context: GuardContext, tag: str, confirm: ConfirmEdit, *, lock_timeout_s: float = 0.0
) -> Edited:
    """Accept one edited file as the one that was applied; raises UsageProblem if it is not edited."""
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, backs_up=False) as transaction,
    ):
        live = transaction.connection
        folder, found = _read(context, live)
        entry = next((entry for entry in found.edited if entry.migration.tag == tag), None)
        if entry is None:
            raise UsageProblem(
                f"{tag} is not an applied migration whose file was edited.", hint="See `db status`."
            )
        confirm(entry, context.ledger(live).last_text(entry.row.hash))
        _accept(context, live, folder, (entry,), "edit_accepted")
        transaction.commit()
    return entry


def mark_applied(
    context: GuardContext, tag: str, confirm: Confirm, *, lock_timeout_s: float = 0.0
) -> tuple[Migration, ...]:
    """Record what is pending up to and with `tag` as applied by hand; run nothing, and return it.

    Raises NotAdopted unless the schema is exactly what the migrations up to there make, HistoryRefused
    for a history with problems, UsageProblem if `tag` is applied already or unknown.
    """
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, backs_up=False) as transaction,
    ):
        marked = _mark(context, transaction.connection, tag, confirm)
        transaction.commit()
    for migration in marked:
        context.emit("migration.repaired", tag=migration.tag)
    return marked


def _mark(
    context: GuardContext, live: Connection, tag: str, confirm: Confirm
) -> tuple[Migration, ...]:
    folder, found = _read(context, live)
    if found.problems:
        raise HistoryRefused(found.problems)
    marked = up_to(found, tag)
    if not marked:
        raise UsageProblem(f"{tag} is applied already.", hint="See `db status`.")
    done = [entry.migration for entry in found.applied]
    differences = differences_from([*done, *marked], live, prepare=context.prepare)
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise NotAdopted(
            f"The schema of {context.database} is not what the migrations up to {tag} make:"
            f" {differences[0]}{more}.",
            differences=[str(difference) for difference in differences],
        )
    names = [migration.tag for migration in marked]
    told = [
        f"{' and '.join(filter(None, (', '.join(names[:-1]), tag)))} will be marked as applied."
    ]
    told += [
        f"{migration.tag} does more than change the schema: whether that was done cannot be seen."
        for migration in marked
        if any(first_words(text, 1)[0] not in _SCHEMA_VERBS for text in migration.texts)
    ]
    confirm(told)
    ledger = context.ledger(live)
    ledger.ensure(stamped=folder.stamped)
    ledger.record([(m, None) for m in marked], event="marked_applied")
    ledger.record_fingerprint(ledger.fingerprint())
    return marked


def rebuild_indexes(context: GuardContext, *, lock_timeout_s: float = 0.0) -> Backup:
    """Build every index anew from its table, after a backup; return that.

    Raises Damaged, with the database as it was, if that does not make it sound. The backup of a damaged
    database is marked as such, and is only kept in case that the tables were at fault.
    """
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, damaged=True) as transaction,
    ):
        live = transaction.connection
        backup = transaction.back_up(before="reindex", full=True)
        rebuild_every_index(live, context.database, run=context)
        ledger = context.ledger(live)
        ledger.ensure()
        ledger.note("reindexed", backup=backup.name)
        transaction.commit()
    context.emit("database.reindexed", database=str(context.database), backup=backup.name)
    return backup


def renumber_pending(
    context: GuardContext, *, now_ms: int, lock_timeout_s: float = 0.0
) -> tuple[RenumberedMigration, ...]:
    """Renumber pending migrations with a taken number, or an early date, to the end.

    Only the folder is written; the database is locked, so that nothing is applied meanwhile.
    """
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, backs_up=False) as transaction,
    ):
        folder, found = _read(context, transaction.connection)
        moves = plan_renumber(folder, found, now_ms=now_ms)
        renumber(folder.path, moves)
    return moves


def _read(context: GuardContext, live: Connection) -> tuple[Folder, Resolution]:
    folder = read_folder(context.migrations)
    return folder, resolve(folder, context.ledger(live).rows())


def _accept(
    context: GuardContext,
    live: Connection,
    folder: Folder,
    entries: Sequence[Edited],
    event: str,
) -> None:
    """Write the new hashes, and the fingerprint if the files still make the current schema."""
    ledger = context.ledger(live)
    ledger.ensure(stamped=folder.stamped)
    for entry in entries:
        ledger.accept(entry, event=event)
        context.emit("migration.repaired", tag=entry.migration.tag)
    # Replays the folder as it is now: a file that does not even run is refused here.
    if not find_drift(ledger, resolve(folder, ledger.rows()), context.prepare):
        ledger.record_fingerprint(ledger.fingerprint())


def _told(entry: Edited) -> str:
    return (
        f"{entry.migration.tag} will be taken as it is: hash {entry.migration.hash[:12]}…"
        f" instead of {entry.row.hash[:12]}…."
    )
