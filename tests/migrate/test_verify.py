"""What has to be true before COMMIT: the rows of a real database before and after some statements."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.apply import Step
from local_mcp_gateway.migrate.lineage import Change
from local_mcp_gateway.migrate.rebuild_checks import DataChange
from local_mcp_gateway.migrate.verify import count_rows, verify
from tests.migrate.workshop import CHILD, A, refused, step, verified


def lost(table: str, before: int, after: int, tag: str = "0001_m") -> DataChange:
    message = f"Table {table} goes from {before} {'row' if before == 1 else 'rows'} to {after}."
    return DataChange("deletes_data", table, message, tag)


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
