"""`db down`: the way back, guarded like the way forward."""

from __future__ import annotations

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.cli.confirm import confirm_by_name
from local_mcp_gateway.cli.context import Invocation, stop_on_signals
from local_mcp_gateway.cli.progress import progress_bar
from local_mcp_gateway.cli.restore import (
    json_option,
    lock_timeout_option,
    refuse_while_held,
    yes_option,
)
from local_mcp_gateway.errors import DatabasePathProblem, Exit, UsageProblem


@click.command()
@click.option("--to", metavar="TAG", help="The migration that is the last one applied afterwards.")
@click.option("--steps", type=click.IntRange(min=1), help="How many to take back [default: 1].")
@yes_option
@lock_timeout_option
@json_option
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
    """Take migrations back, newest first: backed up, rehearsed, all or nothing, verified.

    Runs each migration's `.down.sql`, or the text of it that was kept when the migration was applied;
    afterwards the schema is what it was before. What would be lost is shown before you are asked.
    """
    from local_mcp_gateway.guard.context import GuardContext
    from local_mcp_gateway.guard.down import go_back, plan_down
    from local_mcp_gateway.service.policy import guard_policy

    if to is not None and steps is not None:
        raise UsageProblem("--to and --steps cannot be given together.")
    if not invocation.database.exists():
        raise DatabasePathProblem(f"There is no database at {invocation.database}.")
    refuse_while_held(invocation.database, lock_timeout)
    policy = guard_policy(invocation.settings)
    with stop_on_signals() as stop, progress_bar() as progress:
        context = GuardContext(
            invocation.database, invocation.migrations, policy, invocation.emitter(), progress, stop
        )
        plan = plan_down(context, steps=steps, to=to)
        told = [f"{way.applied.tag} will be taken back." for way in plan.ways]
        told += [hazard.message for hazard in plan.hazards]
        if plan.ways:
            confirm_by_name(invocation.database.name, told, yes=yes)
        done, backup = go_back(context, steps=steps, to=to, lock_timeout_s=lock_timeout)
    if as_json:
        render.print_json(
            {
                "reverted": [
                    {"tag": s.tag, "statements": s.statements, "duration_ms": s.duration_ms}
                    for s in done.steps
                ],
                "backup": backup.name if backup else None,
                "fingerprint": done.fingerprint,
            }
        )
        return Exit.OK
    for step in done.steps:
        click.echo(
            f"reverted  {step.tag}  {render.count(step.statements, 'statement')}  {render.duration(step.duration_ms)}"
        )
    if backup is not None:
        click.echo(f"backup    {backup.path}  {render.size(backup.bytes)}")
    if not done.steps:
        click.echo("Nothing to take back.")
    return Exit.OK
