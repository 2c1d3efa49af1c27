"""Checksums of a table's contents: equal for equal rows, different for any others."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.migrate.contents import (
    Contents,
    Link,
    count_missing,
    read_contents,
    read_stored,
    shape_of,
)


def contents(connection: sqlite3.Connection, table: str, *, limit: int = 100) -> Contents:
    return read_contents(connection, table, limit=limit)


@pytest.fixture
def notes(scratch: sqlite3.Connection) -> sqlite3.Connection:
    scratch.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body, twice AS (id * 2))")
    scratch.execute("INSERT INTO notes (id, body) VALUES (1, 'a'), (4, NULL), (9, 7)")
    return scratch


def test_the_order_of_the_rows_and_the_types_of_numbers_do_not_count(
    notes: sqlite3.Connection,
) -> None:
    notes.execute("CREATE TABLE other (body TEXT, id INTEGER PRIMARY KEY)")
    notes.execute("INSERT INTO other SELECT body, id FROM notes ORDER BY id DESC")
    one, two = contents(notes, "notes"), contents(notes, "other")
    assert (one.rows, one.rowids, one.columns) == (two.rows, two.rowids, two.columns)


@pytest.mark.parametrize("value", ["'b'", "NULL", "x'00'", "x'61'", "1.5", "9007199254740993"])
def test_another_value_makes_another_sum(notes: sqlite3.Connection, value: str) -> None:
    before = contents(notes, "notes")
    notes.execute(f"UPDATE notes SET body = {value} WHERE id = 1")
    after = contents(notes, "notes")
    assert after.columns["body"] != before.columns["body"]
    assert after.columns["id"] == before.columns["id"]


@pytest.mark.parametrize("key", ["INTEGER PRIMARY KEY", "TEXT PRIMARY KEY", "INTEGER"])
def test_values_that_change_places_make_another_sum(scratch: sqlite3.Connection, key: str) -> None:
    scratch.execute(f"CREATE TABLE t (k {key}, body)")
    scratch.execute(
        "WITH RECURSIVE n (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < 60)"
        " INSERT INTO t SELECT k, 'body ' || k FROM n"
    )
    sums = {contents(scratch, "t", limit=1_000).links[Link(("k",), "body")]}
    for at in range(1, 60, 2):
        scratch.execute(
            f"UPDATE t SET body = 'body ' || ({2 * at + 1} - k) WHERE k IN ({at}, {at + 1})"
        )
        found = contents(scratch, "t", limit=1_000)
        sums.add(found.links[Link(("k",), "body")])
    assert len(sums) == 31


def test_a_column_without_a_value_is_known_and_a_generated_one_is_not_read(
    notes: sqlite3.Connection,
) -> None:
    notes.execute("UPDATE notes SET body = NULL")
    found = contents(notes, "notes")
    assert not found.has_values("body")
    assert found.has_values("twice")
    assert set(found.columns) == {"id", "body"}


def test_a_table_with_more_values_than_the_limit_is_counted(notes: sqlite3.Connection) -> None:
    found = contents(notes, "notes", limit=5)
    assert (found.rows, found.complete) == (3, False)
    assert {key: sums.values for key, sums in found.columns.items()} == {"id": 3, "body": 2}
    assert found.rowids == 14
    assert found.has_values("body")
    notes.execute("UPDATE notes SET body = NULL")
    assert not contents(notes, "notes", limit=5).has_values("body")


def test_what_came_to_a_table_is_the_difference_of_its_sums(notes: sqlite3.Connection) -> None:
    notes.execute("CREATE TABLE other (id INTEGER PRIMARY KEY, body)")
    notes.execute("INSERT INTO other VALUES (100, 'first')")
    before = contents(notes, "other")
    notes.execute("INSERT INTO other SELECT id, body FROM notes")
    came, were = contents(notes, "other").plus(before, times=-1), contents(notes, "notes")
    assert (came.rows, came.columns, came.links) == (were.rows, were.columns, were.links)
    assert came.rowids == were.rowids


@pytest.mark.parametrize(
    ("definition", "rowid", "key", "primary_key"),
    [
        ("(a INTEGER PRIMARY KEY, b)", "rowid", "a", ("a",)),
        ("(a INTEGER PRIMARY KEY DESC, b)", "rowid", None, ("a",)),
        ("(b, a, PRIMARY KEY (a, B))", "rowid", None, ("a", "b")),
        ("(a PRIMARY KEY, b) WITHOUT ROWID", None, None, ("a",)),
        ("(rowid, oid, a)", "_rowid_", None, ()),
        ("(rowid INTEGER PRIMARY KEY, oid, _rowid_)", "rowid", "rowid", ("rowid",)),
        ("(rowid, oid, _rowid_)", None, None, ()),
    ],
)
def test_the_rowid_has_a_name_unless_columns_took_them_all(
    scratch: sqlite3.Connection,
    definition: str,
    rowid: str | None,
    key: str | None,
    primary_key: tuple[str, ...],
) -> None:
    scratch.execute(f"CREATE TABLE t {definition}")
    found = shape_of(scratch, "t")
    assert (found.rowid, found.key, found.primary_key) == (rowid, key, primary_key)


def test_rows_are_missing_by_their_primary_key(scratch: sqlite3.Connection) -> None:
    for name, rows in (("old", "(1, 'x'), (2, 'y'), (3, 'z')"), ("new", "('1', 'x'), (7, 'y')")):
        scratch.execute(f"CREATE TABLE {name} (a INTEGER, b, PRIMARY KEY (b, a))")
        scratch.execute(f"INSERT INTO {name} VALUES {rows}")
    old, new = shape_of(scratch, "old"), shape_of(scratch, "new")
    assert (count_missing(scratch, old, new), count_missing(scratch, new, old)) == (2, 1)
    scratch.execute("CREATE TABLE other (a PRIMARY KEY, b)")
    assert count_missing(scratch, old, shape_of(scratch, "other")) == 0


@pytest.mark.parametrize("module", ["fts5 (a)", "fts4 (a)", "fts5 (a, content='')"])
def test_a_virtual_table_holds_what_it_has_indexed(
    scratch: sqlite3.Connection, module: str
) -> None:
    scratch.execute(f"CREATE VIRTUAL TABLE w USING {module}")
    scratch.execute("INSERT INTO w (rowid, a) VALUES (3, 'x'), (8, 'y')")
    assert read_stored(scratch, "w") == (2, 11.0)


@pytest.mark.parametrize("sizes", ["", ", columnsize=0"])
def test_an_index_over_a_table_does_not_hold_the_rows_of_the_table(
    notes: sqlite3.Connection, sizes: str
) -> None:
    notes.execute(f"CREATE VIRTUAL TABLE w USING fts5 (body, content=notes{sizes})")
    notes.execute("BEGIN")
    assert read_stored(notes, "w") == (0, 0.0)
    notes.execute("INSERT INTO w (w) VALUES ('rebuild')")
    assert read_stored(notes, "w") == (3, 14.0)
    notes.execute("COMMIT")
