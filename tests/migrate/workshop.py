"""A folder and a database that the tests of the engine build in a line or two."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database.connections import open_migration
from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.apply import Step, run_batch
from local_mcp_gateway.migrate.folder import Folder, Migration, read_folder
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.lineage import Change
from local_mcp_gateway.migrate.plan import Batch
from local_mcp_gateway.migrate.rebuild_checks import DataChange
from local_mcp_gateway.migrate.rebuilds import Rebuilds
from local_mcp_gateway.migrate.resolution import Resolution, resolve
from local_mcp_gateway.migrate.verify import count_rows, keep_sequences, verify, verify_dependents

FIRST_WHEN = 1_700_000_000_000
NOW_MS = 1_800_000_000_000


class Workshop:
    """A migrations folder next to a database, and the engine's steps on them without the guard."""

    limit = 10_000
    """How many values of a rebuilt table are compared."""

    def __init__(self, root: Path) -> None:
        self.path = root / "migrations"
        self.database = root / "app.db"
        (self.path / "meta").mkdir(parents=True)
        self.entries: list[dict[str, object]] = []
        self.not_compared: list[tuple[str, int, str]] = []
        """The rebuilt tables whose values were not compared, their rows, and why."""
        self.write_journal()

    def add(
        self, tag: str, sql: str | bytes, *, down: str | None = None, when: int | None = None
    ) -> None:
        data = sql if isinstance(sql, bytes) else sql.encode()
        (self.path / f"{tag}.sql").write_bytes(data)
        if down is not None:
            (self.path / f"{tag}.down.sql").write_text(down)
        idx = len(self.entries)
        self.entries.append(
            {
                "idx": idx,
                "version": "6",
                "when": FIRST_WHEN + idx * 1000 if when is None else when,
                "tag": tag,
                "breakpoints": True,
            }
        )
        self.write_journal()

    def write_journal(self, **changes: object) -> None:
        journal = {"version": "7", "dialect": "sqlite", "entries": self.entries} | changes
        (self.path / "meta" / "_journal.json").write_text(json.dumps(journal))

    def read(self) -> Folder:
        return read_folder(self.path)

    def resolve(self, *, allow_out_of_order: bool = False) -> Resolution:
        connection = open_migration(self.database)
        try:
            return resolve(
                self.read(), Ledger(connection).rows(), allow_out_of_order=allow_out_of_order
            )
        finally:
            connection.close()

    def codes(self) -> list[str]:
        return [problem.code for problem in self.resolve().problems]

    def apply(
        self, *, allow_out_of_order: bool = False
    ) -> tuple[tuple[Step, ...], tuple[DataChange, ...]]:
        resolution = self.resolve(allow_out_of_order=allow_out_of_order)
        assert resolution.problems == ()
        connection = open_migration(self.database)
        try:
            connection.execute("BEGIN IMMEDIATE")
            before = count_rows(connection)
            rebuilds = Rebuilds(
                connection,
                limit=self.limit,
                not_compared=lambda *said: self.not_compared.append(said),
                earlier=[entry.migration.sql for entry in resolution.applied],
            )
            steps = apply_all(
                connection, resolution.pending, rebuilds=None if before.is_new else rebuilds
            )
            keep_sequences(connection, before.sequences, steps)
            losses = verify(connection, before, steps) + tuple(rebuilds.changed)
            if not before.is_new:
                verify_dependents(connection, before, steps)
            connection.execute("COMMIT")
        finally:
            connection.close()
        return steps, losses

    def execute(self, *statements: str) -> None:
        connection = sqlite3.connect(self.database, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


def changes(text: str) -> list[Change]:
    """`+n` creates, `-n` drops, `a>b` renames, `!n` deletes rows."""
    signs = {"+": "create", "-": "drop", "!": "delete"}
    found = []
    for word in text.split():
        if ">" in word:
            old, _, new = word.partition(">")
            found.append(Change("rename", old, new))
        else:
            found.append(Change(signs[word[0]], word[1:]))  # type: ignore[arg-type]
    return found


def apply_all(
    connection: sqlite3.Connection, migrations: Sequence[Migration], **options: Any
) -> tuple[Step, ...]:
    """Apply migrations as one batch, in the caller's transaction."""
    if not migrations:
        return ()
    return run_batch(Batch.of(migrations), Ledger(connection, program_version="1"), **options)


A = "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT); INSERT INTO a VALUES (1, 'x'), (2, 'y');"
"""A table with two rows."""
CHILD = (
    A + "CREATE TABLE child (id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a);"
    "INSERT INTO child VALUES (1, 1);"
)
"""And one that refers to it."""


def step(said: str, *more: Change, tag: str = "0001_m", accepts: str = "") -> Step:
    """What the authorizer reported of a migration, as `changes` reads it."""
    return Step(tag, 1, 1.0, (*changes(said), *more), accepts=frozenset({accepts} - {""}))


def verified(
    database: sqlite3.Connection, before: str, then: str, *steps: Step
) -> tuple[DataChange, ...]:
    """Return the losses that count as meant when `then` runs after `before`."""
    database.executescript(before)
    counted = count_rows(database)
    database.executescript(then)
    return verify(database, counted, steps)


def refused(
    database: sqlite3.Connection, before: str, then: str, *steps: Step
) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        verified(database, before, then, *steps)
    return caught.value


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files by their names."""
    for name, text in files.items():
        (folder / name).write_text(text)


NOTES = """CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT, stars INTEGER DEFAULT 0);
INSERT INTO notes VALUES (1, 'a', 'x', 5), (4, 'b', 'y', NULL), (9, 'c', NULL, 2);"""


def rebuild(
    columns: str, copy: str, *, table: str = "notes", before: str = "", after: str = ""
) -> str:
    """The way that SQLite's documentation and Drizzle take."""
    return (
        f"{before} CREATE TABLE __new({columns}); {copy}; DROP TABLE {table};"
        f" ALTER TABLE __new RENAME TO {table}; {after}"
    )


def aside(columns: str, copy: str, *, table: str = "notes") -> str:
    """The other way: the old table is renamed first."""
    return f"ALTER TABLE {table} RENAME TO __new; CREATE TABLE {table}({columns}); {copy}; DROP TABLE __new;"


SAME = "id INTEGER PRIMARY KEY, title TEXT, body TEXT, stars INTEGER DEFAULT 0"


def refused_unless(shop: Workshop, sql: str, accept: str) -> str:
    """Apply it: it is refused, and applied with the line that the hint gives."""
    shop.add("0001_b", sql)
    with pytest.raises(VerificationFailed) as caught:
        shop.apply()
    line = f"-- guard: accept {accept}"
    assert f"`{line}`" in caught.value.hint
    shop.path.joinpath("0001_b.sql").write_text(f"{line}\n{sql}")
    shop.apply()
    return caught.value.message
