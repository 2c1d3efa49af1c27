"""Rows that refer to a missing key, before and after some statements."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.migrate.verify import count_rows
from tests.migrate.workshop import CHILD, A, refused, step, verified


def orphan(*keys: int) -> str:
    return "".join(f"INSERT INTO child (a_id) VALUES ({key});" for key in keys)


def test_a_row_whose_parent_goes_is_refused(database: sqlite3.Connection) -> None:
    error = refused(database, CHILD, "DELETE FROM a WHERE id = 1", step("!a"))
    assert error.message == (
        "1 row of child (rowid 1) would point to rows of a that no longer exist."
    )
    assert error.hint == (
        "Delete or fix those rows of child in the same migration; if it relies on ON DELETE or ON"
        " UPDATE actions, give it the first line `-- guard: foreign-keys=on`."
    )
    assert error.data == {"table": "child", "parent": "a", "rows": [1], "tags": ["0001_m"]}


def test_five_of_many_rows_are_named_in_order(database: sqlite3.Connection) -> None:
    many = "INSERT INTO child VALUES (9, 90), (8, 90), (7, 70), (6, 60), (5, 50)"
    error = refused(database, CHILD, many)
    assert error.message.startswith("5 rows of child (rowid 5, 6, 7, 8, 9) would point")
    database.execute("DELETE FROM child WHERE id > 4")
    error = refused(database, "", many + ", (4, 40)")
    assert error.message.startswith("6 rows of child (rowid 4, 5, 6, 7, 8…) would point")
    assert error.data["rows"] == [4, 5, 6, 7, 8]


def test_an_orphan_from_before_is_not_the_migrations_fault(database: sqlite3.Connection) -> None:
    before = CHILD + orphan(77, 88)
    assert verified(database, before, "UPDATE a SET word = 'z'") == ()
    error = refused(database, "", orphan(99))
    assert error.data["rows"] == [4]


def test_a_further_row_with_the_key_of_an_old_orphan_is_a_new_one(
    database: sqlite3.Connection,
) -> None:
    error = refused(database, CHILD + orphan(77), orphan(77))
    assert error.message.startswith("1 row of child (rowid 2, 3) would point")


def test_an_orphan_from_before_is_known_after_both_tables_were_renamed(
    database: sqlite3.Connection,
) -> None:
    before = CHILD.replace("child", "Child").replace("REFERENCES a", "REFERENCES A") + orphan(77)
    then = "ALTER TABLE a RENAME TO B; ALTER TABLE child RENAME TO Kid;"
    renamed = step("a>B child>Kid")
    assert verified(database, before, then, renamed) == ()
    error = refused(database, "", "INSERT INTO kid (a_id) VALUES (78)", step(""))
    assert (error.data["table"], error.data["parent"]) == ("kid", "b")


def test_an_orphan_from_before_is_known_after_its_column_was_renamed(
    database: sqlite3.Connection,
) -> None:
    then = "ALTER TABLE child RENAME COLUMN a_id TO owner"
    assert verified(database, CHILD + orphan(77), then) == ()


def test_orphans_of_two_columns_are_known_after_both_were_renamed(
    database: sqlite3.Connection,
) -> None:
    before = (
        A + "CREATE TABLE child (one REFERENCES a, two REFERENCES a);"
        "INSERT INTO child VALUES (77, 1), (1, 88);"
    )
    then = "ALTER TABLE child RENAME one TO uno; ALTER TABLE child RENAME two TO dos"
    assert verified(database, before, then) == ()


def test_an_orphan_of_one_column_is_new_in_another_while_both_are_there(
    database: sqlite3.Connection,
) -> None:
    before = (
        A + "CREATE TABLE child (id INTEGER PRIMARY KEY, one REFERENCES a, two REFERENCES a);"
        "INSERT INTO child VALUES (1, 77, 1);"
    )
    assert refused(database, before, "UPDATE child SET two = 77").data["rows"] == [1]


def test_an_orphan_of_one_table_is_new_in_another(database: sqlite3.Connection) -> None:
    before = CHILD + orphan(77) + "CREATE TABLE other (a_id INTEGER REFERENCES a);"
    then = "DROP TABLE child; INSERT INTO other VALUES (77)"
    error = refused(database, before, then, step("-child"))
    assert error.data["table"] == "other"


def test_an_orphan_of_one_parent_is_new_for_another(database: sqlite3.Connection) -> None:
    before = CHILD + orphan(77) + "CREATE TABLE b (id INTEGER PRIMARY KEY);"
    then = (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, b_id INTEGER REFERENCES b);"
        "INSERT INTO new SELECT * FROM child; DROP TABLE child; ALTER TABLE new RENAME TO child;"
        "INSERT INTO b VALUES (1)"
    )
    error = refused(database, before, then, step("+new -child new>child"))
    assert (error.data["parent"], error.data["rows"]) == ("b", [2])


@pytest.mark.parametrize(
    ("kind", "value", "becomes"),
    [("REAL", "7.0", "INTEGER"), ("INTEGER", "7", "TEXT"), ("BLOB", "x'00ff'", "BLOB")],
)
def test_an_orphan_from_before_is_known_after_its_type_has_changed(
    database: sqlite3.Connection, kind: str, value: str, becomes: str
) -> None:
    before = (
        A + f"CREATE TABLE child (a_id {kind} REFERENCES a); INSERT INTO child VALUES ({value})"
    )
    then = (
        f"CREATE TABLE new (a_id {becomes} REFERENCES a); INSERT INTO new SELECT * FROM child;"
        "DROP TABLE child; ALTER TABLE new RENAME TO child"
    )
    assert verified(database, before, then, step("+new -child new>child")) == ()


def test_keys_of_other_values_are_told_apart(database: sqlite3.Connection) -> None:
    before = (
        A + "CREATE TABLE child (a_id BLOB REFERENCES a); INSERT INTO child VALUES (x'31'), (7.5)"
    )
    database.executescript(before)
    changes = {"7.25 WHERE rowid = 2": 2, "x'32' WHERE rowid = 1": 1, "'b''2''' WHERE rowid = 1": 1}
    for change, row in changes.items():
        error = refused(database, "", f"UPDATE child SET a_id = {change}")
        assert error.data["rows"] == [row]


def test_keys_of_two_columns_are_known_as_a_whole(database: sqlite3.Connection) -> None:
    before = (
        "CREATE TABLE pair (x, y, PRIMARY KEY (x, y)); INSERT INTO pair VALUES (1, 1);"
        "CREATE TABLE child (p, q, FOREIGN KEY (p, q) REFERENCES pair);"
        "INSERT INTO child VALUES (1, 2), (NULL, 3), (1, 1);"
    )
    assert verified(database, before, "UPDATE pair SET x = x") == ()
    error = refused(database, "", "UPDATE child SET p = 2, q = 1 WHERE p = 1 AND q = 2")
    assert error.data["rows"] == [1]


def test_a_table_that_gave_away_the_name_of_its_rowid_is_asked_by_another(
    database: sqlite3.Connection,
) -> None:
    before = A + "CREATE TABLE child (ROWID, oid, a_id REFERENCES a);"
    error = refused(database, before, "INSERT INTO child VALUES (5, 6, 77)")
    assert error.message.startswith("1 row of child (rowid 1) would point")


def test_names_with_blanks_and_quotes_are_read_as_they_are(database: sqlite3.Connection) -> None:
    before = (
        'CREATE TABLE "the a" ("the id" INTEGER PRIMARY KEY);'
        'CREATE TABLE "the ""child" ("the a" INTEGER REFERENCES "the a");'
    )
    error = refused(database, before, 'INSERT INTO "the ""child" VALUES (77)')
    assert error.message.startswith('1 row of the "child (rowid 1) would point to rows of the a')


@pytest.mark.parametrize(
    "columns",
    [
        "name TEXT PRIMARY KEY, a_id INTEGER REFERENCES a) WITHOUT ROWID",
        "name TEXT, a_id REFERENCES a, rowid, oid, _rowid_)",
        "name TEXT PRIMARY KEY, a_id INTEGER REFERENCES A (ID)) WITHOUT ROWID",
    ],
)
def test_rows_without_a_rowid_to_name_are_counted(
    database: sqlite3.Connection, columns: str
) -> None:
    before = A + f"CREATE TABLE child ({columns}; INSERT INTO child (name, a_id) VALUES ('n', 66);"
    then = "INSERT INTO child (name, a_id) VALUES ('x', 1), ('y', 77), ('z', 77), ('w', NULL)"
    error = refused(database, before, then)
    assert error.message == "2 rows of child would point to rows of a that no longer exist."
    assert error.data["rows"] == []


@pytest.mark.parametrize("parent", ["a", "a (id)"])
def test_rows_without_a_rowid_are_counted_where_the_parent_is_gone(
    database: sqlite3.Connection, parent: str
) -> None:
    before = (
        A + f"CREATE TABLE child (name TEXT PRIMARY KEY, a_id REFERENCES {parent}) WITHOUT ROWID;"
        "INSERT INTO child VALUES ('x', 1), ('n', NULL);"
    )
    error = refused(database, before, "DROP TABLE a", step("-a"))
    assert error.message.startswith("1 row of child would point to rows of a")


def test_rows_without_a_rowid_are_told_apart_by_every_column_of_their_key(
    database: sqlite3.Connection,
) -> None:
    before = (
        'CREATE TABLE "the pair" ("the x", "the y", PRIMARY KEY ("the x", "the y"));'
        'INSERT INTO "the pair" VALUES (1, 1), (2, 2);'
        'CREATE TABLE "the child" (n INTEGER PRIMARY KEY, "the p", "the q",'
        ' FOREIGN KEY ("the p", "the q") REFERENCES "the pair") WITHOUT ROWID;'
        'INSERT INTO "the child" VALUES (1, 1, 1), (2, NULL, 5), (3, 5, NULL), (4, 2, 2);'
    )
    database.executescript(before)
    assert count_rows(database).orphans == {}
    error = refused(database, "", 'UPDATE "the child" SET "the q" = 2 WHERE n = 1')
    assert error.message.startswith("1 row of the child would point to rows of the pair")


def test_rows_without_a_rowid_are_compared_as_the_parent_compares(
    database: sqlite3.Connection,
) -> None:
    before = (
        "CREATE TABLE a (word TEXT COLLATE NOCASE PRIMARY KEY); INSERT INTO a VALUES ('1'), ('b');"
        "CREATE TABLE child (n INTEGER PRIMARY KEY, a_word INTEGER REFERENCES a) WITHOUT ROWID;"
        "INSERT INTO child VALUES (1, 1), (2, 'B');"
    )
    error = refused(database, before, "INSERT INTO child VALUES (3, 'c')")
    assert error.message.startswith("1 row of child would point to rows of a")


@pytest.mark.parametrize(("options", "rows"), [("", [4]), ("WITHOUT ROWID", [])])
def test_a_key_that_does_not_fit_its_parent_does_not_hide_the_others(
    database: sqlite3.Connection, options: str, rows: list[int]
) -> None:
    before = (
        CHILD
        + "CREATE TABLE misfit (word TEXT REFERENCES a (word)); INSERT INTO misfit VALUES ('q');"
        f'CREATE TABLE "z ""child" (id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a) {options};'
    )
    error = refused(database, before, 'INSERT INTO "z ""child" VALUES (4, 77)')
    assert (error.data["table"], error.data["rows"]) == ('z "child', rows)


@pytest.mark.parametrize(("old", "new"), [("child", "second"), ("second", "child")])
def test_a_new_orphan_is_found_beside_a_table_with_old_ones(
    database: sqlite3.Connection, old: str, new: str
) -> None:
    before = (
        CHILD + "CREATE TABLE second (id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a);"
        f"INSERT INTO {old} (a_id) VALUES (77);"
    )
    error = refused(database, before, f"INSERT INTO {new} (a_id) VALUES (5)")
    assert error.data["table"] == new
