"""The `db` group and its `migrate`, `status` and `history` commands."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import Invocation, stop_on_signals
from local_mcp_gateway.cli.lazy_group import LazyGroup, Target
from local_mcp_gateway.cli.ui import progress_bar
from local_mcp_gateway.errors import Damaged, Exit, HistoryRefused, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database import Holder
    from local_mcp_gateway.guard import GuardReport
    from local_mcp_gateway.migrate import Status


COMMANDS = {
    "status": Target("db:status", "Applied, pending, problems, drift, backups and the lock."),
    "migrate": Target("db:migrate", "Apply pending migrations, guarded, without serving."),
    "studio": Target("studio:db_studio", "Show the database in a browser."),
    "diagram": Target("studio:diagram", "Draw the tables and their foreign keys (SVG)."),
    "history": Target("db:history", "What happened to this database, when, by which version."),
    "generate": Target("generate:generate", "Write the next migration from a changed schema."),
    "squash": Target("generate:squash", "Replace many migrations by one."),
    "pull": Target("schema:pull", "Write a database's schema as SQL or as a Python module."),
    "drop": Target("down:drop", "Delete the newest migration if it is not applied."),
    "diff": Target("schema:diff", "Compare schema, database, snapshot or folder with another."),
    "check": Target("check:check", "Check folder and database against each other, for CI."),
    "rehearse": Target("down:rehearse", "Try pending migrations on a copy of real data."),
    "down": Target("down:down", "Revert migrations, guarded the same way."),
    "adopt": Target("adopt:adopt", "Take over another tool's folder or database."),
    "repair": Target(
        "adopt:repair", "Accept an edited migration, mark one as applied, or rebuild indexes."
    ),
    "renumber": Target("adopt:renumber", "Fix duplicate numbers after a merge of two branches."),
    "backup": Target("backup:backup", "Create, list, verify and prune backups."),
    "restore": Target("restore:restore", "Replace the database by a backup."),
    "reset": Target("restore:reset", "Back up, then start over with every migration applied."),
    "seed": Target("restore:seed", "Fill the database from .sql or .py files."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def db() -> None:
    """Look after the database: see, migrate, back up and restore it.

    Every command takes the database and the migrations folder from the settings, or from the global
    options: `db status --database x.db --migrations m`.
    """


@click.command()
@click.option(
    "--to", metavar="TAG", shell_complete=complete.tags, help="Stop after this migration."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be applied; exit 3 if anything, 8 if it would be refused.",
)
@click.option(
    "--allow-out-of-order", is_flag=True, help="Apply migrations older than the newest applied."
)
@click.option(
    "--fresh", is_flag=True,
    help="Start with a new database even if the old one is missing or empty.",
)  # fmt: skip
@click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the lock.",
)
@ui.as_json_option
@click.pass_obj
def migrate(
    invocation: Invocation,
    *,
    to: str | None,
    dry_run: bool,
    allow_out_of_order: bool,
    fresh: bool,
    lock_timeout: float,
    as_json: bool,
) -> int:
    """Apply pending migrations: backed up, rehearsed, all or nothing, verified.

    Waits for another process that holds the lock, then checks again what is pending.
    """
    if dry_run:
        return _dry_run(invocation, to=to, allow_out_of_order=allow_out_of_order, as_json=as_json)
    from local_mcp_gateway.guard import guarded  # --help does not pay for the guard
    from local_mcp_gateway.service import guard_policy
    from local_mcp_gateway.service.replica import replicating

    invocation.prepare_folder()
    policy = guard_policy(
        invocation.settings, to=to, allow_out_of_order=allow_out_of_order, fresh=fresh
    )
    with (
        stop_on_signals() as stop,
        progress_bar() as progress,
        guarded(
            invocation.database,
            invocation.migrations,
            policy=replicating(invocation.settings, policy),
            lock_timeout_s=lock_timeout,
            emit=invocation.emitter(),
            progress=progress,
            stop=stop,
        ) as report,
    ):
        pass
    _show_migrated(report, as_json=as_json)
    return Exit.OK


def _show_migrated(report: GuardReport, *, as_json: bool) -> None:
    if as_json:
        ui.print_json(report.as_json())
        return
    for step in report.applied:
        took = formats.duration(step.duration_ms)
        statements = formats.counted(step.statements, "statement")
        ui.tell(f"{step.tag}  {statements}  {took}", mark="applied  ")
    for step in report.applied:
        for pragma in step.passed_over:
            text = f"{pragma} in {step.tag}: the guard decides it, or it is so already"
            ui.tell(text, mark="ignored  ")
    if report.backup:
        size = formats.size(report.backup.bytes)
        ui.tell(f"{report.backup.path}  {size}", mark="backup   ")
    for difference in report.drift:
        ui.tell(f"{difference.kind}: {difference.object}", mark="drift    ", fg="yellow", err=True)
    total = formats.duration(sum(report.durations_ms.values()))
    what = {"current": "Nothing to do", "created": "Created", "migrated": "Migrated"}[report.state]
    ui.tell(f"{what}: {report.database} ({total})")


def _dry_run(
    invocation: Invocation, *, to: str | None, allow_out_of_order: bool, as_json: bool
) -> int:
    from local_mcp_gateway.database import has_content
    from local_mcp_gateway.guard import get_status
    from local_mcp_gateway.migrate import HazardFinding, refusal
    from local_mcp_gateway.service import guard_policy

    seen = get_status(
        invocation.database,
        invocation.migrations,
        allow_out_of_order=allow_out_of_order,
        to=to,
        prepare=invocation.prepare,
    )
    if seen.state == "damaged":
        raise Damaged(seen.problems[0].message, hint=seen.problems[0].hint)
    if seen.problems:
        raise HistoryRefused(seen.problems)
    refused = None
    if has_content(invocation.database):  # a new one has nothing to lose
        findings = [HazardFinding(p.migration, h) for p in seen.pending for h in p.hazards]
        refused = refusal(findings, guard_policy(invocation.settings).severity)
    if as_json and refused is None:
        ui.print_json({"pending": [pending.as_json() for pending in seen.pending]})
    for pending in seen.pending if not as_json else ():
        ui.tell(
            f"pending  {pending.migration.tag}  {formats.counted(pending.statements, 'statement')}"
        )
        for hazard in pending.hazards:
            ui.tell(f"{hazard.kind}: {hazard.message}", mark="         ", fg="yellow")
    if refused is not None:
        raise refused
    if not seen.pending and not as_json:
        ui.tell("Nothing pending.")
    return Exit.DIFFERS if seen.pending else Exit.OK


@click.command()
@ui.watch_option
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@click.pass_obj
def status(invocation: Invocation, *, watch: bool, as_json: bool) -> int:
    """Show applied and pending migrations, problems, drift, backups and the lock.

    Exit 0 current, 3 pending or drift, 6 damaged, 8 refused. Takes no lock and writes nothing.
    """
    if watch:
        return ui.shown_until_stopped(partial(_status, invocation, as_json=as_json))
    return _status(invocation, as_json=as_json)


def _status(invocation: Invocation, *, as_json: bool) -> int:
    from local_mcp_gateway.backup import list_backups  # --help does not pay for it
    from local_mcp_gateway.database import read_holder
    from local_mcp_gateway.guard import get_status

    folder = invocation.settings.backup_folder
    seen = get_status(
        invocation.database,
        invocation.migrations,
        backup_folder=folder,
        prepare=invocation.prepare,
    )
    backups = list_backups(invocation.database, folder)
    holder = read_holder(invocation.database)
    if holder:
        seen = _with_its_problem(seen, invocation.database)
    if as_json:
        ui.print_json(
            {
                **seen.as_json(),
                "backups": [
                    {
                        "name": b.name,
                        "bytes": b.bytes,
                        "created_at": b.created_at,
                        "before": b.last_before,
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
        _show_status(seen, backups, holder)
    return seen.exit_code


def _with_its_problem(seen: Status, database: Path) -> Status:
    """Add what the running gateway says is wrong; warn if it is of another version."""
    from local_mcp_gateway.cli.client import (
        serving_problem,
        serving_status,
        warn_of_another_version,
    )

    serving = serving_status(database)
    warn_of_another_version(serving)
    problem = serving_problem(serving)
    if problem is None:
        return seen
    first = Problem(problem.code, problem.message, problem.hint)
    state = seen.state if seen.state == "damaged" else "refused"
    return replace(seen, state=state, problems=(first, *seen.problems))


def _show_status(seen: Status, backups: tuple[Backup, ...], holder: Holder | None) -> None:
    colour = {"current": "green", "new": "cyan", "pending": "yellow"}.get(seen.state, "red")
    counts = f", {len(seen.applied)} applied, {len(seen.pending)} pending"
    whole = ui.sentence(f"{seen.database}: {seen.state}{counts}")
    before, state, after = whole.rpartition(f"{seen.state},")
    click.echo(f"{before}{click.style(state[:-1], fg=colour, bold=True)},{after}")
    rows = [
        (
            "applied",
            entry.tag,
            entry.applied_at,
            None if entry.duration_ms is None else formats.duration(entry.duration_ms),
        )
        for entry in seen.applied
    ]
    rows += [
        ("pending", entry.migration.tag, None, formats.counted(entry.statements, "statement"))
        for entry in seen.pending
    ]
    if rows:
        ui.print_table(("STATE", "MIGRATION", "APPLIED AT", ""), rows)
    for applied in seen.applied:
        if applied.line_ends_differ:
            text = (
                f"{applied.tag}: only line ends or a byte order mark differ from what was applied."
            )
            ui.tell(text, mark="note     ")
    if seen.read_only:
        text = f"{seen.database} can only be read by this user: nothing can be applied to it."
        ui.tell(text, mark="note     ")
    for entry in seen.pending:
        for hazard in entry.hazards:
            ui.tell(f"{entry.migration.tag}: {hazard.message}", mark="hazard   ", fg="yellow")
    for problem in seen.problems:
        ui.tell(f"{problem.code}: {problem.message}", fg="red")
        ui.tell(problem.hint, mark="→ ")
    for difference in seen.drift:
        ui.tell(f"{difference.object}: {difference.kind}", mark="drift    ", fg="yellow")
    if seen.drift_hint is not None:
        ui.tell(seen.drift_hint, mark="→ ")
    newest = f"{len(backups)}, newest {backups[0].name}" if backups else "none"
    ui.tell(newest, mark="backups  ")
    held = f"held by process {holder.pid} since {holder.since}" if holder else "free"
    ui.tell(held, mark="lock     ")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the history as JSON.")
@click.pass_obj
def history(invocation: Invocation, *, as_json: bool) -> int:
    """Show what happened to this database, when, and by which version of the program."""
    from local_mcp_gateway.migrate import read_events  # --help does not pay for it

    events = read_events(invocation.database)
    if as_json:
        ui.print_json([event._asdict() for event in events])
    elif not events:
        ui.tell("Nothing has happened to this database yet.")
    else:
        ui.print_table(
            ("WHEN", "WHAT", "MIGRATION", "VERSION", "BACKUP"),
            [(e.applied_at, e.event, e.tag, e.program_version, e.backup) for e in events],
        )
    return Exit.OK
