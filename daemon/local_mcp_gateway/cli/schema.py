"""`db diff` compares two schemas; `db check` verifies the folder and the database."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.streams import print_data
from local_mcp_gateway.errors import Exit, GatewayError, Problem, SchemaProblem, UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.migrate import Folder, Status
    from local_mcp_gateway.schema import Difference, Hazard, Schema


WORDS = "`database`, `migrations`, `schema`"


def load_schema(invocation: Invocation, text: str, *, given: bool = True) -> Schema:
    """Return the schema of a source: a word, FOLDER@TAG, a file of any kind, or a dotted module.

    A word that is the name of a file or folder here means that one, unless the word is a default that
    was not `given`.

    Raises SchemaProblem, UsageProblem, or what opening a database or folder raises.
    """
    if text in _BUILTIN and not (given and Path(text).exists()):
        return _BUILTIN[text](invocation)
    name, at, tag = text.rpartition("@")
    if at and Path(name).is_dir():
        return _folder(invocation, Path(name), tag)
    if at and name == "migrations":
        return _folder(invocation, invocation.migrations, tag)
    path = Path(text)
    if path.is_dir():
        if (path / "meta" / "_journal.json").exists() or any(path.glob("*/migration.sql")):
            return _folder(invocation, path, None)
        return _sql(invocation, path)
    if path.is_file():
        return _file(invocation, path)
    if path.suffix in {".db", ".sqlite", ".sqlite3", ".sql", ".json", ".py"} or "/" in text:
        raise UsageProblem(
            f"There is no file {text}.",
            hint=f"Give a database, .sql, .py or snapshot file, FOLDER@TAG, a module, or {WORDS}.",
        )
    from local_mcp_gateway.schema import read_module  # may import SQLAlchemy

    return read_module(text, prepare=invocation.prepare)


def load_both(invocation: Invocation, old: str | None, new: str | None) -> tuple[Schema, Schema]:
    """Return two schemas to compare: by default the database and what the migrations make.

    If one is a snapshot, the other is reduced to what a snapshot can express: Drizzle's format has no
    STRICT, triggers or full-text tables, and these then count as no difference.
    """
    from local_mcp_gateway.schema import as_snapshots_see  # --help is fast

    if old is None:
        _require_not_original(invocation)
    before = load_schema(invocation, old or "database", given=old is not None)
    after = load_schema(invocation, new or "migrations", given=new is not None)
    snapshots = [
        text is not None and Path(text).suffix == ".json" and Path(text).is_file()
        for text in (old, new)
    ]
    if snapshots == [True, False]:
        return before, as_snapshots_see(after, prepare=invocation.prepare)
    if snapshots == [False, True]:
        return as_snapshots_see(before, prepare=invocation.prepare), after
    return before, after


def _require_not_original(invocation: Invocation) -> None:
    """Raise HistoryRefused for a database of the original: a diff of it would drop everything."""
    from local_mcp_gateway.database import reading
    from local_mcp_gateway.errors import HistoryRefused
    from local_mcp_gateway.migrate import find_original

    if _exists(invocation):
        with reading(invocation.database) as reader:
            original = find_original(reader)
        if original is not None:
            raise HistoryRefused([original.problem])


def _file(invocation: Invocation, path: Path) -> Schema:
    with os.fdopen(open_file(path), "rb") as handle:
        head = handle.read(16)
    if head == b"SQLite format 3\0":
        return _database(path)
    if path.suffix == ".py":
        from local_mcp_gateway.schema import read_module  # imports SQLAlchemy

        return read_module(str(path), prepare=invocation.prepare)
    if path.suffix == ".json":
        return _snapshot(invocation, path)
    if path.suffix == ".sql":
        return _sql(invocation, path)
    if not head:  # an empty file is an empty database
        return _database(path)
    raise SchemaProblem(
        f"{path} is not a database, .sql file, Python module or snapshot.",
        hint="Give one of these.",
    )


def _sql(invocation: Invocation, path: Path) -> Schema:
    from local_mcp_gateway.schema import read_sql

    return read_sql(path, prepare=invocation.prepare)


def _snapshot(invocation: Invocation, path: Path) -> Schema:
    from local_mcp_gateway.schema import read_snapshot

    try:
        found = parse_json(path.read_bytes())
    except ValueError as error:
        raise SchemaProblem(
            f"{path} is not valid JSON: {error}.", hint="Give a Drizzle snapshot."
        ) from None
    return read_snapshot(
        found if isinstance(found, dict) else {}, str(path), prepare=invocation.prepare
    )


def _database(path: Path) -> Schema:
    from local_mcp_gateway.database import has_content, reading
    from local_mcp_gateway.schema import Schema, inspect

    if not has_content(path):
        return Schema()
    with reading(path) as connection:
        return inspect(connection)


def _folder(invocation: Invocation, path: Path, tag: str | None) -> Schema:
    from local_mcp_gateway.errors import HistoryRefused
    from local_mcp_gateway.migrate import read_folder, schema_of

    folder = read_folder(path)
    if folder.problems:
        raise HistoryRefused(folder.problems)
    if tag is not None and tag not in {migration.tag for migration in folder.migrations}:
        raise UsageProblem(
            f"There is no migration `{tag}` in {path}.", hint="`db status` lists the tags."
        )
    return schema_of(folder, to=tag, prepare=invocation.prepare)


_BUILTIN: Mapping[str, Callable[[Invocation], Schema]] = {
    "database": lambda invocation: _database(invocation.database),
    "migrations": lambda invocation: _folder(invocation, invocation.migrations, None),
    "schema": lambda invocation: load_schema(invocation, invocation.settings.migrations.schema),
}

_SOURCES = (
    "a database, .sql, .py or snapshot file, FOLDER@TAG, a module, or database|migrations|schema"
)


@click.command()
@click.option("--from", "old", show_default="database", help=f"What to compare: {_SOURCES}.")
@click.option(
    "--to", "new", show_default="migrations", help="What to compare it with: the same kinds."
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
    old: str | None,
    new: str | None,
    form: str | None,
    as_json: bool,
    renames: tuple[str, ...],
) -> int:
    """Compare two schemas: exit 0 if they are the same, 3 if they differ.

    Without options the database is compared with the schema that the migrations folder makes. A snapshot
    cannot express everything (STRICT, triggers, full-text tables): then only the rest is compared.
    """
    from local_mcp_gateway.schema import (
        compare,  # --help does not pay for it
        make_plan,
        parse_renames,
    )

    before, after = load_both(invocation, old, new)
    old, new = old or "database", new or "migrations"
    differences = compare(after, before)
    form = "json" if as_json else form or ("table" if sys.stdout.isatty() else "sql")
    if form == "table":
        _show_differences(differences, old, new)
    else:
        decided = parse_renames(renames, before, after)
        plan = make_plan(before, after, renames=decided, prepare=invocation.prepare)
        if form == "sql":
            for hazard in plan.hazards:
                click.secho(f"! {hazard.message}", fg="yellow", err=True)
            for statement in plan.statements:
                print_data(f"{statement};")
        else:
            ui.print_json(
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
    ui.print_table(
        ("what", "which", f"in {old}", f"in {new}"),
        [(d.kind.replace("_", " "), d.object, d.found, d.expected) for d in differences],
    )


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
    the full integrity check, and whether every view, trigger and foreign key compiles. Exit 0 fine,
    3 something differs, 6 damaged, 8 refused.
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
    elif seen.state != "damaged" and _exists(invocation):
        problems += _cannot_run(invocation, folder)
    warnings = [problem for problem in found.warnings if problem not in problems]
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
        _show_check(problems, warnings, seen, shown, waiting)
    return code


def _write_snapshots(invocation: Invocation, folder: Folder) -> None:
    from local_mcp_gateway.errors import HistoryRefused
    from local_mcp_gateway.migrate import rewrite_snapshots

    if folder.problems:
        raise HistoryRefused(folder.problems)
    for tag in rewrite_snapshots(folder, every=True, prepare=invocation.prepare):
        click.echo(f"The snapshot of {tag} was written again from the migrations.", err=True)


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


def _exit_code(*, damaged: bool, refused: bool, differs: bool) -> Exit:
    if damaged:
        return Exit.DAMAGED
    if refused:
        return Exit.REFUSED
    return Exit.DIFFERS if differs else Exit.OK


def _show_check(
    problems: Sequence[Problem],
    warnings: Sequence[Problem],
    seen: Status,
    hazards: Sequence[str],
    pending: Sequence[str],
) -> None:
    for colour, found in (("red", problems), ("yellow", warnings)):
        for problem in found:
            click.secho(problem.message, fg=colour)
            click.echo(f"→ {problem.hint}")
    for difference in seen.drift:
        click.secho(f"Changed by hand: {difference}.", fg="yellow")
    if seen.drift_hint is not None:
        click.echo(f"→ {seen.drift_hint}")
    for hazard in hazards:
        click.secho(hazard, fg="yellow")
    if pending:
        count = formats.counted(len(pending), "migration")
        click.secho(f"{count} pending: {', '.join(pending)}.", fg="yellow")
        click.echo("→ Apply with `db migrate`.")
    if not (problems or warnings or seen.drift or pending):
        click.secho("Folder and database are fine.", fg="green")
