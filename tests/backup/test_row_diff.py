"""What was written since a state is brought into a database that is made again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_mcp_gateway.backup.row_diff import rebase_rows

NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)"
Carried = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def carried(tmp_path: Path) -> Carried:
    """Return what `SELECT` finds in the new database, given what each of the three is made of."""

    def carry(
        select: str, *, base: list[str], since: list[str], new: list[str] | None = None
    ) -> list[tuple[Any, ...]]:
        return carry_between(tmp_path, select, base, since, base if new is None else new)

    return carry


def carry_between(
    folder: Path, select: str, base: list[str], since: list[str], new: list[str]
) -> list[tuple[Any, ...]]:
    texts = {"live.db": [*base, *since], "base.db": base, "new.db": new}
    for name, statements in texts.items():
        (folder / name).unlink(missing_ok=True)
        with closing(sqlite3.connect(folder / name, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
    target = folder / "new.db"
    rebase_rows(folder / "live.db", folder / "base.db", target, prepare=lambda _: None)
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(select).fetchall()


def test_a_row_that_came_since_gets_the_default_of_a_new_column(carried: Carried) -> None:
    new = NOTES.replace("body TEXT", "pinned INTEGER NOT NULL DEFAULT 7, body TEXT")
    since = ["INSERT INTO notes VALUES (5, 'mine')"]
    assert carried("SELECT * FROM notes", base=[NOTES], since=since, new=[new]) == [(5, 7, "mine")]


def test_what_the_migrations_wrote_is_what_the_new_ones_write(carried: Carried) -> None:
    base = [NOTES, "INSERT INTO notes VALUES (1, 'old text'), (2, 'old text'), (3, 'no more')"]
    new = [NOTES, "INSERT INTO notes VALUES (1, 'new text'), (2, 'new text')"]
    since = ["UPDATE notes SET body = 'mine' WHERE id = 2"]
    found = carried("SELECT * FROM notes", base=base, since=since, new=new)
    assert found == [(1, "new text"), (2, "mine")]


def test_a_row_that_was_deleted_stays_deleted(carried: Carried) -> None:
    base = [NOTES, "INSERT INTO notes VALUES (1, 'a'), (2, 'b')"]
    found = carried("SELECT id FROM notes", base=base, since=["DELETE FROM notes WHERE id = 1"])
    assert found == [(2,)]


def test_only_the_values_that_were_changed_are_changed_again(carried: Carried) -> None:
    table = "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT)"
    base = [table, "INSERT INTO t VALUES (1, 'a', 'b')"]
    new = [table, "INSERT INTO t VALUES (1, 'A', 'B')"]
    found = carried("SELECT a, b FROM t", base=base, since=["UPDATE t SET b = 'mine'"], new=new)
    assert found == [("A", "mine")]


def test_a_row_that_breaks_a_new_rule_stays_behind(carried: Carried) -> None:
    new = NOTES.replace("body TEXT", "body TEXT NOT NULL UNIQUE CHECK (body <> 'bad')")
    values = "(1, 'a'), (2, NULL), (3, 'bad'), (4, 'a'), (5, 'b')"
    since = [f"INSERT INTO notes VALUES {values}"]
    found = carried("SELECT * FROM notes", base=[NOTES], since=since, new=[new])
    assert found == [(1, "a"), (5, "b")]


def test_a_value_of_another_type_stays_behind_in_a_strict_table(carried: Carried) -> None:
    new = "CREATE TABLE notes (id INTEGER PRIMARY KEY, body INTEGER) STRICT"
    since = ["INSERT INTO notes VALUES (1, 'words'), (2, '12')"]
    assert carried("SELECT * FROM notes", base=[NOTES], since=since, new=[new]) == [(2, 12)]


def test_children_come_with_their_parents_and_stay_behind_with_them(carried: Carried) -> None:
    base = [
        "CREATE TABLE a_children (id INTEGER PRIMARY KEY, parent REFERENCES parents)",
        "CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT)",
    ]
    new = [base[0], base[1].replace("name TEXT", "name TEXT NOT NULL")]
    since = [
        "INSERT INTO parents VALUES (1, 'fits'), (2, NULL)",
        "INSERT INTO a_children VALUES (1, 1), (2, 2), (3, NULL)",
    ]
    found = carried("SELECT id FROM a_children ORDER BY id", base=base, since=since, new=new)
    assert found == [(1,), (3,)]


def test_rows_that_point_at_each_other_are_kept_when_their_keys_are_deferred(
    carried: Carried,
) -> None:
    table = (
        "CREATE TABLE rings (id INTEGER PRIMARY KEY, next INTEGER NOT NULL"
        " REFERENCES rings DEFERRABLE INITIALLY DEFERRED)"
    )
    since = ["INSERT INTO rings VALUES (1, 2), (2, 1)"]
    assert carried("SELECT id FROM rings", base=[table], since=since) == [(1,), (2,)]


def test_a_dangling_deferred_row_stays_behind_and_takes_nobody_along(carried: Carried) -> None:
    table = "CREATE TABLE t (id INTEGER PRIMARY KEY, up REFERENCES t DEFERRABLE INITIALLY DEFERRED)"
    since = ["PRAGMA foreign_keys=OFF", "INSERT INTO t VALUES (1, NULL), (2, 9), (3, 1)"]
    assert carried("SELECT id FROM t", base=[table], since=since) == [(1,), (3,)]


def test_unique_values_that_two_rows_swapped_are_swapped_again_or_left(carried: Carried) -> None:
    """A three-way swap has no order in which it fits; the rows are there all the same."""
    base = ["CREATE TABLE t (id INTEGER PRIMARY KEY, x UNIQUE)", "INSERT INTO t VALUES (1, 'a')"]
    since = ["INSERT INTO t VALUES (2, 'b')", "UPDATE t SET x = 'c' WHERE id = 1"]
    since += ["UPDATE t SET x = 'a' WHERE id = 2"]
    assert carried("SELECT * FROM t", base=base, since=since) == [(1, "c"), (2, "a")]


def test_triggers_do_not_run_again_and_are_there_afterwards(carried: Carried) -> None:
    base = [
        NOTES,
        "CREATE TABLE log (note INTEGER)",
        "CREATE TRIGGER seen AFTER INSERT ON notes BEGIN INSERT INTO log VALUES (new.id); END",
    ]
    since = ["INSERT INTO notes VALUES (4, 'x')"]
    assert carried("SELECT note FROM log", base=base, since=since) == [(4,)]
    select = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
    assert carried(select, base=base, since=since) == [("seen",)]


def test_a_full_text_index_finds_what_was_carried(carried: Carried) -> None:
    base = [
        NOTES,
        "CREATE VIRTUAL TABLE found USING fts5(body, content='notes', content_rowid='id')",
        """CREATE TRIGGER seen AFTER INSERT ON notes BEGIN
        INSERT INTO found(rowid, body) VALUES (new.id, new.body); END""",
    ]
    since = ["INSERT INTO notes VALUES (4, 'a needle')"]
    assert carried("SELECT rowid FROM found('needle')", base=base, since=since) == [(4,)]


@pytest.mark.parametrize(
    ("table", "select"),
    [
        ("CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID", "SELECT k, v FROM t"),
        ("CREATE TABLE t (k TEXT, v)", "SELECT k, v FROM t"),
        ("CREATE TABLE t (rowid TEXT, oid, _rowid_)", "SELECT rowid, oid FROM t"),
        ("CREATE TABLE t (k, v, twice AS (v || v) STORED)", "SELECT k, v FROM t"),
    ],
)
def test_tables_of_every_kind_are_carried(carried: Carried, table: str, select: str) -> None:
    values = "('a', 1), ('b', 2)" if "_rowid_" not in table else "('a', 1, 0), ('b', 2, 0)"
    names = "(k, v)" if "twice" in table else ""
    since = [f"INSERT INTO t {names} VALUES {values}"]
    assert carried(select, base=[table], since=since) == [("a", 1), ("b", 2)]


def test_a_number_is_not_given_twice(carried: Carried) -> None:
    table = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, x)"
    since = ["INSERT INTO t (x) VALUES (1), (2), (3)", "DELETE FROM t WHERE id > 1"]
    assert carried("SELECT seq FROM sqlite_sequence", base=[table], since=since) == [(3,)]


_ROWS = st.dictionaries(st.integers(1, 6), st.text("ab", max_size=2), max_size=6)


@settings(max_examples=15)  # each makes three files
@given(base=_ROWS, live=_ROWS)
def test_onto_the_same_state_everything_is_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, base: dict[int, str], live: dict[int, str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    inserts = [f"INSERT INTO notes VALUES ({n}, '{text}')" for n, text in base.items()]
    since = ["DELETE FROM notes"]
    since += [f"INSERT INTO notes VALUES ({n}, '{text}')" for n, text in live.items()]
    start = [NOTES, *inserts]
    found = carry_between(folder, "SELECT * FROM notes ORDER BY id", start, since, start)
    assert found == sorted(live.items())
