"""`db down`, `db drop` and `db rehearse`: revert migrations, delete the newest, or try them on a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import Invocation, guard_context
from local_mcp_gateway.cli.restore import lock_timeout_option, refuse_while_held, yes_option
from local_mcp_gateway.cli.ui import confirm_by_name
from local_mcp_gateway.errors import DatabasePathProblem, Exit, MigrationApplied, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.guard import DryRun, TableRows


@click.command()
@click.option(
    "--to",
    metavar="TAG",
    shell_complete=complete.tags,
    help="The last migration that stays applied.",
)
@click.option("--steps", type=click.IntRange(min=1), help="How many to revert [default: 1].")
@yes_option
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def down(
    invocation: Invocation,
    *,
    to: str | None,
    steps: int | None,
    yes: bool,
    lock_timeout: float,
    as_json: bool,
) -> int:
    """Revert migrations, newest first: backed up, rehearsed, all or nothing, verified.

    Runs each migration's `.down.sql`, or the copy of it kept when the migration was applied; afterwards
    the schema is what it was before. Shows what would be lost before you are asked.
    """
    from local_mcp_gateway.guard import go_back, plan_down

    if to is not None and steps is not None:
        raise UsageProblem("--to and --steps cannot be given together.")
    if not invocation.database.exists():
        raise DatabasePathProblem(f"There is no database at {invocation.database}.")
    refuse_while_held(invocation.database, lock_timeout)
    with guard_context(invocation) as context:
        plan = plan_down(context, steps=steps, to=to)
        warnings = [f"{one.applied.tag} will be reverted." for one in plan.reversals]
        warnings += [hazard.message for hazard in plan.hazards]
        if plan.reversals:
            confirm_by_name(invocation.database.name, warnings, yes=yes)
        done = go_back(context, steps=steps, to=to, lock_timeout_s=lock_timeout)
    if as_json:
        ui.print_json(
            {
                "reverted": [
                    {"tag": s.tag, "statements": s.statements, "duration_ms": s.duration_ms}
                    for s in done.steps
                ],
                "backup": done.backup.name if done.backup else None,
                "fingerprint": done.fingerprint,
            }
        )
        return Exit.OK
    for step in done.steps:
        ui.tell(
            f"reverted  {step.tag}  {formats.counted(step.statements, 'statement')}  {formats.duration(step.duration_ms)}"
        )
    if done.backup is not None:
        ui.tell(f"{done.backup.path}  {formats.size(done.backup.bytes)}", mark="backup    ")
    if not done.steps:
        ui.tell("Nothing to take back.")
    return Exit.OK


REWIND_S = 300.0
"""How long the gateway may take to revert a migration: it may have to restore a large database."""


@click.command()
@click.argument("tag", required=False, shell_complete=complete.tags)
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
@click.pass_obj
def drop(invocation: Invocation, *, tag: str | None, yes: bool, as_json: bool) -> int:
    """Delete the newest migration: files, snapshot and journal entry.

    Refused when this database has applied it (exit 8); where `serve --dev` runs on it, the gateway
    reverts it in the database first.
    """
    from local_mcp_gateway.cli.ui import confirm_by_name  # --help does not pay
    from local_mcp_gateway.migrate import has_applied, read_folder

    folder = read_folder(invocation.migrations)
    newest = folder.newest(tag)
    applied = has_applied(invocation.database, newest)
    in_dev = _watched_by_dev(invocation)
    if applied and not in_dev:
        raise MigrationApplied(f"{invocation.database} has applied {newest.tag}.", tag=newest.tag)
    lost = [f"{newest.path} will be deleted."]
    if applied:
        lost.insert(
            0, f"{newest.tag} is applied: {invocation.database} is restored to its state before it."
        )
    confirm_by_name(newest.tag, lost, yes=yes)
    if in_dev:
        done = _ask(invocation, "dev.drop", tag=newest.tag)
    else:
        files = folder.drop(newest)
        done = {
            "tag": newest.tag,
            "files": [str(file) for file in files],
            "rewound_by": None,
            "lost": [],
        }
    _show_dropped(done, as_json=as_json)
    return Exit.OK


def _watched_by_dev(invocation: Invocation) -> bool:
    """Tell whether a gateway in dev mode serves this database from this folder."""
    from local_mcp_gateway.service.admin import NoDaemon

    try:
        watched = _ask(invocation, "dev.watched")
    except NoDaemon:
        return False
    return bool(watched == str(invocation.migrations.resolve()))


def _ask(invocation: Invocation, verb: str, **arguments: str) -> Any:
    from local_mcp_gateway.service.admin import ask  # --help does not pay for it

    return ask(invocation.database, verb, arguments, timeout_s=REWIND_S)


def _show_dropped(done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        ui.print_json(done)
        return
    if done["rewound_by"]:
        ui.tell(f"Reverted in the database, by {done['rewound_by']}.")
    if done["lost"]:
        ui.tell(f"Lost: {'; '.join(done['lost'])}.", fg="yellow")
    names = ", ".join(file.rpartition("/")[2] for file in done["files"])
    ui.tell(f"Dropped {done['tag']}: {names}.")


@click.command()
@click.option(
    "--on",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A copy of a production database; without it this database.",
)
@ui.as_json_option
@click.pass_obj
def rehearse(invocation: Invocation, *, source: Path | None, as_json: bool) -> int:
    """Run the pending migrations on a copy of the data; the database itself is only read.

    Shows the time of each migration, the rows of each table before and after, the hazards that occurred
    and the free space that the real run needs. Exit 5 if it would fail, 8 if a hazard is refused. Takes no lock.
    """
    from local_mcp_gateway.guard import dry_run_on_copy

    if source is not None and not source.exists():
        raise UsageProblem(
            f"There is no database at {source}.", hint="Give another file with --on."
        )
    with guard_context(invocation, quiet=True) as context:
        dry_run = dry_run_on_copy(context, source.absolute() if source else invocation.database)
    if not as_json:
        _show_rehearsal(dry_run)
    if dry_run.refused is not None:
        raise dry_run.refused
    if as_json:
        ui.print_json(as_object(dry_run))
    return Exit.OK


def as_object(dry_run: DryRun) -> dict[str, object]:
    """Return the rehearsal as `--json` prints it."""
    rehearsal = dry_run.rehearsal
    return {
        "source": str(dry_run.source),
        "migrations": [
            {
                "tag": s.tag,
                "statements": s.statements,
                "duration_ms": round(s.duration_ms, 3),
                "tables": _rows(dry_run.changed.get(s.tag, ())),
            }
            for s in (rehearsal.steps if rehearsal else ())
        ],
        "tables": _rows(dry_run.tables),
        "hazards": [
            {
                "tag": found.tag,
                "kind": str(found.hazard.kind),
                "object": found.hazard.object,
                "message": found.hazard.message,
            }
            for found in (rehearsal.hazards if rehearsal else ())
        ],
        "duration_ms": round(rehearsal.duration_ms, 3) if rehearsal else 0.0,
        "bytes_before": dry_run.bytes_before,
        "bytes_after": dry_run.bytes_after,
        "bytes_needed": dry_run.bytes_needed,
    }


def _rows(tables: Sequence[TableRows]) -> list[dict[str, object]]:
    return [{"table": t.table, "rows_before": t.before, "rows_after": t.after} for t in tables]


def _in_words(rows: TableRows) -> str:
    if rows.before is None:
        return f"{rows.table}: new, {formats.counted(rows.after or 0, 'row')}"
    if rows.after is None:
        return f"{rows.table}: gone, with {formats.counted(rows.before, 'row')}"
    return f"{rows.table}: {rows.before} → {formats.counted(rows.after, 'row')}"


def _show_rehearsal(dry_run: DryRun) -> None:
    if dry_run.rehearsal is None:
        ui.tell("Nothing pending.")
        return
    for step in dry_run.rehearsal.steps:
        rows = "".join(f"  {_in_words(t)}" for t in dry_run.changed.get(step.tag, ()))
        ui.tell(f"{step.tag}  {formats.duration(step.duration_ms)}{rows}", mark="fine     ")
    for found in dry_run.rehearsal.hazards:
        ui.tell(f"{found.tag}: {found.hazard.message}", mark="hazard   ", fg="yellow")
    ui.print_table(
        ("TABLE", "ROWS BEFORE", "ROWS AFTER"),
        [(t.table, t.before, t.after) for t in dry_run.tables],
    )
    ui.tell(
        f"{formats.size(dry_run.bytes_before)} before, {formats.size(dry_run.bytes_after)} after; the real "
        f"run needs {formats.size(dry_run.bytes_needed)} free. {dry_run.source} was only read."
    )
