"""What the authorizer lets a statement do, and what it remembers of it."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.migrate.authorizer import Authorizer
from local_mcp_gateway.migrate.lineage import Change


def watched(scratch: sqlite3.Connection, *, foreign_keys: bool = False) -> Authorizer:
    authorizer = Authorizer(foreign_keys=foreign_keys)
    scratch.set_authorizer(authorizer.decide)
    return authorizer


def run(scratch: sqlite3.Connection, authorizer: Authorizer, sql: str) -> None:
    authorizer.start_statement(sql)
    scratch.execute(sql)


def test_what_happens_to_tables_is_recorded_in_order(scratch: sqlite3.Connection) -> None:
    authorizer = watched(scratch)
    for sql in ("CREATE TABLE a (x)", "DELETE FROM a", "DROP TABLE a"):
        run(scratch, authorizer, sql)
    assert authorizer.changes == [Change("create", "a"), Change("delete", "a"), Change("drop", "a")]


def test_an_added_column_is_no_change_of_a_table_as_a_whole(scratch: sqlite3.Connection) -> None:
    scratch.execute("CREATE TABLE a (x)")
    authorizer = watched(scratch)
    run(scratch, authorizer, "ALTER TABLE a ADD COLUMN y")
    assert (authorizer.changes, authorizer.refusal) == ([], None)


@pytest.mark.parametrize(
    "sql", ["COMMIT", "ATTACH ':memory:' AS other", "DELETE FROM __drizzle_migrations"]
)
def test_a_refused_statement_says_why(scratch: sqlite3.Connection, sql: str) -> None:
    scratch.execute("CREATE TABLE __drizzle_migrations (hash, created_at)")
    authorizer = watched(scratch)
    with pytest.raises(sqlite3.DatabaseError):
        run(scratch, authorizer, sql)
    assert authorizer.refusal is not None


def test_what_the_engine_does_itself_is_neither_refused_nor_recorded(
    scratch: sqlite3.Connection,
) -> None:
    authorizer = watched(scratch)
    with authorizer.suspended():
        scratch.execute("CREATE TABLE __drizzle_migrations (hash, created_at)")
    assert authorizer.changes == []
