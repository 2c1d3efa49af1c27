"""The snapshots of Drizzle 1.x that we write; the real drizzle-kit reads them in `tests/drizzle`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from local_mcp_gateway.schema import FIRST, compare, inspect, read_snapshot
from local_mcp_gateway.schema.drizzle_1 import as_snapshots_see, write_snapshot_7

SCHEMA = """
CREATE TABLE Users (Id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL DEFAULT 'it''s' UNIQUE,
  low TEXT DEFAULT (lower('A')), made TEXT DEFAULT CURRENT_TIMESTAMP, twice TEXT AS (name || name) STORED,
  CHECK (Id > 0), CONSTRAINT short CHECK (length(name) < 9));
CREATE TABLE posts (a INTEGER REFERENCES users ON DELETE CASCADE, b TEXT, c TEXT, PRIMARY KEY (a, b),
  CONSTRAINT pair UNIQUE (b, c), CONSTRAINT upwards FOREIGN KEY (c) REFERENCES Users (name) ON UPDATE SET NULL);
CREATE UNIQUE INDEX by_low ON Users (lower(NAME), "low" DESC, Id) WHERE Id > 1;
CREATE VIEW names AS SELECT name FROM Users;
CREATE TABLE strict (x TEXT COLLATE NOCASE) STRICT;
"""


def entities(kind: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        written = write_snapshot_7(inspect(connection), [FIRST])
    return [entity for entity in written["ddl"] if entity["entityType"] == kind]


def test_what_is_written_is_read_back_but_for_what_drizzle_cannot_say() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        schema = inspect(connection)
    written = write_snapshot_7(schema, ["a", "b"])
    assert (written["version"], written["prevIds"]) == ("7", ["a", "b"])
    found = read_snapshot(written)
    assert compare(found, as_snapshots_see(schema, version="7")) == ()
    assert {d.object for d in compare(schema, found)} == {"strict", "strict.x"}


def test_a_constraint_without_a_name_gets_the_one_that_drizzle_gives() -> None:
    names = [
        (entity["name"], entity["nameExplicit"])
        for kind in ("pks", "fks", "uniques")
        for entity in entities(kind)
    ]
    assert names == [
        ("Users_pk", False),
        ("posts_pk", False),
        ("fk_posts_a_Users_Id_fk", False),
        ("upwards", True),
        ("Users_name_unique", False),
        ("pair", True),
    ]
    assert [check["name"] for check in entities("checks")] == ["Users_check1", "short"]


def test_an_index_names_its_columns_as_the_table_does() -> None:
    (index,) = entities("indexes")
    assert [(part["value"], part["isExpression"]) for part in index["columns"]] == [
        ("lower(NAME)", True),
        ('"low" DESC', True),
        ("Id", False),
    ]
    assert index["where"] == "Id > 1"
