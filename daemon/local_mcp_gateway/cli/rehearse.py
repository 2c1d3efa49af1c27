"""`db rehearse`: what is pending, on a copy of real data, with its time, rows and room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.cli.context import Invocation, stop_on_signals
from local_mcp_gateway.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.guard.rehearse import DryRun, TableRows


@click.command()
@click.option(
    "--on",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A copy of a production database; without it this database.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def rehearse(invocation: Invocation, *, source: Path | None, as_json: bool) -> int:
    """Run the pending migrations on a copy of real data; the file itself is only read.

    Shows the time of each migration, the rows of each table before and after, the hazards that came
    true and the free room that the real run takes. Exit 5 if it would fail. Takes no lock.
    """
    from local_mcp_gateway.cli.progress import progress_bar
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.guard.rehearse import dry_run_on_copy
    from local_mcp_gateway.service.policy import guard_policy

    with stop_on_signals() as stop, progress_bar() as progress:
        context = GuardContext(
            invocation.database,
            invocation.migrations,
            guard_policy(invocation.settings),
            progress=progress,
            stop=stop,
        )
        dry_run = dry_run_on_copy(context, source.absolute() if source else invocation.database)
    if as_json:
        render.print_json(as_object(dry_run))
    else:
        _show(dry_run)
    return Exit.OK


def as_object(dry_run: DryRun) -> dict[str, object]:
    """Return what `--json` prints."""
    steps = dry_run.rehearsal.steps if dry_run.rehearsal else ()
    hazards = dry_run.rehearsal.hazards if dry_run.rehearsal else ()
    return {
        "source": str(dry_run.source),
        "migrations": [
            {
                "tag": s.tag,
                "statements": s.statements,
                "duration_ms": round(s.duration_ms, 3),
                "tables": _rows(dry_run.changed.get(s.tag, ())),
            }
            for s in steps
        ],
        "tables": _rows(dry_run.tables),
        "hazards": [
            {
                "tag": found.tag,
                "kind": str(found.hazard.kind),
                "object": found.hazard.object,
                "message": found.hazard.message,
            }
            for found in hazards
        ],
        "duration_ms": round(dry_run.rehearsal.duration_ms, 3) if dry_run.rehearsal else 0.0,
        "bytes_before": dry_run.bytes_before,
        "bytes_after": dry_run.bytes_after,
        "bytes_needed": dry_run.bytes_needed,
    }


def _rows(tables: Sequence[TableRows]) -> list[dict[str, object]]:
    return [{"table": t.table, "rows_before": t.before, "rows_after": t.after} for t in tables]


def _in_words(rows: TableRows) -> str:
    if rows.before is None:
        return f"{rows.table}: new, {render.count(rows.after or 0, 'row')}"
    if rows.after is None:
        return f"{rows.table}: gone, with {render.count(rows.before, 'row')}"
    return f"{rows.table}: {rows.before} → {render.count(rows.after, 'row')}"


def _show(dry_run: DryRun) -> None:
    if dry_run.rehearsal is None:
        click.echo("Nothing pending.")
        return
    for step in dry_run.rehearsal.steps:
        rows = "".join(f"  {_in_words(t)}" for t in dry_run.changed.get(step.tag, ()))
        click.echo(f"fine     {step.tag}  {render.duration(step.duration_ms)}{rows}")
    for found in dry_run.rehearsal.hazards:
        click.secho(f"hazard   {found.tag}: {found.hazard.message}", fg="yellow")
    render.print_table(
        ("TABLE", "ROWS BEFORE", "ROWS AFTER"),
        [(t.table, t.before, t.after) for t in dry_run.tables],
    )
    click.echo(
        f"{render.size(dry_run.bytes_before)} before, {render.size(dry_run.bytes_after)} after; the real "
        f"run needs {render.size(dry_run.bytes_needed)} free. {dry_run.source} was only read."
    )
