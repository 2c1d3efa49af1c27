"""A column that is dropped and added again has its values, or somebody is told."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.sql import altered_column
from tests.migrate.workshop import NOTES, SAME, Workshop, rebuild, refused_unless


@pytest.fixture
def notes(shop: Workshop) -> Workshop:
    shop.add("0000_a", NOTES)
    shop.apply()
    return shop


WAYS = {
    "dropped and added": "{copy} ALTER TABLE notes DROP COLUMN stars; ALTER TABLE notes ADD COLUMN stars REAL;",
    "another takes the name": "ALTER TABLE notes ADD COLUMN s REAL; {copy}"
    " ALTER TABLE notes DROP COLUMN stars; ALTER TABLE notes RENAME COLUMN s TO stars;",
    "renamed out of the way": "ALTER TABLE notes RENAME stars TO old; ALTER TABLE main.notes ADD stars REAL;"
    " {copy} ALTER TABLE notes DROP old;",
    "in a renamed table": "ALTER TABLE notes ADD COLUMN s REAL; {copy} ALTER TABLE notes DROP COLUMN stars;"
    " ALTER TABLE notes RENAME TO papers; ALTER TABLE papers RENAME COLUMN s TO stars;",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_column_that_is_made_again_without_its_values_is_refused(
    notes: Workshop, way: str
) -> None:
    message = refused_unless(notes, WAYS[way].format(copy=""), "changes_values notes.stars")
    assert message.startswith("notes.stars would be NULL in every row: 0001_b drops it")


COPIES = {
    "another takes the name": "UPDATE notes SET s = stars;",
    "renamed out of the way": "UPDATE notes SET stars = old;",
    "in a renamed table": "UPDATE notes SET s = stars;",
}


@pytest.mark.parametrize("way", COPIES)
def test_a_column_that_is_made_again_with_its_values_is_fine(notes: Workshop, way: str) -> None:
    notes.add("0001_b", WAYS[way].format(copy=COPIES[way]))
    assert notes.apply()[1] == ()


@pytest.mark.parametrize("way", COPIES)
def test_other_values_in_a_column_that_is_made_again_are_told(notes: Workshop, way: str) -> None:
    some = COPIES[way].replace(";", " WHERE id < 5;")
    notes.add("0001_b", WAYS[way].format(copy=some))
    (told,) = notes.apply()[1]
    assert (told.kind, told.object) == ("changes_values", "notes.stars")


@pytest.mark.parametrize("way", COPIES)
def test_an_update_may_give_every_row_the_default(notes: Workshop, way: str) -> None:
    """A translation of values: the old rows may all have the one that is now the default."""
    to_default = "UPDATE notes SET {} = NULL WHERE {} > 0;".format(
        *("stars", "old") if "old" in COPIES[way] else ("s", "stars")
    )
    notes.add("0001_b", WAYS[way].format(copy=to_default))
    (told,) = notes.apply()[1]
    assert (told.kind, told.object) == ("changes_values", "notes.stars")


def test_an_update_of_the_column_that_goes_does_not_fill_the_one_that_comes(
    notes: Workshop,
) -> None:
    sql = WAYS["dropped and added"].format(copy="UPDATE notes SET stars = stars + 1;")
    refused_unless(notes, sql, "changes_values notes.stars")


def test_a_later_file_of_the_set_may_fill_the_column(notes: Workshop) -> None:
    notes.add("0001_keep", "CREATE TABLE kept AS SELECT id, stars FROM notes;")
    notes.add("0002_b", WAYS["dropped and added"].format(copy=""))
    with pytest.raises(VerificationFailed, match="0002_b drops it"):
        notes.apply()
    fill = "UPDATE notes SET stars = (SELECT stars FROM kept WHERE kept.id = notes.id)"
    notes.add("0003_fill", fill)
    assert notes.apply()[1] == ()


def test_a_column_that_goes_for_good_and_one_without_values_are_not_looked_at(
    notes: Workshop,
) -> None:
    notes.execute("UPDATE notes SET body = NULL")
    notes.add("0001_b", "ALTER TABLE notes DROP COLUMN stars; ALTER TABLE notes DROP body;")
    notes.add("0002_c", "ALTER TABLE notes ADD COLUMN body TEXT;")
    notes.add("0003_d", "ALTER TABLE notes ADD tmp INTEGER; ALTER TABLE notes DROP COLUMN tmp;")
    assert notes.apply()[1] == ()


def test_a_column_dropped_before_a_rebuild_that_brings_it_back_is_compared(notes: Workshop) -> None:
    copy = "INSERT INTO __new (id, title, body) SELECT id, title, body FROM notes"
    notes.add("0001_b", "ALTER TABLE notes DROP COLUMN stars;" + rebuild(SAME, copy))
    with pytest.raises(VerificationFailed, match=r"notes\.stars would be 0 in every row"):
        notes.apply()


def test_a_generated_column_takes_no_values_with_it(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE t(a, g AS (a + 1)); INSERT INTO t VALUES (1), (2);")
    shop.apply()
    shop.add("0001_b", "ALTER TABLE t DROP COLUMN g; ALTER TABLE t ADD COLUMN g AS (a + 2);")
    assert shop.apply()[1] == ()


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("ALTER TABLE t DROP COLUMN a;", ("t", "a", None)),
        ('alter table main."t t" drop "a"', ("t t", "a", None)),
        ("ALTER TABLE t /* x */ DROP [column]", ("t", "column", None)),
        ("ALTER TABLE t RENAME COLUMN a TO b", ("t", "a", "b")),
        ("ALTER TABLE t RENAME a TO `b`", ("t", "a", "b")),
        ("ALTER TABLE t RENAME TO b", None),
        ("ALTER TABLE t ADD COLUMN drop_column", None),
        ("ALTER TABLE t", None),
        ("DROP TABLE t", None),
    ],
)
def test_a_change_of_a_column_is_read(sql: str, read: object) -> None:
    assert altered_column(sql) == read
