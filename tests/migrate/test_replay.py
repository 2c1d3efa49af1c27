"""A folder is replayed in memory, and a live schema is found in it."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.errors import MigrationFailed
from local_mcp_gateway.migrate.replay import differences_from, extend, find_point, replay
from tests.migrate.workshop import Workshop


@pytest.fixture
def three(shop: Workshop) -> Workshop:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "CREATE TABLE b (x);")
    shop.add("0002_rows", "INSERT INTO a VALUES (1);")
    return shop


def test_the_last_migration_with_this_schema_is_found_and_the_first(
    three: Workshop, scratch: sqlite3.Connection
) -> None:
    migrations = three.read().migrations
    assert find_point(migrations, scratch).count == 0
    scratch.execute("CREATE TABLE a (x)")
    scratch.execute("CREATE TABLE b (x)")
    point = find_point(migrations, scratch)
    assert (point.count, point.earliest, point.differences) == (3, 2, ())


def test_a_schema_that_is_nowhere_is_compared_with_the_nearest(
    three: Workshop, scratch: sqlite3.Connection
) -> None:
    scratch.execute("CREATE TABLE a (x, y)")
    point = find_point(three.read().migrations, scratch)
    assert (point.count, point.nearest) == (None, 1)
    assert "a" in str(point.differences[0])
    assert differences_from(three.read().migrations[:1], scratch) == point.differences


def test_a_replay_that_fails_takes_back_only_the_last(three: Workshop) -> None:
    three.add("0003_bad", "CREATE TABLE c (x); CREATE TABLE a (x);")
    *good, bad = three.read().migrations
    with replay(good) as memory:
        with pytest.raises(MigrationFailed):
            extend(memory, bad)
        tables = memory.execute("SELECT name FROM sqlite_schema ORDER BY name").fetchall()
    assert tables == [("a",), ("b",)]
