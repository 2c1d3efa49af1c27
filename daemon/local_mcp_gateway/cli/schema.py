"""`db diff` and `db check`: one schema against another, and the folder against everything."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.cli.schema_sources import load_both, prepare
from local_mcp_gateway.errors import Exit, GatewayError, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.schema import Difference
    from local_mcp_gateway.schema.hazard import Hazard

_SOURCES = (
    "a database, .sql, .py or snapshot file, FOLDER@TAG, a module, or database|migrations|schema"
)


@click.command()
@click.option(
    "--from", "old", default="database", show_default=True, help=f"The one side: {_SOURCES}."
)
@click.option(
    "--to", "new", default="migrations", show_default=True, help="The other side, likewise."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "sql", "json"]),
    help="Default: a table on a terminal, else the SQL that turns the one side into the other.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--rename", "renames", multiple=True, metavar="OLD=NEW", help="As in `db generate`.")
@click.pass_obj
def diff(
    invocation: Invocation,
    *,
    old: str,
    new: str,
    form: str | None,
    as_json: bool,
    renames: tuple[str, ...],
) -> int:
    """Compare two schemas: exit 0 if they are the same, 3 if they differ.

    Without options the database is compared with what the migrations folder makes. A snapshot cannot
    say everything (STRICT, triggers, full-text tables): beside one, only what it can say is compared.
    """
    from local_mcp_gateway.schema import compare  # noqa: PLC0415  --help does not pay for it
    from local_mcp_gateway.schema.plan import make_plan  # noqa: PLC0415
    from local_mcp_gateway.schema.renames import parse_renames  # noqa: PLC0415

    before, after = load_both(invocation, old, new)
    differences = compare(after, before)
    form = "json" if as_json else form or ("table" if sys.stdout.isatty() else "sql")
    if form == "table":
        _show_differences(differences, old, new)
    else:
        plan = make_plan(before, after, renames=parse_renames(renames, before, after))
        if form == "sql":
            for hazard in plan.hazards:
                click.secho(f"! {hazard.message}", fg="yellow", err=True)
            for statement in plan.statements:
                click.echo(f"{statement};")
        else:
            render.print_json(
                {
                    "from": old,
                    "to": new,
                    "differences": [asdict(difference) for difference in differences],
                    "statements": list(plan.statements),
                    "hazards": [asdict(hazard) for hazard in plan.hazards],
                }
            )
    return Exit.DIFFERS if differences else Exit.OK


def _show_differences(differences: tuple[Difference, ...], old: str, new: str) -> None:
    if not differences:
        click.echo("The two are the same.")
        return
    render.print_table(
        ("what", "which", f"in {old}", f"in {new}"),
        [(d.kind.replace("_", " "), d.object, d.found, d.expected) for d in differences],
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def check(invocation: Invocation, *, as_json: bool) -> int:
    """Check folder and database against each other, thoroughly; writes nothing.

    Journal and files, numbers used twice, snapshots, ways back, hazards, hashes, drift and the full
    integrity check. Exit 0 fine, 3 something differs, 6 damaged, 8 refused.
    """
    from local_mcp_gateway.guard.status import get_status  # noqa: PLC0415  --help does not pay for it
    from local_mcp_gateway.migrate.check import check_folder  # noqa: PLC0415
    from local_mcp_gateway.migrate.folder import read_folder  # noqa: PLC0415

    found = check_folder(read_folder(invocation.migrations), prepare=prepare(invocation))
    functions = invocation.settings.migrations.functions
    seen = get_status(invocation.database, invocation.migrations, functions=functions)
    known = {(problem.code, problem.tag) for problem in found.problems}
    problems = [
        *found.problems,
        *(problem for problem in seen.problems if (problem.code, problem.tag) not in known),
    ]
    damage = _damage(invocation) if seen.state != "damaged" else None
    if damage is not None:
        problems.insert(0, damage)
    code = _exit_code(
        damaged=damage is not None or seen.state == "damaged",
        refused=bool(problems),
        differs=bool(found.warnings or seen.drift or (seen.pending and _exists(invocation))),
    )
    pending = {entry.migration.tag for entry in seen.pending} if _exists(invocation) else set()
    hazards = _weighed(invocation, found.hazards, pending)
    if as_json:
        render.print_json(
            {
                "database": str(invocation.database),
                "migrations": str(invocation.migrations),
                "problems": [asdict(problem) for problem in problems],
                "warnings": [asdict(problem) for problem in found.warnings],
                "hazards": [{"tag": tag, **asdict(hazard)} for tag, hazard in hazards],
                "pending": [pending.migration.tag for pending in seen.pending],
                "drift": [asdict(difference) for difference in seen.drift],
            }
        )
    else:
        # Without a database, as in CI, every migration may still be waiting somewhere.
        shown = [
            (f"Pending: {hazard.message}" if pending else f"{tag}: {hazard.message}")
            for tag, hazard in hazards
            if tag in pending or not _exists(invocation)
        ]
        _show_check(problems, found.warnings, seen.drift, shown)
    return code


def _exists(invocation: Invocation) -> bool:
    """Tell whether there is a database; one that is not there yet has nothing to lose and nothing to miss."""
    database = invocation.database
    return database.is_file() and database.stat().st_size > 0


def _weighed(
    invocation: Invocation, hazards: Sequence[tuple[str, Hazard]], pending: Collection[str]
) -> list[tuple[str, Hazard]]:
    """Say what the rebuilds of pending migrations cost on this database; nothing is lost in a new one."""
    from local_mcp_gateway.database.connections import reading  # noqa: PLC0415
    from local_mcp_gateway.schema.weight import weigh  # noqa: PLC0415

    if not pending:
        return list(hazards)
    with reading(invocation.database) as connection:
        return [
            (tag, weigh([hazard], connection)[0] if tag in pending else hazard)
            for tag, hazard in hazards
        ]


def _damage(invocation: Invocation) -> Problem | None:
    """Run SQLite's full integrity check; a database that is not there yet is whole."""
    from local_mcp_gateway.database.connections import reading  # noqa: PLC0415
    from local_mcp_gateway.database.integrity import full_check  # noqa: PLC0415

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


def _exit_code(*, damaged: bool, refused: bool, differs: bool) -> Exit:
    if damaged:
        return Exit.DAMAGED
    if refused:
        return Exit.REFUSED
    return Exit.DIFFERS if differs else Exit.OK


def _show_check(
    problems: Sequence[Problem],
    warnings: Sequence[Problem],
    drift: Sequence[Difference],
    hazards: Sequence[str],
) -> None:
    for colour, found in (("red", problems), ("yellow", warnings)):
        for problem in found:
            click.secho(problem.message, fg=colour)
            click.echo(f"→ {problem.hint}")
    for difference in drift:
        click.secho(f"Changed by hand: {difference}.", fg="yellow")
    for hazard in hazards:
        click.secho(hazard, fg="yellow")
    if not (problems or warnings or drift):
        click.secho("Folder and database are fine.", fg="green")
