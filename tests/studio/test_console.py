"""SQL by hand reads, and does nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database import Connection, reading
from local_mcp_gateway.studio.console import MOST_ROWS, run, run_until_left
from local_mcp_gateway.studio.visit import Powers
from tests.harness import DEADLINE_S
from tests.studio.conftest import Browser

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {} FROM n"


@pytest.fixture(scope="module")
def powers(database: Path) -> Powers:
    return Powers(database, masked=frozenset({("people", "note")}))


def values(powers: Powers, sql: str) -> list[list[Any]]:
    outcome = run(powers, sql)
    assert not outcome.refused, outcome.refused
    return [[cell.value for cell in row] for row in outcome.rows]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE people SET name = 'x'",
        "DELETE FROM people",
        "INSERT INTO people (name) VALUES ('x')",
        "UPDATE sqlite_master SET sql = 'x'",
        "DROP TABLE people",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "ATTACH '/tmp/other.db' AS other",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO '/tmp/stolen.db'",
        "REINDEX",
        "ANALYZE",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "PRAGMA query_only = 0",
        "PRAGMA user_version = 7",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT readfile('/etc/passwd')",
        "SELECT * FROM sqlite_dbpage",
        "WITH x AS (SELECT 1) DELETE FROM people",
        "SELECT 1; DELETE FROM people",
        "EXPLAIN DELETE FROM people",
    ],
)
def test_what_writes_or_reaches_outside_is_refused(powers: Powers, sql: str) -> None:
    before = powers.database.read_bytes()
    assert run(powers, sql).refused
    assert powers.database.read_bytes() == before
    assert not Path("/tmp/stolen.db").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name, length(name) FROM people WHERE id < 3",
        "SELECT name FROM pragma_table_info('people')",
        "PRAGMA table_info(people)",
        "PRAGMA user_version",
        "EXPLAIN QUERY PLAN SELECT * FROM people",
        "SELECT sum(id) OVER (ORDER BY id) FROM people",
        "SELECT * FROM texts WHERE texts MATCH 'grey'",
        "VALUES (1, 2)",
        "  -- a comment\nSELECT 1",
    ],
)
def test_what_reads_is_answered(powers: Powers, sql: str) -> None:
    assert values(powers, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT api_token FROM people",
        "SELECT p.api_token AS harmless FROM people p",
        "SELECT max(api_token), max(note) FROM people",
        "SELECT * FROM (SELECT api_token || note AS x FROM people)",
        "SELECT count(*) FROM people WHERE api_token LIKE 'hunter%'",
        "SELECT group_concat(note) FROM people",
    ],
)
def test_columns_with_secrets_read_as_null(powers: Powers, sql: str) -> None:
    found = {value for row in values(powers, sql) for value in row}
    assert found <= {None, 0}


def test_rows_time_and_the_size_of_a_value_are_limited(
    powers: Powers, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run(powers, ENDLESS.format("x"))
    assert (len(outcome.rows), outcome.more) == (MOST_ROWS, True)
    monkeypatch.setattr("local_mcp_gateway.studio.console.LIMIT_S", 0.05)
    assert "was stopped" in run(powers, ENDLESS.format("max(x)")).refused
    assert "too big" in run(powers, "SELECT zeroblob(100000000)").refused


def test_a_blob_and_a_long_text_are_shown_by_their_size(powers: Powers) -> None:
    ((cell, text),) = run(powers, "SELECT body, hex(zeroblob(5000)) FROM files WHERE id = 1").rows
    assert (cell.kind, cell.value, cell.length) == ("blob", None, 20_000_000)
    assert (len(text.value), text.length) == (200, 10_000)


@pytest.mark.parametrize("sql", ["", "  ", "SELEC 1", "SELECT * FROM nowhere", "SELECT 1 \x00"])
def test_what_is_no_statement_is_refused_in_the_words_of_sqlite(powers: Powers, sql: str) -> None:
    outcome = run(powers, sql)
    assert outcome.refused or not outcome.rows


@pytest.mark.parametrize("early", [True, False], ids=["before it runs", "while it runs"])
async def test_a_statement_ends_when_its_browser_leaves(
    powers: Powers, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    runs, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell() -> int:
        loop.call_soon_threadsafe(runs.set)
        return 0

    @contextmanager
    def look(path: Path) -> Iterator[Connection]:
        with reading(path) as connection:
            connection.create_function("tell", 0, tell, deterministic=True)
            yield connection

    async def receive() -> dict[str, str]:
        if not early:
            await runs.wait()
        return {"type": "http.disconnect"}

    monkeypatch.setattr("local_mcp_gateway.studio.console.LIMIT_S", DEADLINE_S)
    telling = replace(powers, look=look)
    outcome = await run_until_left(telling, ENDLESS.format("max(x + tell())"), receive)
    assert outcome.refused
    assert outcome.took_ms < DEADLINE_S * 1000, "it was the limit that ended it"


def test_the_page_runs_a_statement_and_keeps_it(browser: Browser) -> None:
    reply = browser.post("/studio/sql", sql="SELECT name, '<b>' FROM profiles")
    assert reply.status == 200
    assert "default" in reply.words
    assert "&lt;b&gt;" in reply.text
    assert "SELECT name" in browser.page("/studio/sql").words
    refused = browser.post("/studio/sql", sql="DELETE FROM profiles")
    assert refused.status == 400
    assert "Only reading is possible here" in refused.words
    assert "DELETE FROM profiles" in refused.words
    sealed = browser.post("/studio/sql", sql="SELECT env, headers FROM mcp_servers")
    assert "A_TOKEN" not in sealed.text
