"""The rehearsal: the whole pending chain on a copy of the user's own data, before the live file.

`db rehearse` runs it by itself, on a copy of any database, with numbers to plan by. A start may leave it out
where no row can make a statement fail: CREATE TABLE (not AS SELECT), CREATE VIEW, CREATE TRIGGER, and ALTER
TABLE … ADD COLUMN without a constraint or an expression. None of them reads a row that exists.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import paths, require_room, room_needed, scratch_copy
from local_mcp_gateway.backup.atomic_write import make_folder, named_failures, temporary_file
from local_mcp_gateway.backup.create import copy_online
from local_mcp_gateway.database.connections import open_scratch, reading
from local_mcp_gateway.database.transactions import begin, commit
from local_mcp_gateway.errors import MigrationFailed
from local_mcp_gateway.guard.apply import run_batch
from local_mcp_gateway.guard.context import Phases, Rehearsal
from local_mcp_gateway.guard.hazards import HazardWatch
from local_mcp_gateway.guard.plan import make_plan
from local_mcp_gateway.migrate.apply import wants_foreign_keys
from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.migrate.tokenizer import tokens
from local_mcp_gateway.migrate.verify import count_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import BatchResult, GuardContext, Plan


def rehearsal_is_due(context: GuardContext, plan: Plan) -> bool:
    """Tell whether the policy wants this plan rehearsed.

    `auto` leaves out what cannot fail on data; a policy that refuses hazards has to know them first.
    """
    if context.policy.rehearse == "always" or context.policy.destructive == "refuse":
        return True
    return context.policy.rehearse == "auto" and not all(
        is_data_independent(migration.sql) for migration in plan.pending
    )


def rehearse(context: GuardContext, backup: Backup, plan: Plan) -> Rehearsal:
    """Apply everything pending to a copy of `backup`, with the same checks; the copy is removed.

    Raises what the live run would raise; the live file is untouched.
    """
    with context.phases.measured("rehearse"), scratch_copy(backup) as copy:
        try:
            rehearsal = rehearse_on(context, copy, plan)
        except MigrationFailed as error:
            if not plan.resolution.applied and "already exists" in error.message:
                error.hint = (
                    "This database has tables but no record of migrations:"
                    " take it over with `db adopt`, which finds out how far it is."
                )
            raise
    context.emit(
        "migration.rehearsed",
        migrations=[step.tag for step in rehearsal.steps],
        statements=sum(step.statements for step in rehearsal.steps),
        hazards=len(rehearsal.hazards),
        duration_ms=round(rehearsal.duration_ms, 3),
    )
    context.checkpoint()
    return rehearsal


def rehearse_on(
    context: GuardContext,
    copy: Path,
    plan: Plan,
    *,
    after_each: Callable[[Connection, str], None] = lambda _connection, _tag: None,
) -> Rehearsal:
    """Apply everything pending to this file, which nobody else uses and which may be lost.

    `after_each` sees the copy after each migration, inside its transaction.
    """
    phases = Phases()  # the rehearsal is one phase of the start; its inner ones are not the start's
    done: list[BatchResult] = []
    with phases.measured("all"), closing(open_scratch(copy)) as scratch:
        context.prepare(scratch)
        watch = HazardWatch(scratch)
        executed = 0

        def begun(tag: str) -> None:
            context.progress(f"rehearse {tag}", executed, len(plan.pending))

        def ended(tag: str) -> None:
            nonlocal executed
            executed += 1
            watch.after_migration()
            after_each(scratch, tag)

        rest = plan
        while rest.pending:
            begin(scratch, copy, foreign_keys=wants_foreign_keys(rest.group))
            one = run_batch(
                context,
                scratch,
                rest.group,
                backup=None,
                stamped=plan.folder.stamped,
                drifted=bool(plan.drift),
                phases=phases,
                watch=watch.before_statement,
                begun=begun,
                ended=ended,
            )
            commit(scratch)
            if rest.group[0].directives.no_transaction:
                after_each(scratch, one.steps[-1].tag)
            watch.data_changed(one.changes)
            done.append(one)
            rest = rest.after(one)
    return Rehearsal(
        steps=tuple(step for one in done for step in one.steps),
        fingerprints={one.steps[-1].tag: one.fingerprint for one in done},
        hazards=tuple(watch.found),
        duration_ms=phases.durations_ms["all"],
    )


_CREATED = frozenset({"TABLE", "VIEW", "TRIGGER"})
_CONSTRAINING = frozenset(
    {"NOT", "CHECK", "GENERATED", "AS", "REFERENCES", "UNIQUE", "PRIMARY", "DEFAULT"}
)


def is_data_independent(sql: str) -> bool:
    """Tell whether every statement of a migration is one that no row can make fail."""
    return all(_is_harmless(statement.text) for statement in split(sql))


def _is_harmless(statement: str) -> bool:
    words = [token.upper for token in tokens(statement) if token.kind == "word"]
    if words[:1] == ["CREATE"]:
        kind = next((word for word in words[1:4] if word in _CREATED), None)
        return kind in ("VIEW", "TRIGGER") or (kind == "TABLE" and "SELECT" not in words)
    added = words[:2] == ["ALTER", "TABLE"] and "ADD" in words[2:5]
    return added and not _CONSTRAINING.intersection(words)


@dataclass(frozen=True, slots=True)
class TableRows:
    """How many rows a table has; None: it is not there."""

    table: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class DryRun:
    """What the pending migrations did to a copy of `source`, which was only read."""

    source: Path
    rehearsal: Rehearsal | None
    """None: nothing is pending."""
    tables: tuple[TableRows, ...]
    """Every table, before the first and after the last migration."""
    changed: Mapping[str, tuple[TableRows, ...]]
    """Tag → the tables whose number of rows this migration changed."""
    bytes_before: int
    bytes_after: int

    @property
    def bytes_needed(self) -> int:
        """Return the free room that a guarded start with these migrations takes at its peak.

        The backup, the rehearsed copy as it ends, and a log of the live file that may hold all of it.
        """
        return room_needed(self.source) + self.bytes_after


def dry_run_on_copy(context: GuardContext, source: Path) -> DryRun:
    """Copy `source` (online, so it may be in use) and run what is pending on the copy.

    Takes no lock; the copy is in the backup folder and gone afterwards. Raises what a guarded start
    would raise.
    """
    with copy_of(context, source) as on_copy:
        return _run(on_copy, source)


@contextmanager
def copy_of(context: GuardContext, source: Path) -> Iterator[GuardContext]:
    """Copy `source` into the backup folder and yield the same attempt on the copy; then it is gone."""
    folder = context.backup_folder
    with reading(source):
        pass  # a file that is no database is said by its own name
    require_room(source, folder, rehearsed=False)
    stem = context.database.resolve().stem
    path = paths.temporary(folder / f"{stem}-trial-{os.getpid()}.db")
    with ExitStack() as stack:
        with named_failures("write a copy for the rehearsal into", folder):
            make_folder(folder)
            stack.enter_context(temporary_file(path))
            copy_online(
                source,
                path,
                lambda done, total: context.progress("copy", done, total),
                stop=context.stop,
            )
        yield replace(context, database=path)


def _run(on_copy: GuardContext, source: Path) -> DryRun:
    copy = on_copy.database
    with reading(copy) as reader:
        before = dict(count_rows(reader).rows)
    size = copy.stat().st_size
    plan = make_plan(on_copy, fresh=False)
    if not plan.pending:
        return DryRun(source, None, (), {}, size, size)
    seen = [before]
    changed: dict[str, tuple[TableRows, ...]] = {}

    def count(connection: Connection, tag: str) -> None:
        seen.append(dict(count_rows(connection).rows))
        changed[tag] = tuple(
            rows for rows in _compared(seen[-2], seen[-1]) if rows.before != rows.after
        )

    rehearsal = rehearse_on(on_copy, copy, plan, after_each=count)
    tables = _compared(before, seen[-1])
    return DryRun(source, rehearsal, tables, changed, size, copy.stat().st_size)


def _compared(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[TableRows, ...]:
    return tuple(TableRows(t, before.get(t), after.get(t)) for t in sorted({*before, *after}))
