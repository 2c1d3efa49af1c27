"""`db status` and `db history`: what is there, without a lock and without a write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.errors import Exit

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.database.lock import Holder
    from local_mcp_gateway.guard.status import Status


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@click.pass_obj
def status(invocation: Invocation, *, as_json: bool) -> int:
    """Show applied and pending migrations, problems, drift, backups and the lock.

    Exit 0 current, 3 pending or drift, 6 damaged, 8 refused. Takes no lock and writes nothing.
    """
    from local_mcp_gateway.backup import list_backups  # noqa: PLC0415  --help does not pay for it
    from local_mcp_gateway.database.lock import read_holder  # noqa: PLC0415
    from local_mcp_gateway.guard.status import get_status  # noqa: PLC0415

    functions = invocation.settings.migrations.functions
    seen = get_status(invocation.database, invocation.migrations, functions=functions)
    backups = list_backups(invocation.database, invocation.settings.backup_folder)
    holder = read_holder(invocation.database)
    if as_json:
        render.print_json(
            {
                **seen.as_json(),
                "backups": [
                    {
                        "name": b.name,
                        "bytes": b.bytes,
                        "created_at": b.created_at,
                        "before": b.before,
                    }
                    for b in backups
                ],
                "lock": {
                    "held": holder is not None,
                    "pid": holder.pid if holder else None,
                    "since": holder.since if holder else None,
                },
            }
        )
    else:
        _show(seen, backups, holder)
    return seen.exit_code


def _show(seen: Status, backups: tuple[Backup, ...], holder: Holder | None) -> None:
    colour = {"current": "green", "new": "cyan", "pending": "yellow"}.get(seen.state, "red")
    state = click.style(seen.state, fg=colour, bold=True)
    click.echo(
        f"{seen.database}: {state}, {len(seen.applied)} applied, {len(seen.pending)} pending"
    )
    rows = [
        (
            "applied",
            entry.tag,
            entry.applied_at,
            None if entry.duration_ms is None else render.duration(entry.duration_ms),
        )
        for entry in seen.applied
    ]
    rows += [
        ("pending", entry.migration.tag, None, render.count(entry.statements, "statement"))
        for entry in seen.pending
    ]
    if rows:
        render.print_table(("STATE", "MIGRATION", "APPLIED AT", ""), rows)
    for entry in seen.pending:
        for hazard in entry.hazards:
            told = f"hazard   {entry.migration.tag}: {hazard.message}"
            click.secho(render.sentence(told), fg="yellow")
    for problem in seen.problems:
        click.secho(render.sentence(f"{problem.code}: {problem.message}"), fg="red")
        click.echo(render.sentence(problem.hint, mark="→ "))
    for difference in seen.drift:
        click.secho(f"drift    {difference.object}: {difference.kind}", fg="yellow")
    newest = f"{len(backups)}, newest {backups[0].name}" if backups else "none"
    click.echo(f"backups  {newest}")
    click.echo(
        f"lock     held by process {holder.pid} since {holder.since}" if holder else "lock     free"
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the history as JSON.")
@click.pass_obj
def history(invocation: Invocation, *, as_json: bool) -> int:
    """Show what happened to this database, when, and by which version of the program."""
    from local_mcp_gateway.guard.status import read_events  # noqa: PLC0415  --help does not pay for it

    events = read_events(invocation.database)
    if as_json:
        render.print_json([event._asdict() for event in events])
    elif not events:
        click.echo("Nothing has happened to this database yet.")
    else:
        render.print_table(
            ("WHEN", "WHAT", "MIGRATION", "VERSION", "BACKUP"),
            [(e.applied_at, e.event, e.tag, e.program_version, e.backup) for e in events],
        )
    return Exit.OK
