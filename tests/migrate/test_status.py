"""The state of a database and its folder, without a lock and without a write."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import Exit
from local_mcp_gateway.migrate import Status, read_events
from local_mcp_gateway.migrate.folder import Migration
from local_mcp_gateway.migrate.status import is_data_independent
from tests.migrate.workshop import Workshop


def status(shop: Workshop) -> Status:
    return Status.read(shop.database, shop.path)


def test_a_state_follows_the_ledger(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    assert (status(shop).state, status(shop).empty) == ("new", True)
    shop.apply()
    assert (status(shop).state, status(shop).exit_code) == ("current", Exit.OK)
    shop.add("0001_b", "ALTER TABLE a DROP COLUMN x;")
    shop.add("0000_c", "CREATE TABLE c (x);", when=1)
    assert (status(shop).state, status(shop).exit_code) == ("refused", Exit.REFUSED)


def test_hazards_are_those_on_the_schema_that_a_migration_meets(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.apply()
    shop.add("0001_y", "ALTER TABLE a ADD COLUMN y;")
    shop.add("0002_y", "ALTER TABLE a DROP COLUMN y;")
    found = status(shop)
    assert (found.state, found.exit_code) == ("pending", Exit.DIFFERS)
    assert [{hazard.object for hazard in entry.hazards} for entry in found.pending] == [
        set(),
        {"a.y"},
    ]


def test_a_file_that_is_no_database_is_a_state(shop: Workshop) -> None:
    shop.database.write_bytes(
        b"not a database, but long enough to have a header of a hundred bytes" * 2
    )
    assert (status(shop).state, status(shop).exit_code) == ("damaged", Exit.DAMAGED)


def test_a_database_that_is_not_there_has_no_history(shop: Workshop) -> None:
    assert read_events(shop.database) == ()


@pytest.mark.parametrize(
    ("sql", "safe"),
    [
        ("CREATE TABLE a (x)", True),
        ("CREATE TABLE a AS SELECT 1", False),
        ("ALTER TABLE a ADD COLUMN x TEXT", True),
        ("ALTER TABLE a ADD COLUMN x TEXT NOT NULL", False),
        ("CREATE UNIQUE INDEX i ON a (x)", False),
        ("UPDATE a SET x = 1", False),
    ],
)
def test_only_what_reads_no_row_cannot_fail_on_one(sql: str, safe: bool) -> None:
    assert is_data_independent(Migration("0000_a", 0, 0, "", sql, "0000_a.sql")) == safe
