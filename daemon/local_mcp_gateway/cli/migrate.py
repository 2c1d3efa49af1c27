"""`db migrate`: the guard, without serving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.cli.context import Invocation, stop_on_signals
from local_mcp_gateway.cli.progress import progress_bar
from local_mcp_gateway.errors import Damaged, Exit, HistoryRefused

if TYPE_CHECKING:
    from local_mcp_gateway.guard import GuardReport


@click.command()
@click.option("--to", metavar="TAG", help="Stop after this migration.")
@click.option("--dry-run", is_flag=True, help="Say what would be applied; exit 3 if anything.")
@click.option(
    "--allow-out-of-order", is_flag=True, help="Apply migrations older than the newest applied."
)
@click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for another holder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def migrate(
    invocation: Invocation,
    *,
    to: str | None,
    dry_run: bool,
    allow_out_of_order: bool,
    lock_timeout: float,
    as_json: bool,
) -> int:
    """Apply what is pending: backed up, rehearsed, all or nothing, verified.

    Waits for another process that holds the lock, then sees what is still pending.
    """
    if dry_run:
        return _dry_run(invocation, to=to, allow_out_of_order=allow_out_of_order, as_json=as_json)
    from local_mcp_gateway.guard import guarded  # noqa: PLC0415  --help does not pay for the guard
    from local_mcp_gateway.service.policy import guard_policy  # noqa: PLC0415

    invocation.prepare_folder()
    policy = guard_policy(invocation.settings, to=to, allow_out_of_order=allow_out_of_order)
    with (
        stop_on_signals() as stop,
        progress_bar() as progress,
        guarded(
            invocation.database,
            invocation.migrations,
            policy=policy,
            lock_timeout_s=lock_timeout,
            emit=invocation.emitter(),
            progress=progress,
            stop=stop,
        ) as report,
    ):
        pass
    _show(report, as_json=as_json)
    return Exit.OK


def _show(report: GuardReport, *, as_json: bool) -> None:
    if as_json:
        render.print_json(report.as_json())
        return
    lines = [
        f"applied  {step.tag}  {render.count(step.statements, 'statement')}  {render.duration(step.duration_ms)}"
        for step in report.applied
    ]
    if report.backup:
        lines.append(f"backup   {report.backup.path}  {render.size(report.backup.bytes)}")
    for difference in report.drift:
        click.secho(f"drift    {difference.kind}: {difference.object}", fg="yellow", err=True)
    total = render.duration(sum(report.durations_ms.values()))
    what = {"current": "Nothing to do", "created": "Created", "migrated": "Migrated"}[report.state]
    click.echo("\n".join([*lines, f"{what}: {report.database} ({total})"]))


def _dry_run(
    invocation: Invocation, *, to: str | None, allow_out_of_order: bool, as_json: bool
) -> int:
    from local_mcp_gateway.guard.status import get_status  # noqa: PLC0415

    seen = get_status(
        invocation.database, invocation.migrations, allow_out_of_order=allow_out_of_order, to=to
    )
    if seen.state == "damaged":
        raise Damaged(seen.problems[0].message, hint=seen.problems[0].hint)
    if seen.problems:
        raise HistoryRefused(seen.problems)
    if as_json:
        render.print_json({"pending": [pending.as_json() for pending in seen.pending]})
    for pending in seen.pending if not as_json else ():
        click.echo(
            f"pending  {pending.migration.tag}  {render.count(pending.statements, 'statement')}"
        )
        for hazard in pending.hazards:
            click.secho(f"         {hazard.kind}: {hazard.message}", fg="yellow")
    if not seen.pending and not as_json:
        click.echo("Nothing pending.")
    return Exit.DIFFERS if seen.pending else Exit.OK
