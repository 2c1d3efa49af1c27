"""libSQL's ALTER COLUMN makes the schema that libSQL makes, by a rebuild that SQLite can run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from local_mcp_gateway.schema import compare, inspect, read_alter_column, rebuild_for

SCHEMA = """
CREATE TABLE parents (id INTEGER PRIMARY KEY);
CREATE TABLE `notes` (
    `id` integer PRIMARY KEY AUTOINCREMENT NOT NULL, -- its number
    "a text" text,
    title text /* shown */, size integer DEFAULT 0 CHECK (notes.size >= 0),
    both text GENERATED ALWAYS AS (title || size) VIRTUAL,
    UNIQUE (title)
);
CREATE INDEX by_size ON notes (size DESC) WHERE size > 1;
CREATE VIEW shown AS SELECT title FROM notes;
CREATE VIEW twice AS SELECT title FROM shown;
CREATE TABLE log (note INTEGER REFERENCES notes (id));
CREATE TRIGGER noted AFTER INSERT ON notes BEGIN INSERT INTO log VALUES (new.id); END;
CREATE TRIGGER cleared AFTER DELETE ON log BEGIN UPDATE notes SET size = 0 WHERE id = old.note; END;
CREATE VIRTUAL TABLE found USING fts5 (title);
"""


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.executescript(SCHEMA)
        opened.execute("INSERT INTO notes (id, title, size) VALUES (7, 'a', 3), (9, 'b', 5)")
        opened.execute("DELETE FROM notes WHERE id = 9")
        yield opened


def alter(connection: sqlite3.Connection, sql: str) -> list[str]:
    asked = read_alter_column(sql)
    assert asked is not None
    statements = rebuild_for(connection, asked)
    connection.execute("BEGIN")
    for statement in statements:
        connection.execute(statement)
    connection.execute("COMMIT")
    return statements


FULL = """ALTER TABLE notes ALTER COLUMN `a text` TO `a text` integer DEFAULT (1 + 2)
COLLATE nocase REFERENCES parents(id) ON DELETE cascade; -- done"""

# (statement, the definition of the schema above, what libSQL 0.5 makes of it)
ALTERED = [
    (
        "ALTER TABLE notes ALTER COLUMN title TO title text NOT NULL",
        "title text",
        "title text NOT NULL",
    ),
    (
        'ALTER TABLE "main"."notes" /* x */ ALTER -- x\n COLUMN "TITLE" TO "title" blob;',
        "title text",
        '"title" blob',
    ),
    (
        "alter table notes alter column size to size",
        "size integer DEFAULT 0 CHECK (notes.size >= 0)",
        "size",
    ),
    (
        FULL,
        '"a text" text',
        "`a text` integer DEFAULT (1 + 2) COLLATE nocase REFERENCES parents(id) ON DELETE cascade",
    ),
    (
        "ALTER TABLE notes ALTER COLUMN size TO size real CONSTRAINT small CHECK (notes.size < 99)",
        "size integer DEFAULT 0 CHECK (notes.size >= 0)",
        "size real CONSTRAINT small CHECK (notes.size < 99)",
    ),
]


@pytest.mark.parametrize(("sql", "old", "new"), ALTERED)
def test_the_rebuild_leads_to_the_schema_of_libsql(
    connection: sqlite3.Connection, sql: str, old: str, new: str
) -> None:
    assert SCHEMA.count(old) == 1
    alter(connection, sql)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as expected:
        expected.executescript(SCHEMA.replace(old, new))
        assert compare(inspect(expected), inspect(connection)) == ()


def test_rows_keep_their_values_and_their_ids(connection: sqlite3.Connection) -> None:
    alter(connection, "ALTER TABLE notes ALTER COLUMN size TO size text")
    connection.execute("INSERT INTO notes (title) VALUES ('c')")  # not 9 again
    assert connection.execute("SELECT id, title, size, both FROM notes").fetchall() == [
        (7, "a", "3", "a3"),
        (10, "c", None, None),
    ]
    assert connection.execute("SELECT title FROM twice").fetchall() == [("a",), ("c",)]
    assert connection.execute("SELECT note FROM log").fetchall() == [(7,), (9,), (10,)]


def test_a_definition_that_is_there_already_needs_nothing(connection: sqlite3.Connection) -> None:
    assert alter(connection, 'ALTER TABLE notes ALTER COLUMN title TO "title" TEXT') == []


def test_a_rebuild_takes_a_name_that_is_free_whatever_its_letters_are(
    connection: sqlite3.Connection,
) -> None:
    connection.executescript('CREATE TABLE "Ä" (x TEXT); CREATE TABLE "__new_Ä" (kept);')
    alter(connection, 'ALTER TABLE "Ä" ALTER COLUMN x TO x INTEGER')
    tables = inspect(connection).tables
    assert [str(tables["Ä"].columns["x"].type.text), *tables["__new_Ä"].columns] == [
        "INTEGER",
        "kept",
    ]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("ALTER TABLE notes ALTER COLUMN title TO name text", "cannot rename a column"),
        (
            "ALTER TABLE notes ALTER COLUMN title TO title text UNIQUE",
            "PRIMARY KEY, UNIQUE or GENERATED",
        ),
        ("ALTER TABLE notes ALTER COLUMN id TO id integer", "PRIMARY KEY, UNIQUE or GENERATED"),
        ("ALTER TABLE notes ALTER COLUMN both TO both text", "PRIMARY KEY, UNIQUE or GENERATED"),
        (
            "ALTER TABLE notes ALTER COLUMN size TO size int AS (1)",
            "PRIMARY KEY, UNIQUE or GENERATED",
        ),
        ("ALTER TABLE notes ALTER COLUMN none TO none text", "no such column: none"),
        ("ALTER TABLE none ALTER COLUMN title TO title text", "no such table: none"),
        ("ALTER TABLE shown ALTER COLUMN title TO title text", "shown is not an ordinary table"),
        ("ALTER TABLE found ALTER COLUMN title TO title text", "found is not an ordinary table"),
        (
            "ALTER TABLE notes ALTER COLUMN title TO title text CHECK (nobody > 1)",
            "no such column: nobody",
        ),
    ],
)
def test_what_libsql_refuses_is_refused_and_changes_nothing(
    connection: sqlite3.Connection, sql: str, said: str
) -> None:
    before = list(connection.iterdump())
    with pytest.raises(sqlite3.Error, match=said):
        alter(connection, sql)
    assert list(connection.iterdump()) == before


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE notes RENAME COLUMN a TO b",
        "ALTER TABLE notes ADD COLUMN alter_column text",
        "ALTER TABLE notes ALTER COLUMN a",
        "ALTER TABLE notes ALTER COLUMN title TO title text, CHECK (size > 0)",
        "SELECT 'ALTER COLUMN a TO a'",
    ],
)
def test_another_statement_is_left_to_sqlite(sql: str) -> None:
    assert read_alter_column(sql) is None
