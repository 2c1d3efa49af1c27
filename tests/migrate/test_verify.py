"""What has to be true before COMMIT: the rows of a real database before and after some statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.apply import Step
from local_mcp_gateway.migrate.lineage import Change
from local_mcp_gateway.migrate.rebuilds import DataChange
from local_mcp_gateway.migrate.verify import count_rows, verify
from tests.migrate.workshop import changes


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


def step(said: str, *more: Change, tag: str = "0001_m", accepts: str = "") -> Step:
    """What the authorizer reported of a migration, as `changes` reads it."""
    return Step(tag, 1, 1.0, (*changes(said), *more), accepts=frozenset({accepts} - {""}))


def lost(table: str, before: int, after: int, tag: str = "0001_m") -> DataChange:
    message = f"Table {table} goes from {before} {'row' if before == 1 else 'rows'} to {after}."
    return DataChange("deletes_data", table, message, tag)


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


A = "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT); INSERT INTO a VALUES (1, 'x'), (2, 'y');"


# --- rows -----------------------------------------------------------------------------------------


def test_rows_that_go_without_a_statement_that_says_so_are_refused(
    database: sqlite3.Connection,
) -> None:
    error = refused(database, A, "DELETE FROM a WHERE id = 1", step("!b"))
    assert error.message == (
        "Table a had 2 rows and has 1 after the migrations, though none of their statements deletes"
        " from it or drops it."
    )
    assert error.hint == (
        "Look for INSERT OR REPLACE or REPLACE INTO, which remove rows that are in their way; write"
        " a DELETE if the loss is meant."
    )
    assert error.data == {"table": "a", "before": 2, "after": 1}


class Counted:
    """An untouched copy that tells which tables were counted there."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.copy = sqlite3.connect(":memory:")
        database.backup(self.copy)
        self.asked: list[str] = []
        self.copy.set_authorizer(self._note)

    def _note(self, action: int, table: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_READ and table:
            self.asked.append(table)
        return sqlite3.SQLITE_OK


def test_only_tables_with_a_reported_write_are_counted(database: sqlite3.Connection) -> None:
    database.executescript(f"{A} CREATE TABLE b (x); INSERT INTO b VALUES (1);")
    counted = Counted(database)
    before = count_rows(database, lambda: counted.copy)
    database.execute("DELETE FROM a WHERE id = 1")
    silent = Step("0001_m", 1, 1.0, written=frozenset({"b"}))
    assert verify(database, before, [silent]) == ()
    assert set(counted.asked) == {"b"}
    reported = Step("0001_m", 1, 1.0, written=frozenset({"a"}))
    with pytest.raises(VerificationFailed, match="Table a had 2 rows and has 1"):
        verify(database, before, [reported])
    counted.copy.close()


def test_a_table_that_goes_without_a_statement_that_says_so_is_refused(
    database: sqlite3.Connection,
) -> None:
    assert refused(database, A, "DROP TABLE a").data == {"table": "a", "before": 2, "after": 0}


def test_rows_that_a_statement_deletes_are_a_loss_and_no_error(
    database: sqlite3.Connection,
) -> None:
    then = "DELETE FROM a WHERE id = 1"
    assert verified(database, A, then, step("!b"), step("!A")) == (lost("a", 2, 1),)


def test_a_table_that_is_dropped_loses_all_its_rows(database: sqlite3.Connection) -> None:
    assert verified(database, A, "DROP TABLE a", step("-a")) == (lost("a", 2, 0),)


def test_as_many_rows_as_before_are_no_loss_and_neither_are_more(
    database: sqlite3.Connection,
) -> None:
    more = A + "CREATE TABLE b (x); CREATE TABLE empty (x);"
    then = "INSERT INTO b VALUES (1); UPDATE a SET word = 'z'; DROP TABLE empty"
    assert verified(database, more, then) == ()


def test_every_loss_is_told_not_the_first_only(database: sqlite3.Connection) -> None:
    before = A + "CREATE TABLE b (x); CREATE TABLE c (x); INSERT INTO c VALUES (1)"
    losses = verified(database, before, "DELETE FROM a; DELETE FROM c", step("!a !c"))
    assert set(losses) == {lost("a", 2, 0), lost("c", 1, 0)}


def test_a_loss_that_is_meant_does_not_hide_one_that_is_not(database: sqlite3.Connection) -> None:
    before = A + "CREATE TABLE z (x); INSERT INTO z VALUES (1)"
    error = refused(database, before, "DELETE FROM a; DELETE FROM z", step("!a"))
    assert error.data["table"] == "z"


def test_names_are_compared_as_sqlite_compares_them(database: sqlite3.Connection) -> None:
    before = 'CREATE TABLE "Two Words" (x); INSERT INTO "two words" VALUES (1);'
    assert verified(
        database, before, 'DELETE FROM "TWO WORDS"', step("", Change("delete", "tWo WoRdS"))
    ) == (lost("two words", 1, 0),)


def test_a_name_with_a_quote_in_it_is_counted_too(database: sqlite3.Connection) -> None:
    before = 'CREATE TABLE "a""b" (x); INSERT INTO "a""b" VALUES (1);'
    assert refused(database, before, 'DELETE FROM "a""b"').data["table"] == 'a"b'


def test_what_is_sqlites_the_guards_or_a_virtual_tables_own_is_not_counted(
    database: sqlite3.Connection,
) -> None:
    database.executescript(
        "CREATE TABLE sqlitely (id INTEGER PRIMARY KEY AUTOINCREMENT);"
        "INSERT INTO sqlitely DEFAULT VALUES;"
        "CREATE TABLE __drizzle_migrations (x); CREATE TABLE __guard_history (x);"
        "CREATE VIRTUAL TABLE words USING fts5 (text); CREATE VIEW v AS SELECT 1;"
        "CREATE TEMP TABLE away (x);"
    )
    assert count_rows(database).rows == {"sqlitely": 1}


# --- tables that are renamed ------------------------------------------------------------------------


def test_a_table_is_followed_through_its_renames(database: sqlite3.Connection) -> None:
    then = "ALTER TABLE a RENAME TO b; ALTER TABLE b RENAME TO c"
    renames = step("A>B b>c")
    assert verified(database, A, then, renames) == ()
    error = refused(database, "", "DELETE FROM c WHERE id = 1", step(""))
    assert error.data == {"table": "c", "before": 2, "after": 1}


def test_a_loss_is_told_under_the_name_that_the_table_had(database: sqlite3.Connection) -> None:
    then = "ALTER TABLE a RENAME TO b; DELETE FROM b WHERE id = 1"
    renamed = step("a>b")
    assert refused(database, A, then, renamed).data == {"table": "a", "before": 2, "after": 1}


@pytest.mark.parametrize(
    "steps",
    [
        (step("a>b !B"),),
        (step("!a a>b"),),
        (step("a>b"), step("!b")),
        (step("!a"), step("a>b")),
        (step("+made made>c a>B !b"),),
    ],
)
def test_rows_may_be_deleted_under_the_old_name_and_the_new(
    database: sqlite3.Connection, steps: tuple[Step, ...]
) -> None:
    then = "ALTER TABLE a RENAME TO b; DELETE FROM b WHERE id = 1"
    assert verified(database, A, then, *steps) == (lost("a", 2, 1),)


def test_a_statement_on_the_old_name_after_the_rename_means_another_table(
    database: sqlite3.Connection,
) -> None:
    then = "ALTER TABLE a RENAME TO b; DELETE FROM b WHERE id = 1"
    error = refused(database, A, then, step("a>b"), step("!a"))
    assert error.data["table"] == "a"


def test_a_rebuild_may_move_the_old_table_out_of_the_way_and_drop_it(
    database: sqlite3.Connection,
) -> None:
    then = (
        "ALTER TABLE a RENAME TO a_old; CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT, n);"
        "INSERT INTO a SELECT id, word, 1 FROM a_old WHERE id = 1; DROP TABLE a_old"
    )
    rebuilt = "a>a_old +a -a_old"
    error = refused(database, A, then, step(rebuilt))
    assert error.message.startswith("Table a had 2 rows and has 1 after its rebuild in 0001_m")
    database.executescript("DROP TABLE a")
    accepting = step(rebuilt, accepts="loses_rows a")
    assert verified(database, A, then, accepting) == (lost("a", 2, 1),)


def test_the_migration_that_took_the_rows_is_named(database: sqlite3.Connection) -> None:
    steps = step("+b", tag="0001_b"), step("!a", tag="0002_a"), step("!b", tag="0003_b")
    then = "CREATE TABLE b (x); DELETE FROM a"
    assert verified(database, A, then, *steps) == (lost("a", 2, 0, "0002_a"),)


def test_what_is_deleted_after_a_rebuild_is_deleted_from_the_same_table(
    database: sqlite3.Connection,
) -> None:
    then = (
        "CREATE TABLE new (id INTEGER PRIMARY KEY, word TEXT); INSERT INTO new SELECT * FROM a;"
        "DROP TABLE a; ALTER TABLE new RENAME TO a; DELETE FROM a WHERE id = 1"
    )
    steps = step("+new -a new>a"), step("!a")
    assert verified(database, A, then, *steps) == (lost("a", 2, 1),)


# --- references that lose their parent --------------------------------------------------------------

CHILD = (
    A + "CREATE TABLE child (id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a);"
    "INSERT INTO child VALUES (1, 1);"
)
MOVED_AWAY = (
    "ALTER TABLE a RENAME TO a_old; CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT);"
    "INSERT INTO a SELECT * FROM a_old; DROP TABLE a_old;"
)
AWAY = step("a>A_OLD +a -a_old")


def test_a_reference_that_followed_a_table_which_was_dropped_is_refused(
    database: sqlite3.Connection,
) -> None:
    error = refused(database, CHILD, MOVED_AWAY, AWAY)
    assert error.message == (
        "Table child would reference a_old, which no longer exists: SQLite carried the reference"
        " along when the table was renamed."
    )
    assert error.hint == (
        "Make the new table under another name, copy the rows, drop the old table, and rename the new"
        " one; or write PRAGMA legacy_alter_table=ON before the renaming."
    )
    assert error.data == {"table": "child", "parent": "a_old"}


def test_it_is_refused_however_the_names_are_written(database: sqlite3.Connection) -> None:
    before = A + "CREATE TABLE Child (id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES A);"
    then = MOVED_AWAY.replace("a_old", "A_Old")
    assert refused(database, before, then, AWAY).data == {"table": "child", "parent": "a_old"}


def test_a_child_that_was_renamed_itself_is_refused_too(database: sqlite3.Connection) -> None:
    then = MOVED_AWAY + "ALTER TABLE child RENAME TO kid"
    renamed = step("a>a_old +a -a_old child>kid")
    assert refused(database, CHILD, then, renamed).data == {"table": "kid", "parent": "a_old"}


def test_a_reference_stays_with_its_table_where_it_is_not_carried_along(
    database: sqlite3.Connection,
) -> None:
    legacy = "PRAGMA legacy_alter_table=ON;" + MOVED_AWAY
    assert verified(database, CHILD, legacy, AWAY) == ()


def test_a_reference_may_follow_a_table_that_stays(database: sqlite3.Connection) -> None:
    then = "ALTER TABLE a RENAME TO b"
    assert verified(database, CHILD, then, step("a>b")) == ()


def test_a_parent_that_was_never_there_is_the_old_schemas_own_matter(
    database: sqlite3.Connection,
) -> None:
    before = A + "CREATE TABLE child (a_id REFERENCES nowhere);"
    then = "ALTER TABLE a RENAME TO b"
    assert verified(database, before, then, step("a>b")) == ()


def test_a_table_made_on_the_way_may_be_mended_further_on(database: sqlite3.Connection) -> None:
    then = "CREATE TABLE child (a_id REFERENCES a);" + MOVED_AWAY
    assert verified(database, A, then, step("+child a>a_old +a -a_old")) == ()


# --- rows that lose their parent --------------------------------------------------------------------


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
