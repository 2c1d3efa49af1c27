"""`db diff` and `db pull`: compare two schemas, or write one as a source; and where a schema is read from."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.streams import print_data
from local_mcp_gateway.errors import Exit, SchemaProblem, UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.schema import Difference, Schema


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
    from local_mcp_gateway.database import has_content, reading
    from local_mcp_gateway.errors import HistoryRefused
    from local_mcp_gateway.migrate import find_original

    if has_content(invocation.database):
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
                ui.tell(hazard.message, mark="! ", fg="yellow", err=True)
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
        ui.tell("The two are the same.")
        return
    ui.print_table(
        ("what", "which", f"in {old}", f"in {new}"),
        [(d.kind.replace("_", " "), d.object, d.found, d.expected) for d in differences],
    )


# --- pulling ------------------------------------------------------------------------------------


@click.command()
@click.option(
    "--from", "source", default="database", show_default=True, help="What to pull, as in `db diff`."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write it: a .sql file, or a .py module with SQLAlchemy MetaData [default: print the SQL].",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.pass_obj
def pull(invocation: Invocation, *, source: str, output: Path | None, force: bool) -> int:
    """Write the schema of the database as SQL, or as a Python module with SQLAlchemy MetaData.

    The result is read back before it is written, and makes exactly the same schema: `db generate --schema FILE`
    goes on from it. In a module, what SQLAlchemy cannot express (views, triggers, full-text tables) stays SQL.
    """
    from local_mcp_gateway.migrate import replace_durably  # --help does not pay for it
    from local_mcp_gateway.schema import pull_module, pull_sql

    suffix = ".sql" if output is None else output.suffix
    if suffix not in (".sql", ".py"):
        raise UsageProblem(
            f"{output} is neither a .sql nor a .py file.", hint="Name it with one of these."
        )
    if output is not None and output.exists() and not force:
        raise UsageProblem(
            f"{output} is there already.", hint="Give another name, or --force to replace it."
        )
    schema = load_schema(invocation, source, given=source != "database")
    if not schema:
        raise SchemaProblem(
            "There is no table to pull.", hint="Name a database with a schema (`--database FILE`)."
        )
    text = (pull_sql if suffix == ".sql" else pull_module)(schema, prepare=invocation.prepare)
    if output is None:
        print_data(text.rstrip("\n"))
        return Exit.OK
    replace_durably(output, text.encode())
    ui.tell(
        f"{output} makes the schema of {invocation.database if source == 'database' else source}."
    )
    return Exit.OK
