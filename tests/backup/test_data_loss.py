"""What one database holds and the one that takes its place does not, by row."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.backup.row_diff import rows_lost
from local_mcp_gateway.errors import Interrupted


@pytest.fixture
def now(tmp_path: Path) -> Path:
    return tmp_path / "now.db"


@pytest.fixture
def then(tmp_path: Path) -> Path:
    return tmp_path / "then.db"


def made(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def said(now: Path, then: Path) -> list[str]:
    return [str(loss) for loss in rows_lost(now, then)]


NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)"


def test_rows_that_are_the_same_are_no_loss(now: Path, then: Path) -> None:
    rows = (NOTES, "INSERT INTO notes VALUES (1, 'a'), (2, NULL)")
    assert said(made(now, *rows), made(then, *rows)) == []


def test_added_changed_and_deleted_rows_are_told_apart(now: Path, then: Path) -> None:
    made(now, NOTES, "INSERT INTO notes VALUES (1, 'A'), (2, 'b'), (4, 'new'), (5, 'new')")
    made(then, NOTES, "INSERT INTO notes VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    assert said(now, then) == ["notes: 2 rows gone, 1 change of rows undone, 1 deleted row back"]


@pytest.mark.parametrize(
    ("before", "value", "after", "lost"),
    [
        ("TEXT", "'0079'", "INTEGER", 1),
        ("TEXT", "'1.10'", "REAL", 1),
        ("TEXT", "'12345678901234567890'", "NUMERIC", 1),
        ("TEXT", "'79'", "INTEGER", 0),
        ("INTEGER", "79", "TEXT", 0),
        ("INTEGER", "79", "REAL", 0),
        ("INTEGER", "9007199254740993", "REAL", 1),
        ("REAL", "0.1", "TEXT", 0),
        ("REAL", "0.1 + 0.2", "TEXT", 1),
        ("BLOB", "x'3739'", "TEXT", 0),
    ],
)
def test_a_value_that_another_type_has_changed_is_told(
    now: Path, then: Path, before: str, value: str, after: str, lost: int
) -> None:
    made(now, f"CREATE TABLE n (id INTEGER PRIMARY KEY, v {before})")
    made(now, f"INSERT INTO n VALUES (1, {value})")
    made(then, f"CREATE TABLE n (id INTEGER PRIMARY KEY, v {after})")
    made(then, f"INSERT INTO n VALUES (1, {value})")
    assert said(now, then) == ["n: 1 change of rows undone"] * lost


def test_rows_without_a_value_in_their_key_are_counted_each(now: Path, then: Path) -> None:
    table = "CREATE TABLE n (id TEXT PRIMARY KEY, v)"
    made(now, table, "INSERT INTO n VALUES (NULL, 'a'), (NULL, 'a'), ('x', 'b')")
    made(then, table, "INSERT INTO n VALUES (NULL, 'a'), (NULL, 'a'), ('x', 'b')")
    assert said(now, then) == []
    made(then, "DELETE FROM n WHERE rowid = 2")
    assert said(now, then) == ["n: 1 row gone"]


def test_bytes_are_not_the_text_that_they_spell(now: Path, then: Path) -> None:
    made(now, "CREATE TABLE n (v)", "INSERT INTO n VALUES (x'3739')")
    made(then, "CREATE TABLE n (v)", "INSERT INTO n VALUES ('79')")
    assert said(now, then) == ["n: 1 change of rows undone"]


def test_a_comparison_that_takes_too_long_is_given_up(now: Path, then: Path) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
    for path in (now, then):
        made(path, NOTES, f"INSERT INTO notes {rows} SELECT i, 'x' FROM n")
    assert rows_lost(now, then, limit_s=60) == ()
    with pytest.raises(Interrupted):
        rows_lost(now, then, limit_s=0)


def test_a_table_that_will_not_be_there_loses_every_row(now: Path, then: Path) -> None:
    made(now, NOTES, "INSERT INTO notes VALUES (1, 'a')", "CREATE TABLE empty (x)")
    assert said(now, made(then, "CREATE TABLE other (x)")) == ["notes: 1 row gone"]


def test_values_of_a_column_that_will_not_be_there_are_counted(now: Path, then: Path) -> None:
    made(now, NOTES, "ALTER TABLE notes ADD COLUMN colour", "INSERT INTO notes VALUES (1, 'a', 3)")
    made(then, NOTES, "INSERT INTO notes VALUES (1, 'a')")
    assert said(now, then) == ["notes: 1 value of colour gone"]


def test_a_change_of_case_is_a_change_whatever_the_collation(now: Path, then: Path) -> None:
    table = "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT COLLATE NOCASE)"
    made(now, table, "INSERT INTO t VALUES (1, 'A')")
    made(then, table, "INSERT INTO t VALUES (1, 'a')")
    assert said(now, then) == ["t: 1 change of rows undone"]


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE t (a TEXT, b INTEGER, c, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "CREATE TABLE t (a TEXT, b INTEGER, c)",
        "CREATE TABLE t (rowid TEXT, _rowid_ INTEGER, oid)",
        'CREATE TABLE "t" ("a ""b" TEXT, "select", c)',
    ],
)
def test_every_kind_of_table_is_compared(now: Path, then: Path, table: str) -> None:
    made(now, table, "INSERT INTO t VALUES ('x', 1, 1), ('y', 2, 2)")
    made(then, table, "INSERT INTO t VALUES ('x', 1, 1)")
    assert said(now, then) == ["t: 1 row gone"]


def test_a_full_text_index_is_one_table_and_not_its_parts(now: Path, then: Path) -> None:
    made(now, "CREATE VIRTUAL TABLE f USING fts5 (x)", "INSERT INTO f VALUES ('word')")
    assert said(now, made(then, "CREATE VIRTUAL TABLE f USING fts5 (x)")) == ["f: 1 row gone"]
