"""`db generate` and `db squash`: write the next migration from a changed schema, or one instead of many."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import confirm
from local_mcp_gateway.cli.schema import load_schema
from local_mcp_gateway.errors import Exit, NotConfirmed, UsageProblem
from local_mcp_gateway.formats import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.migrate import Draft, Folder, Squash, WrittenMigration
    from local_mcp_gateway.schema import Candidate, Renames, Schema


@click.command()
@click.option("--name", help="Name of the migration [default: derived from the change].")
@click.option("--empty", is_flag=True, help="Write an empty migration to fill in by hand.")
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="OLD=NEW",
    help="A rename: table.old=table.new, or old_table=new_table. Can be repeated.",
)
@click.option(
    "--no-renames", is_flag=True, help="Treat every possible rename as a drop and an add."
)
@click.option(
    "--fill",
    "fills",
    multiple=True,
    metavar="TABLE.COLUMN=SQL",
    help="Value of a new NOT NULL column for existing rows. Can be repeated.",
)
@click.option("--schema", show_default="the setting migrations.schema", help="The desired schema.")
@click.option("--check", is_flag=True, help="Write nothing; exit 3 if a migration is missing.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the SQL, its hazards and possible renames; write nothing.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Write a migration that deletes data, or that the guard refuses, without asking.",
)
@ui.as_json_option
@click.pass_obj
def generate(
    invocation: Invocation,
    *,
    name: str | None,
    empty: bool,
    renames: tuple[str, ...],
    no_renames: bool,
    fills: tuple[str, ...],
    schema: str | None,
    check: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Write the next migration: SQL, down migration, snapshot and journal entry.

    The schema is a Python module with SQLAlchemy MetaData, a .sql file or folder, a snapshot or a
    database. If nothing changed, exit 0 and write nothing. Renames are never guessed: on a terminal you
    are asked, elsewhere they must be given (exit 2).
    """
    from local_mcp_gateway.migrate import generate as flow  # --help does not pay for it
    from local_mcp_gateway.schema import candidates, compare, parse_renames, slug

    folder = flow.open_folder(invocation.migrations)
    base = flow.schema_of(folder, prepare=invocation.prepare)
    if empty:
        flow.rewrite_snapshots(folder, prepare=invocation.prepare)
        return _report(_write_empty(folder, base, slug(name or "custom")), None, as_json=as_json)
    target = load_schema(invocation, schema or invocation.settings.migrations.schema)
    decided = parse_renames(renames, base, target)
    differences = compare(target, base)
    if check and differences:
        return _say_missing([str(difference) for difference in differences], as_json=as_json)
    if check or not (differences or renames):
        _say_nothing_to_do(folder, check=check, as_json=as_json)
        return Exit.OK
    undecided = candidates(base, target, decided) if dry_run and not no_renames else ()
    decided = _decide(base, target, decided, no_renames=no_renames or dry_run, as_json=as_json)
    made = flow.draft(
        base,
        target,
        decided,
        _parse_fills(fills, target),
        name=slug(name) if name else None,
        first=not folder.migrations,
        prepare=invocation.prepare,
    )
    made = _judged(invocation, _weighed(invocation, made))
    if dry_run:
        return _preview(made, undecided, as_json=as_json)
    _confirm(made, yes=yes, as_json=as_json)
    for tag in flow.rewrite_snapshots(folder, prepare=invocation.prepare):
        ui.tell(f"The snapshot of {tag} was written again from the migrations.", err=True)
    return _report(flow.write(folder, made), made, as_json=as_json)


def _write_empty(folder: Folder, base: Schema, name: str) -> WrittenMigration:
    from local_mcp_gateway.migrate import next_snapshot, write_migration

    text = "-- Write SQL here. Statements may be separated by `--> statement-breakpoint`.\n"
    return write_migration(folder, name, text, down=None, snapshot=next_snapshot(folder, base))


def _say_nothing_to_do(folder: Folder, *, check: bool, as_json: bool) -> None:
    if as_json and check:
        ui.print_json({"missing": []})
    elif as_json:
        ui.print_json({"tag": None, "files": [], "statements": [], "hazards": []})
    else:
        ui.tell(f"Nothing to do: {folder.path} already makes this schema.")


def _say_missing(differences: Sequence[str], *, as_json: bool) -> int:
    if as_json:
        ui.print_json({"missing": list(differences)})
    else:
        ui.tell("A migration is missing:")
        for difference in differences:
            ui.tell(f"  {difference}")
        ui.tell("Write it with `db generate`.", mark="→ ", err=True)
    return Exit.DIFFERS


def _decide(
    base: Schema, target: Schema, decided: Renames, *, no_renames: bool, as_json: bool
) -> Renames:
    """Have every possible rename decided, by options or by asking on a terminal."""
    from local_mcp_gateway.schema import candidates

    open_questions = candidates(base, target, decided)
    if no_renames or not open_questions:
        return decided
    if as_json or not sys.stdin.isatty():
        raise UsageProblem(
            "Renamed, or dropped and added? " + ", ".join(map(str, open_questions)) + ".",
            hint="Use --rename for each rename, and --no-renames for the rest.",
            candidates=[str(candidate) for candidate in open_questions],
        )
    dropped: set[tuple[str | None, str]] = set()
    while open_questions:
        first = open_questions[0]
        choices = [c for c in open_questions if (c.table, c.old) == (first.table, first.old)]
        chosen = _ask(choices)
        if chosen is None:
            dropped.add((first.table, first.old))
        else:
            decided = decided.with_(chosen)
        open_questions = tuple(
            c for c in candidates(base, target, decided) if (c.table, c.old) not in dropped
        )
    return decided


def _ask(choices: Sequence[Candidate]) -> Candidate | None:
    """Ask what became of one table or column; None if it is dropped."""
    thing = (
        f"column {choices[0].table}.{choices[0].old}"
        if choices[0].table
        else f"table {choices[0].old}"
    )
    ui.tell(f"The {thing} is not there any more. Was it renamed or dropped?", err=True)
    ui.tell("  0  it is dropped, with its data", err=True)
    for number, choice in enumerate(choices, 1):
        ui.tell(f"  {number}  it is now {choice.new}", err=True)
    number = click.prompt("Number", type=click.IntRange(0, len(choices)), err=True)
    return choices[number - 1] if number else None


def _parse_fills(texts: Sequence[str], target: Schema) -> dict[tuple[str, str], str]:
    from local_mcp_gateway.sql import fold

    fills: dict[tuple[str, str], str] = {}
    for text in texts:
        place, mark, expression = text.partition("=")
        table, dot, column = place.rpartition(".")
        known = target.tables.get(fold(table))
        if not mark or not dot or known is None or fold(column) not in known.columns:
            raise UsageProblem(
                f"--fill {text} does not name a column of the schema.",
                hint="Write it like --fill users.age=0 or --fill \"users.kind='x'\".",
            )
        fills[fold(table), fold(column)] = expression
    return fills


def _weighed(invocation: Invocation, made: Draft) -> Draft:
    """Add what each rebuild costs on the configured database, if there is one."""
    from local_mcp_gateway.database import has_content, reading
    from local_mcp_gateway.schema import rebuild_cost

    database = invocation.database
    if not made.plan.rebuilds or not has_content(database):
        return made
    with reading(database) as connection:
        invocation.prepare(connection)
        hazards = rebuild_cost(made.plan.hazards, connection)
    return replace(made, plan=replace(made.plan, hazards=hazards))


def _judged(invocation: Invocation, made: Draft) -> Draft:
    """Leave out the hazards that the policy ignores, and mark those that the guard would refuse."""
    from local_mcp_gateway.service import guard_policy

    severity = guard_policy(invocation.settings).severity
    hazards = tuple(one for one in made.plan.hazards if severity(one.kind) != "ignore")
    refused = tuple(one for one in hazards if severity(one.kind) == "refuse")
    return replace(made, plan=replace(made.plan, hazards=hazards), refused=refused)


def _confirm(made: Draft, *, yes: bool, as_json: bool) -> None:
    """Show the hazards; ask before writing a migration that deletes data, or that the guard refuses."""
    for hazard in made.plan.hazards:
        ui.tell(hazard.message, mark="! ", fg="yellow", err=True)
    if made.no_down:
        ui.tell(f"No down migration could be derived: {made.no_down}.", err=True)
    if not (made.deletes or made.refused) or yes:
        return
    kinds = ", ".join(sorted({hazard.kind for hazard in made.refused}))
    if kinds:
        ui.tell(f"The guard refuses {kinds} unless the file accepts it, as it then will.", err=True)
    if as_json or not sys.stdin.isatty() or not click.confirm("Write it?", default=False, err=True):
        why = "the migration deletes data" if made.deletes else f"the guard refuses {kinds}"
        raise NotConfirmed(
            f"Nothing was written: {why}.",
            hint="Run it again with --yes, or with --rename if it is a rename.",
        )


def _preview(made: Draft, undecided: Sequence[Candidate], *, as_json: bool) -> int:
    """Print what would be written; a possible rename that nobody decided counts as a drop and an add."""
    if as_json:
        ui.print_json(
            {
                "name": made.name,
                "statements": list(made.plan.statements),
                "hazards": [asdict(hazard) for hazard in made.plan.hazards],
                "renames": list(map(str, undecided)),
                "deletes": made.deletes,
                "refused": sorted({hazard.kind for hazard in made.refused}),
                "no_down": made.no_down,
            }
        )
        return Exit.DIFFERS
    for hazard in made.plan.hazards:
        ui.tell(hazard.message, mark="! ", fg="yellow", err=True)
    for candidate in undecided:
        ui.tell(f"Renamed, or dropped and added: --rename {candidate}", mark="? ", err=True)
    for statement in made.plan.statements:
        click.echo(f"{statement};")
    return Exit.DIFFERS


def _report(written: WrittenMigration, made: Draft | None, *, as_json: bool) -> int:
    if as_json:
        ui.print_json(
            {
                "tag": written.tag,
                "files": [str(file) for file in written.files],
                "statements": list(made.plan.statements) if made else [],
                "hazards": [asdict(hazard) for hazard in made.plan.hazards] if made else [],
            }
        )
        return Exit.OK
    for file in written.files:
        click.echo(str(file))
    if made:
        click.echo()
        for statement in made.plan.statements:
            click.echo(f"{statement};")
    return Exit.OK


@click.command()
@click.option(
    "--to",
    metavar="TAG",
    shell_complete=complete.tags,
    help="The last migration to squash [default: the newest].",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
@click.pass_obj
def squash(
    invocation: Invocation, *, to: str | None, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Replace the first migrations, up to and with TAG, by one that makes the same schema and rows.

    Both are replayed and compared before anything is written. A database that has the old ones applies
    nothing, a new one applies the new one. The old ones are kept in meta/_squashed: a database that has
    some of them applies the rest from there. The folder is replaced in one step; version control undoes
    it, until a new database is made from it.
    """
    from local_mcp_gateway.migrate import draft_squash, write_squash

    made = draft_squash(invocation.migrations, to=to, prepare=invocation.prepare)
    if made is not None and not as_json:
        _show_squash(made, dry_run=dry_run)
    if made is not None and not dry_run:
        confirm(f"Replace {counted(len(made.replaced), 'migration')} by this one?", yes=yes)
        write_squash(made)
    if as_json:
        ui.print_json(
            {
                "tag": made and made.tag,
                "squashed": [migration.tag for migration in made.replaced] if made else [],
                "files": [str(file) for file in made.files] if made else [],
                "carried": made and made.carried,
                "sql": made and made.sql,
                "written": made is not None and not dry_run,
            }
        )
    elif made is None:
        where = invocation.migrations if to is None else f"{invocation.migrations} up to {to}"
        ui.tell(f"Nothing to squash: there are no two migrations in {where}.")
    elif not dry_run:
        ui.tell(
            f"{len(made.replaced)} migrations are one now ({counted(made.statements, 'statement')})."
            " Keep meta/_squashed for databases that have some of them; version control has the old"
            " folder."
        )
    return Exit.OK


def _show_squash(made: Squash, *, dry_run: bool) -> None:
    if made.carried is not None:
        ui.tell(
            f"Every statement is carried over as it was: with the result alone, {made.carried}.",
            err=True,
        )
    for file in made.files:
        click.echo(str(file))
    if dry_run:
        click.echo()
        click.echo(made.sql, nl=False)
