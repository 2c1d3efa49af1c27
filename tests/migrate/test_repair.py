"""A history is corrected only as far as the schema agrees with it, and after a confirmation."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

from local_mcp_gateway.errors import NotAdopted, NotConfirmed, UsageProblem
from local_mcp_gateway.migrate import Ledger, Repair
from tests.migrate.workshop import Workshop


@pytest.fixture
def two(shop: Workshop) -> Workshop:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "CREATE TABLE b (x);")
    return shop


def repair(shop: Workshop, scratch: sqlite3.Connection) -> Repair:
    return Repair(shop.database, shop.path, Ledger(scratch))


def test_the_migrations_that_make_the_schema_are_adopted(
    two: Workshop, scratch: sqlite3.Connection
) -> None:
    scratch.execute("CREATE TABLE a (x)")
    told: list[str] = []
    made = repair(two, scratch)
    assert made.adopt(told.extend) == ("0000_a",)
    assert told == ["1 of 2 migrations will be marked as applied."]
    assert (made.recorded, Ledger(scratch).names()) == (True, ["0000_a"])


def test_a_schema_that_no_point_of_the_folder_makes_is_not_adopted(
    two: Workshop, scratch: sqlite3.Connection
) -> None:
    scratch.execute("CREATE TABLE a (x, y)")
    with pytest.raises(NotAdopted, match="the nearest is 0000_a"):
        repair(two, scratch).adopt(lambda _: None)


def test_nothing_is_written_unless_it_is_confirmed(
    two: Workshop, scratch: sqlite3.Connection
) -> None:
    def refuse(_: Sequence[str]) -> None:
        raise NotConfirmed("no")

    made = repair(two, scratch)
    with pytest.raises(NotConfirmed):
        made.adopt(refuse)
    assert (made.recorded, Ledger(scratch).rows()) == (False, ())


def test_what_was_applied_by_hand_is_marked_if_the_schema_has_it(
    two: Workshop, scratch: sqlite3.Connection
) -> None:
    scratch.execute("CREATE TABLE a (x)")
    repair(two, scratch).adopt(lambda _: None)
    with pytest.raises(NotAdopted, match="up to 0001_b"):
        repair(two, scratch).mark_applied("0001_b", lambda _: None)
    scratch.execute("CREATE TABLE b (x)")
    made = repair(two, scratch)
    made.mark_applied("0001_b", lambda _: None)
    assert (made.tags, Ledger(scratch).names()) == (["0001_b"], ["0000_a", "0001_b"])
    with pytest.raises(UsageProblem, match="applied already"):
        repair(two, scratch).mark_applied("0001_b", lambda _: None)


SEEN = [
    "ALTER TABLE a ADD COLUMN y DEFAULT 3; CREATE INDEX by_y ON a (y);",
    "CREATE VIEW v AS SELECT x FROM a; DROP VIEW v; CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;",
    "CREATE TABLE c (x); ALTER TABLE c RENAME TO d;",
]
UNSEEN = [
    "ALTER TABLE a ADD COLUMN y; UPDATE a SET y = 1;",
    "CREATE TABLE c AS SELECT x FROM a;",
    "DROP TABLE a; CREATE TABLE a (x); CREATE TABLE c (x);",
    "ALTER TABLE a ALTER COLUMN x TO x integer NOT NULL DEFAULT 1;",
]


def half_recorded(shop: Workshop, scratch: sqlite3.Connection, sql: str) -> Repair:
    """The second migration is pending, and its change is in the database already."""
    shop.add("0000_a", "CREATE TABLE a (x);")
    scratch.execute("CREATE TABLE a (x)")
    repair(shop, scratch).adopt(lambda _: None)
    as_libsql_leaves_it = "DROP TABLE a; CREATE TABLE a (x integer NOT NULL DEFAULT 1)"
    scratch.executescript(as_libsql_leaves_it if "ALTER COLUMN" in sql else sql)
    shop.add("0001_b", sql)
    return repair(shop, scratch)


@pytest.mark.parametrize("sql", SEEN)
def test_what_was_applied_by_hand_is_adopted_where_the_schema_shows_all_of_it(
    shop: Workshop, scratch: sqlite3.Connection, sql: str
) -> None:
    told: list[str] = []
    made = half_recorded(shop, scratch, sql)
    shop.add("0002_c", "CREATE TABLE later (x);")
    assert made.adopt(told.extend) == ("0001_b",)
    assert told == ["0001_b will be marked as applied."]
    assert Ledger(scratch).names() == ["0000_a", "0001_b"]
    assert Ledger(scratch).events()[-1].event == "marked_applied"


@pytest.mark.parametrize("sql", UNSEEN)
def test_what_the_schema_does_not_show_is_marked_only_by_name(
    shop: Workshop, scratch: sqlite3.Connection, sql: str
) -> None:
    made = half_recorded(shop, scratch, sql)
    with pytest.raises(
        UsageProblem, match="Whether 0001_b ran as a whole cannot be seen"
    ) as caught:
        made.adopt(lambda _: None)
    assert "db repair --mark-applied 0001_b" in caught.value.hint
    assert made.mark_applied("0001_b", lambda _: None)


def test_an_edited_file_is_accepted_with_the_text_that_it_had(
    two: Workshop, scratch: sqlite3.Connection
) -> None:
    scratch.execute("CREATE TABLE a (x)")
    repair(two, scratch).adopt(lambda _: None)
    (two.path / "0000_a.sql").write_text("CREATE TABLE a (x); -- edited")
    shown = []
    made = repair(two, scratch)
    made.accept_edited("0000_a", lambda entry, old: shown.append((entry.migration.tag, old)))
    assert shown == [("0000_a", "CREATE TABLE a (x);")]
    assert two.read().migrations[0].hash == Ledger(scratch).rows()[0].hash
