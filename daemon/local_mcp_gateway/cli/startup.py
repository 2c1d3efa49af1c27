"""`startup`: the last starts as a waterfall."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.errors import Exit
from local_mcp_gateway.service.diary.record import read_starts
from local_mcp_gateway.service.diary.waterfall import phases_of, start_as_json

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.service.diary.record import Start

_COLOURS = {"ready": "green", "refused": "red", "failed": "red"}


@click.command()
@click.option("--last", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="How many starts to show.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def startup(invocation: Invocation, *, last: int, as_json: bool) -> int:
    """Show the last starts of this database: phases, what was applied, or why it was refused."""
    starts = read_starts(invocation.database, last=last)
    if as_json:
        render.print_json({"starts": [start_as_json(start) for start in starts]})
    elif not starts:
        click.echo(f"No start of {invocation.database} is recorded yet.")
    else:
        for start in starts:
            show_start(start)
    return Exit.OK


def show_start(start: Start) -> None:
    """Print one start as bars."""
    facts = start_as_json(start)
    total = float(str(facts["duration_ms"]))
    outcome = click.style(start.outcome, fg=_COLOURS.get(start.outcome, "yellow"), bold=True)
    when = start.started_at[:19].replace("T", " ")
    click.echo(f"{when} UTC  {outcome} after {render.duration(total)}  (pid {start.pid})")
    for phase in phases_of(start):
        bar = click.style(phase.bar(total), fg="cyan")
        click.echo(f"  {phase.name:<18} {bar} {phase.duration_ms:>9.1f} ms")
    for event in start.events:
        match event["event"]:
            case "migration.applied":
                click.echo(f"  applied   {event['tag']}")
            case "migration.rewound":
                told = f"{', '.join(event['migrations'])}, by {event['by']}"
                said = render.sentence(told, indent=" " * 12).removeprefix(" " * 12)
                click.echo(f"  rewound   {said}")
                click.echo(render.sentence(event["message"], indent=" " * 12))
                if event.get("hint"):
                    click.echo(render.sentence(event["hint"], mark="→ ", indent=" " * 12))
            case "backup.created":
                backup = Path(event["path"])
                click.echo(f"  backup    {backup.name}")
                click.echo(f"            in {backup.parent}")
            case "upstream.connected":
                click.echo(
                    f"  upstream  {event.get('server')} after {render.duration(event['ms'])}"
                )
            case "guard.refused" | "service.refused":
                click.secho(render.sentence(event["message"], indent="  "), fg="red")
                click.echo(render.sentence(event["hint"], mark="→ ", indent="  "))
            case "service.failed":
                click.secho(f"  {event.get('message')}", fg="red")
    click.echo()
