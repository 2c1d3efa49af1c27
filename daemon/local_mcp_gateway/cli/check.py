"""`db check` verifies the folder and the database against each other, for CI."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import ui
from local_mcp_gateway.errors import Exit, GatewayError, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.migrate import Folder, Status
    from local_mcp_gateway.schema import Hazard


@click.command()
@click.option(
    "--write-snapshots",
    is_flag=True,
    help="First write each snapshot of Drizzle's that is missing or wrong from the migrations.",
)
@ui.as_json_option
@click.pass_obj
def check(invocation: Invocation, *, write_snapshots: bool, as_json: bool) -> int:
    """Check folder and database against each other, thoroughly; without options it writes nothing.

    Checks the journal and files, duplicate numbers, snapshots, down migrations, hazards, hashes, drift,
    the full integrity check, whether every view, trigger, full-text table and foreign key compiles, and
    up to `[guard] full_check_limit_bytes` whether full-text tables have the words of their rows:
    above it, those that were not compared are named.
    Exit 0 fine, 3 something differs, 6 damaged, 8 refused.
    """
    from local_mcp_gateway.guard import get_status  # --help does not pay for it
    from local_mcp_gateway.migrate import check_folder, read_folder

    folder = read_folder(invocation.migrations)
    if write_snapshots:
        _write_snapshots(invocation, folder)
    found = check_folder(folder, prepare=invocation.prepare)
    seen = get_status(
        invocation.database,
        invocation.migrations,
        backup_folder=invocation.settings.backup_folder,
        prepare=invocation.prepare,
    )
    known = {(problem.code, problem.tag) for problem in found.problems}
    problems = [
        *found.problems,
        *(problem for problem in seen.problems if (problem.code, problem.tag) not in known),
    ]
    damage = _damage(invocation) if seen.state != "damaged" else None
    if damage is not None:
        problems.insert(0, damage)
    warnings = list(found.warnings)
    not_compared: list[str] = []
    if damage is None and seen.state != "damaged" and _exists(invocation):
        problems += _cannot_run(invocation, folder)
        out_of_step, not_compared = _out_of_step(invocation)
        warnings += out_of_step
    warnings = [problem for problem in warnings if problem not in problems]
    code = _exit_code(
        damaged=damage is not None or seen.state == "damaged",
        refused=bool(problems),
        differs=bool(warnings or seen.drift or (seen.pending and _exists(invocation))),
    )
    pending = {entry.migration.tag for entry in seen.pending} if _exists(invocation) else set()
    hazards = _weighed(invocation, found.hazards, pending)
    if as_json:
        ui.print_json(
            {
                "database": str(invocation.database),
                "migrations": str(invocation.migrations),
                "problems": [asdict(problem) for problem in problems],
                "warnings": [asdict(problem) for problem in warnings],
                "hazards": [{"tag": tag, **asdict(hazard)} for tag, hazard in hazards],
                "pending": [pending.migration.tag for pending in seen.pending],
                "drift": [asdict(difference) for difference in seen.drift],
                "applied_by_hand": seen.applied_by_hand,
                "not_compared": not_compared,
            }
        )
    else:
        # Without a database, as in CI, every migration may still be pending somewhere.
        shown = [
            (f"Pending: {hazard.message}" if pending else f"{tag}: {hazard.message}")
            for tag, hazard in hazards
            if tag in pending or not _exists(invocation)
        ]
        waiting = [entry.migration.tag for entry in seen.pending if entry.migration.tag in pending]
        if not_compared:
            _show_not_compared(not_compared, invocation.settings.guard.full_check_limit_bytes)
        _show_check(problems, warnings, seen, shown, waiting, all_compared=not not_compared)
    return code


def _write_snapshots(invocation: Invocation, folder: Folder) -> None:
    from local_mcp_gateway.errors import HistoryRefused
    from local_mcp_gateway.migrate import rewrite_snapshots

    if folder.problems:
        raise HistoryRefused(folder.problems)
    for tag in rewrite_snapshots(folder, every=True, prepare=invocation.prepare):
        ui.tell(f"The snapshot of {tag} was written again from the migrations.", err=True)


def _exists(invocation: Invocation) -> bool:
    """Tell whether the database exists; a missing one has nothing to lose."""
    from local_mcp_gateway.database import has_content

    return has_content(invocation.database)


def _weighed(
    invocation: Invocation, hazards: Sequence[tuple[str, Hazard]], pending: Collection[str]
) -> list[tuple[str, Hazard]]:
    """Add what the rebuilds of pending migrations cost on this database; a new one loses nothing."""
    from local_mcp_gateway.database import reading
    from local_mcp_gateway.schema import rebuild_cost

    if not pending:
        return list(hazards)
    with reading(invocation.database) as connection:
        invocation.prepare(connection)
        return [
            (tag, rebuild_cost([hazard], connection)[0] if tag in pending else hazard)
            for tag, hazard in hazards
        ]


def _damage(invocation: Invocation) -> Problem | None:
    """Run SQLite's full integrity check; a missing database passes."""
    from local_mcp_gateway.database import full_check, reading

    database = invocation.database
    if not _exists(invocation):
        return None
    try:
        with reading(database) as connection:
            full_check(connection, database)
    except GatewayError as error:
        if error.exit_code != Exit.DAMAGED:
            raise
        return Problem(error.code, error.message, error.hint)
    return None


def _cannot_run(invocation: Invocation, folder: Folder) -> list[Problem]:
    """Compile every view, trigger and foreign key of the database: a migration may have broken one."""
    from local_mcp_gateway.database import reading
    from local_mcp_gateway.migrate import cannot_run

    with reading(invocation.database) as connection:
        invocation.prepare(connection)
        return cannot_run(connection, folder)


def _out_of_step(invocation: Invocation) -> tuple[list[Problem], list[str]]:
    """Compare full-text tables with their rows; return what is wrong, and the tables not compared.

    A database can be too large for a copy in memory.
    """
    from local_mcp_gateway.database import database_bytes, reading
    from local_mcp_gateway.migrate import full_text_tables, out_of_step

    limit = invocation.settings.guard.full_check_limit_bytes
    with reading(invocation.database) as connection:
        if database_bytes(invocation.database) > limit:
            return [], full_text_tables(connection)
        return out_of_step(connection, prepare=invocation.prepare), []


def _exit_code(*, damaged: bool, refused: bool, differs: bool) -> Exit:
    if damaged:
        return Exit.DAMAGED
    if refused:
        return Exit.REFUSED
    return Exit.DIFFERS if differs else Exit.OK


def _show_not_compared(tables: Sequence[str], limit: int) -> None:
    *others, last = tables
    named = f"tables {', '.join(others)} and {last} were" if others else f"table {last} was"
    ui.tell(f"The full-text {named} not compared with the rows.", fg="yellow")
    ui.tell(
        f"That is done in databases of up to {limit} bytes: `[guard] full_check_limit_bytes`.",
        mark="→ ",
    )


def _show_check(
    problems: Sequence[Problem],
    warnings: Sequence[Problem],
    seen: Status,
    hazards: Sequence[str],
    pending: Sequence[str],
    *,
    all_compared: bool,
) -> None:
    for colour, found in (("red", problems), ("yellow", warnings)):
        for problem in found:
            ui.tell(problem.message, fg=colour)
            ui.tell(problem.hint, mark="→ ")
    for difference in seen.drift:
        ui.tell(f"Changed by hand: {difference}.", fg="yellow")
    if seen.drift_hint is not None:
        ui.tell(seen.drift_hint, mark="→ ")
    for hazard in hazards:
        ui.tell(hazard, fg="yellow")
    if pending:
        count = formats.counted(len(pending), "migration")
        ui.tell(f"{count} pending: {', '.join(pending)}.", fg="yellow")
        ui.tell("Apply with `db migrate`.", mark="→ ")
    if not (problems or warnings or seen.drift or pending):
        ui.tell(f"Folder and database are fine{'' if all_compared else ' otherwise'}.", fg="green")
