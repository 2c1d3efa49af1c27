"""What the real drizzle passes over in silence, we name, on the same folder and database.

What all the peers do is in `tests/peers/test_table.py`. When one of these fails, drizzle has changed, and
the docs with it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from local_mcp_gateway.errors import ProblemCode
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.resolution import resolve
from tests.drizzle.toolbox import Toolbox
from tests.harness import Place

pytestmark = pytest.mark.drizzle


@pytest.fixture
def migrated(place: Place, zero: Toolbox) -> Place:
    place.folder.add("a", "CREATE TABLE a(x);")
    place.folder.add("b", "CREATE TABLE b(x);")
    zero.migrate(place.database, place.folder.path)
    return place


def our_codes(place: Place) -> set[str]:
    with closing(sqlite3.connect(place.database)) as connection:
        found = resolve(read_folder(place.folder.path), Ledger(connection).rows())
    return {problem.code for problem in found.problems}


def silently(place: Place, zero: Toolbox) -> bool:
    """Run drizzle; tell whether it succeeded and left everything as it was."""
    before = place.content()
    zero.migrate(place.database, place.folder.path)
    return place.content() == before


def test_an_edited_file(migrated: Place, zero: Toolbox) -> None:
    migrated.folder.write("0000_a", "CREATE TABLE a(x, y);")
    assert silently(migrated, zero)
    assert our_codes(migrated) == {ProblemCode.EDITED}


def test_a_deleted_file(migrated: Place, zero: Toolbox) -> None:
    (migrated.folder.path / "0000_a.sql").unlink()
    migrated.folder.write_journal(migrated.folder.journal()[1:])
    assert silently(migrated, zero)
    assert our_codes(migrated) == {ProblemCode.MISSING}


def test_an_older_file_that_comes_later_is_skipped(migrated: Place, zero: Toolbox) -> None:
    first, second = migrated.folder.journal()
    migrated.folder.write("0002_late", "CREATE TABLE late(x);")
    late = {**first, "idx": 2, "tag": "0002_late", "when": first["when"] + 1}
    migrated.folder.write_journal([first, second, late])
    assert silently(migrated, zero)
    assert our_codes(migrated) == {ProblemCode.OUT_OF_ORDER}


def test_a_file_that_the_journal_does_not_list_is_skipped(migrated: Place, zero: Toolbox) -> None:
    migrated.folder.write("0002_new", "CREATE TABLE new(x);")
    assert silently(migrated, zero)
    assert our_codes(migrated) == {ProblemCode.UNJOURNALED}


def test_a_newer_database(migrated: Place, zero: Toolbox) -> None:
    (migrated.folder.path / "0001_b.sql").unlink()
    migrated.folder.write_journal(migrated.folder.journal()[:1])
    assert silently(migrated, zero)
    assert our_codes(migrated) == {ProblemCode.NEWER_DATABASE}


def test_a_second_statement_that_fails_is_rolled_back(migrated: Place, zero: Toolbox) -> None:
    migrated.folder.add("c", "CREATE TABLE c(x);", "CREATE TABEL d(x);")
    before = migrated.content()
    with pytest.raises(AssertionError, match="TABEL"):
        zero.migrate(migrated.database, migrated.folder.path)
    assert migrated.content() == before


def test_two_statements_without_a_breakpoint_run_only_the_first(
    migrated: Place, zero: Toolbox
) -> None:
    migrated.folder.add("c", "CREATE TABLE c(x); CREATE TABLE d(x);")
    zero.migrate(migrated.database, migrated.folder.path)
    assert migrated.query("SELECT name FROM sqlite_schema WHERE name IN ('c', 'd')") == [("c",)]
    assert our_codes(migrated) == set()


def test_a_deleted_parent_leaves_orphans(place: Place, zero: Toolbox) -> None:
    place.folder.add(
        "a",
        "CREATE TABLE parent(id INTEGER PRIMARY KEY);",
        "CREATE TABLE child(p REFERENCES parent(id));",
        "INSERT INTO parent VALUES (1);",
        "INSERT INTO child VALUES (1);",
    )
    zero.migrate(place.database, place.folder.path)
    place.folder.add("b", "PRAGMA foreign_keys=OFF;", "DELETE FROM parent;")
    zero.migrate(place.database, place.folder.path)
    assert len(place.query("PRAGMA foreign_key_check")) == 1
