"""The engine beside SQLite itself: the same statements, the same result, or nothing at all."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.errors import GatewayError, VerificationFailed
from local_mcp_gateway.migrate.folder import Migration
from local_mcp_gateway.migrate.verify import count_rows, verify
from tests.migrate.workshop import apply_all

STATEMENT = st.sampled_from(
    [
        "CREATE TABLE a(id INTEGER PRIMARY KEY, x);",
        "CREATE TABLE IF NOT EXISTS b(id INTEGER PRIMARY KEY, x UNIQUE);",
        "INSERT INTO a(x) VALUES (1), (2), ('a;b');",
        "INSERT INTO b(x) VALUES (1), (2), (3);",
        "INSERT OR REPLACE INTO b(id, x) VALUES (1, 3);",
        "INSERT OR IGNORE INTO b(x) SELECT x FROM a;",
        "UPDATE OR REPLACE b SET x = 1;",
        "UPDATE a SET x = x || '--> statement-breakpoint';",
        "DELETE FROM a WHERE id = 1;",
        "DELETE FROM b;",
        "ALTER TABLE a RENAME TO c;",
        "ALTER TABLE b ADD COLUMN y DEFAULT 'new';",
        "DROP TABLE IF EXISTS c;",
        "DROP TABLE b;",
        "CREATE TABLE n(id INTEGER PRIMARY KEY, x); INSERT INTO n SELECT id, x FROM a; DROP TABLE a; ALTER TABLE n RENAME TO a;",
        "CREATE TRIGGER IF NOT EXISTS t AFTER DELETE ON a BEGIN DELETE FROM b WHERE id = old.id; SELECT CASE 1 WHEN 1 THEN 2 END; END;",
        "CREATE TEMP TABLE scratch AS SELECT 1;",
        "CREATE INDEX IF NOT EXISTS i ON b(x) -- a comment; with a semicolon\n;",
        "CREATE TABEL wrong(x);",
    ]
)
CHAINS = st.lists(st.lists(STATEMENT, min_size=1, max_size=4).map("\n".join), max_size=5)


def migration(number: int, sql: str) -> Migration:
    digest = hashlib.sha256(sql.encode()).hexdigest()
    return Migration(f"{number:04d}_m", number, number, digest, sql, f"/m/{number:04d}_m.sql")


def content(connection: sqlite3.Connection) -> list[str]:
    return [
        line
        for line in connection.iterdump()
        if "__drizzle_migrations" not in line and "__guard_history" not in line
    ]


def with_sqlite(connection: sqlite3.Connection, sql: str) -> bool:
    """Run a file as the sqlite3 shell would, in one transaction; tell whether it succeeded."""
    try:
        connection.executescript(f"BEGIN;\n{sql}\nCOMMIT;")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        return False
    finally:
        connection.executescript("DROP TABLE IF EXISTS temp.scratch;")
    return True


def with_engine(connection: sqlite3.Connection, step: Migration) -> type[GatewayError] | None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = count_rows(connection)
        steps = apply_all(connection, [step])
        verify(connection, before, steps)
    except GatewayError as error:
        connection.execute("ROLLBACK")
        return type(error)
    connection.execute("COMMIT")
    return None


@settings(max_examples=150, deadline=None)
@given(CHAINS)
def test_the_engine_does_what_sqlite_does_or_nothing(chain: list[str]) -> None:
    with closing(open_scratch()) as ours, closing(open_scratch()) as theirs:
        for number, sql in enumerate(chain):
            before = content(ours)
            refusal = with_engine(ours, migration(number, sql))
            if refusal is VerificationFailed:  # rows went without a DELETE: SQLite does not mind
                assert content(ours) == before
                continue
            assert with_sqlite(theirs, sql) == (refusal is None)
            assert content(ours) == content(theirs)
            assert not ours.execute("SELECT * FROM sqlite_temp_schema").fetchall()
