"""Check a migrations folder for CI (`db check`), without any database.

`folder` compares the journal with the files, and `resolve` finds numbers used twice. This checks the
chain of snapshots, each snapshot against the replay (as far as a snapshot can say it), each down file on
a replay in memory, double-quoted strings, and the hazards of every migration.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.database import open_scratch
from local_mcp_gateway.errors import (
    GatewayError,
    HistoryRefused,
    Problem,
    ProblemCode,
    SchemaProblem,
)
from local_mcp_gateway.migrate.apply import Observer
from local_mcp_gateway.migrate.branches import find_collisions, ids_before, read_graph
from local_mcp_gateway.migrate.broken import find_broken
from local_mcp_gateway.migrate.double_quotes import double_quoted
from local_mcp_gateway.migrate.folder import SQUASHED, down_text
from local_mcp_gateway.migrate.folder_edits import read_snapshot_file, snapshot_file, with_snapshots
from local_mcp_gateway.migrate.generate import schema_at
from local_mcp_gateway.migrate.outcome import SEEDS, outcome_of
from local_mcp_gateway.migrate.replay import extend, replay
from local_mcp_gateway.migrate.squashed import squash_of
from local_mcp_gateway.migrate.statements import Statement, accepted, expand_alter_column, split
from local_mcp_gateway.migrate.verify import read_objects
from local_mcp_gateway.schema import (
    FIRST,
    Difference,
    Schema,
    as_snapshots_see,
    compare,
    hazards_of,
    inspect,
    kept_instead,
    read_snapshot,
    schema_copy,
)
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.schema import Hazard, Prepare

SNAPSHOT = "snapshot"
DOWN = "down"
FAILS = "fails"
CANNOT_RUN = "cannot_run"
OUT_OF_STEP = "out_of_step"
SQUASH = "squash"


@dataclass(frozen=True, slots=True)
class Checked:
    """The findings: `warnings` are for a person to review, `problems` have to be fixed."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    hazards: tuple[tuple[str, Hazard], ...]
    """(tag, hazard) of every migration after the first."""


def check_folder(folder: Folder, *, prepare: Prepare | None = None) -> Checked:
    """Check a folder as it is; nothing raises for what is in it."""
    problems = [*folder.problems, *_unjournaled(folder)]
    warnings: list[Problem] = []
    hazards: list[tuple[str, Hazard]] = []
    if folder.is_v1:
        warnings += _parents(folder)
        problems += find_collisions(folder, prepare=prepare)
    else:
        warnings += _chain(folder)
    before = Schema()
    snapshots = _Snapshots(folder, prepare)
    with replay((), prepare=prepare) as connection:
        for at, migration in enumerate(folder.migrations):
            kept = [kept for text in migration.texts if (kept := kept_instead(connection, text))]
            try:
                texts = extend(connection, migration, _QuotesWarner(warnings)).texts
            except GatewayError as error:
                problems.append(Problem(FAILS, error.message, error.hint, migration.tag))
                break
            after = inspect(connection)
            if at:
                found = (*kept, *hazards_of(texts, before, after))
                hazards += [(migration.tag, hazard) for hazard in found]
            warnings += snapshots.check(migration, after)
            warnings += _way_back(migration, before, after, prepare)
            before = after
        warnings += cannot_run(connection, folder)
    if (problem := _squash(folder, prepare)) is not None:
        warnings.append(problem)
    return Checked(tuple(problems), tuple(warnings), tuple(hazards))


def cannot_run(connection: sqlite3.Connection, folder: Folder) -> list[Problem]:
    """Return what SQLite accepts but cannot run in a database: views, triggers, foreign keys.

    What a migration of the folder accepts is left out.
    """
    accepts = {one for migration in folder.migrations for one in migration.directives.accept}
    return [
        Problem(
            CANNOT_RUN,
            f"{broken.sentence}.",
            "SQLite says so only when it is used: write a migration that fixes or drops it.",
        )
        for broken in find_broken(connection)
        if accepted(CANNOT_RUN, broken.name) not in accepts
    ]


def out_of_step(connection: sqlite3.Connection, *, prepare: Prepare | None = None) -> list[Problem]:
    """Return the full-text tables that have not indexed what their rows say.

    SQLite compares them only in a statement that may write, so that runs on a copy in memory.
    """
    checks = _full_text_checks(connection)
    if not checks:
        return []
    found = []
    with closing(open_scratch()) as copy:
        connection.backup(copy)
        if prepare is not None:
            prepare(copy)
        for name, check in checks.items():
            try:
                copy.execute(f"INSERT INTO {quote(name)} {check % quote(name)}")
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
                    found.append(_out_of_step(quote(name)))
    return found


def full_text_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the tables that `out_of_step` compares."""
    return list(_full_text_checks(connection))


def _full_text_checks(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the end of the INSERT that compares each full-text table with its rows, by its name."""
    shadows = {
        fold(name)
        for (name,) in connection.execute(
            "SELECT name FROM pragma_table_list WHERE type = 'shadow'"
        )
    }
    checks = {}
    for one in read_objects(connection):
        if one.is_virtual and fold(f"{one.name}_idx") in shadows:  # FTS5
            checks[one.name] = "(%s, rank) VALUES ('integrity-check', 1)"
        elif one.is_virtual and fold(f"{one.name}_segdir") in shadows:  # FTS3 and FTS4
            checks[one.name] = "(%s) VALUES ('integrity-check')"
    return checks


def _out_of_step(table: str) -> Problem:
    return Problem(
        OUT_OF_STEP,
        f"The full-text table {table} does not have the words of its rows, so a search finds other rows.",
        f"Index them again: INSERT INTO {table} ({table}) VALUES ('rebuild'). Triggers keep it in step.",
    )


class _QuotesWarner(Observer):
    """Adds double-quoted strings to the warnings."""

    def __init__(self, warnings: list[Problem]) -> None:
        self._warnings = warnings

    def before_statement(
        self, connection: sqlite3.Connection, migration: Migration, statement: Statement
    ) -> None:
        """Check one statement."""
        found = double_quoted(connection, migration, statement)
        if found is not None:
            self._warnings.append(Problem(found.code, found.message, found.hint, migration.tag))


def _unjournaled(folder: Folder) -> Iterator[Problem]:
    for file in folder.unjournaled:
        yield Problem(
            ProblemCode.UNJOURNALED,
            f"{file.name} is in the folder, but no journal entry lists it.",
            "Add it to meta/_journal.json, or take it out of the folder.",
            file.stem,
        )


def _chain(folder: Folder) -> Iterator[Problem]:
    """Check that each snapshot names the one before it; a folder without any has no chain to check."""
    previous: tuple[str, dict[str, Any] | None] | None = None
    for migration in with_snapshots(folder):
        snapshot = read_snapshot_file(folder.path, migration.tag)
        name = snapshot_file(folder.path, migration.tag).name
        if snapshot is None and snapshot_file(folder.path, migration.tag).exists():
            yield _said(migration, f"meta/{name} is damaged.")
        elif snapshot is not None and (previous is None or previous[1] is not None):
            expected = FIRST if previous is None or previous[1] is None else previous[1].get("id")
            if snapshot.get("prevId") != expected:
                before = "the first" if previous is None else f"that of {previous[0]}"
                yield _said(
                    migration, f"meta/{name} does not follow {before}: its prevId is another."
                )
        previous = migration.tag, snapshot


def _parents(folder: Folder) -> Iterator[Problem]:
    """Check that each snapshot of Drizzle 1.x is whole, and follows snapshots that are there."""
    known = {FIRST}
    for migration in folder.migrations:
        file = snapshot_file(folder.path, migration.tag)
        snapshot = read_snapshot_file(folder.path, migration.tag)
        if snapshot is None:
            if file.exists():
                yield _said(migration, f"{migration.tag}/{file.name} is damaged.")
            continue
        if not set(ids_before(snapshot)) <= known:
            yield _said(
                migration,
                f"{migration.tag}/{file.name} follows a snapshot that is not in the folder.",
            )
        known.add(str(snapshot.get("id")))


class _Snapshots:
    """Compares each snapshot with the replay, both reduced to what a snapshot can say."""

    def __init__(self, folder: Folder, prepare: Prepare | None) -> None:
        self._folder, self._prepare = folder, prepare
        self._owners = {migration.tag for migration in with_snapshots(folder)}
        self._graph = read_graph(folder) if folder.is_v1 else {}
        self._seen: set[str] = set()
        self._known: set[Difference] = set()
        """What an earlier snapshot was told for: one cause is told once."""

    def check(self, migration: Migration, after: Schema) -> Iterator[Problem]:
        """Check the snapshot of a migration, if it has one."""
        path = self._folder.path
        snapshot = read_snapshot_file(path, migration.tag)
        if snapshot is None or migration.tag not in self._owners:
            return
        name = str(snapshot_file(path, migration.tag).relative_to(path))
        version = str(snapshot.get("version"))
        try:
            found = read_snapshot(snapshot, name, prepare=self._prepare)
            made = self._without_other_branches(migration, after)
            said = as_snapshots_see(made, version=version, prepare=self._prepare)
        except SchemaProblem as error:
            yield _said(migration, error.message)
            return
        differences = compare(said, found)
        new = [one for one in differences if one not in self._known]
        self._known = set(differences)
        if new:
            more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
            yield _said(migration, f"{name} is not what the migrations make: {new[0]}{more}.")

    def _without_other_branches(self, migration: Migration, after: Schema) -> Schema:
        """Return the schema that a snapshot has to say: in Drizzle 1.x a branch does not know the others."""
        earlier = {*self._seen}
        self._seen.add(migration.tag)
        node = self._graph.get(migration.tag)
        if node is None or node.before == earlier:
            return after
        return schema_at(self._folder, node, prepare=self._prepare)


def _said(migration: Migration, message: str) -> Problem:
    return Problem(
        SNAPSHOT,
        message,
        "Write it again from the migrations: `db check --write-snapshots`. Only Drizzle reads it.",
        migration.tag,
    )


def _squash(folder: Folder, prepare: Prepare | None) -> Problem | None:
    """Return what is wrong with the squash of a folder: it has to make what the squashed ones make."""
    squashed = folder.squashed
    if squashed is None:
        return None
    squash = squash_of(folder, squashed)
    hint = f"Bring {squash.name} and {SQUASHED} back from version control."
    if squashed.problems:
        first = squashed.problems[0]
        return Problem(SQUASH, first.message, hint, first.tag)
    for seed in SEEDS:
        try:
            old, new = (
                outcome_of(migrations, seed=seed, prepare=prepare)
                for migrations in (squashed.migrations, [squash])
            )
        except GatewayError as error:
            return Problem(SQUASH, error.message, hint, squash.tag)
        if differs := old.first_difference(new):
            message = (
                f"{squash.name} does not make what the migrations in {SQUASHED} make: {differs}."
            )
            return Problem(SQUASH, message, hint, squash.tag)
    return None


def _way_back(
    migration: Migration,
    before: Schema,
    after: Schema,
    prepare: Prepare | None,
) -> Iterator[Problem]:
    """Run the down file on an empty copy of the schema after the migration."""
    name = migration.down_name
    hint = f"Correct {name}, or delete it: then a restore is the way back."
    try:
        down = down_text(migration)
        if down is None:
            return
        connection = schema_copy(after, prepare=prepare)
    except HistoryRefused as error:
        yield Problem(DOWN, error.problems[0].message, hint, migration.tag)
        return
    except SchemaProblem:
        return
    with closing(connection):
        for statement in split(down):
            try:
                for part in expand_alter_column(connection, statement):
                    connection.execute(part.text)
            except (sqlite3.Error, ValueError) as error:  # as in `run_migration`
                message = f"{name}, line {statement.line}: {error}."
                yield Problem(DOWN, message, hint, migration.tag)
                return
        left = compare(before, inspect(connection))
    if left and any(split(down)):  # other tools leave an empty one where there is no way back
        yield Problem(DOWN, f"{name} does not lead back: {left[0]}.", hint, migration.tag)
