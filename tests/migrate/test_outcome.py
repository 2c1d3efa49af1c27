"""What migrations make of an empty database: what counts as the same, and what depends on the moment."""

from __future__ import annotations

import pytest

from local_mcp_gateway.migrate.outcome import Outcome, as_statements, outcome_of
from tests.migrate.workshop import Workshop


def made(shop: Workshop, sql: str, seed: int = 0) -> Outcome:
    shop.entries.clear()
    shop.add("0000_m", sql)
    return outcome_of(shop.read().migrations, seed=seed)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("CREATE TABLE t (x)", "CREATE TABLE t (x, y)", "table t"),
        ("CREATE TABLE t (x)", "CREATE TABLE t (x); CREATE INDEX i ON t (x)", "index i"),
        ("CREATE TABLE t (x); INSERT INTO t VALUES (1)", "CREATE TABLE t (x)", "the rows of t"),
        (
            "CREATE TABLE t (x); INSERT INTO t VALUES (1)",
            "CREATE TABLE t (x); INSERT INTO t VALUES (1.0)",
            "the rows of t",
        ),
        (
            "CREATE TABLE t (x); INSERT INTO t VALUES (1)",
            "CREATE TABLE t (x); INSERT INTO t (rowid, x) VALUES (2, 1)",
            "the rows of t",
        ),
        (
            "CREATE TABLE t (x INTEGER PRIMARY KEY AUTOINCREMENT)",
            (
                "CREATE TABLE t (x INTEGER PRIMARY KEY AUTOINCREMENT);"
                "INSERT INTO t VALUES (1); DELETE FROM t"
            ),
            "the numbers of AUTOINCREMENT",
        ),
        ("PRAGMA user_version=1", "PRAGMA user_version=2", "PRAGMA user_version"),
        ("CREATE TABLE t (x)", "CREATE TABLE IF NOT EXISTS t (x)  ", None),
    ],
)
def test_the_first_difference_is_named(
    shop: Workshop, one: str, other: str, told: str | None
) -> None:
    assert made(shop, one).first_difference(made(shop, other)) == told


@pytest.mark.parametrize(
    "value",
    [
        "CURRENT_TIMESTAMP",
        "CURRENT_DATE || CURRENT_TIME",
        "date('now')",
        "time()",
        "datetime('now', '-1 day')",
        "julianday('NOW')",
        "strftime('%s', 'now')",
        "strftime('%s')",
        "unixepoch()",
        "random()",
        "hex(randomblob(8))",
    ],
)
def test_time_and_chance_follow_from_the_surroundings(shop: Workshop, value: str) -> None:
    sql = f"CREATE TABLE t (x); INSERT INTO t VALUES ({value})"
    first, again, elsewhere = (made(shop, sql, seed) for seed in (0, 0, 1))
    assert first.first_difference(again) is None
    assert first.first_difference(elsewhere) == "the rows of t"


def test_a_fixed_time_is_the_same_everywhere(shop: Workshop) -> None:
    sql = (
        "CREATE TABLE t (x, y AS (date(x)), CHECK (julianday(x) > 0)); CREATE INDEX i ON t (date(x));"
        "INSERT INTO t VALUES (datetime('2024-02-29 12:00', '+1 month')), (strftime('%Y', 2460000.5))"
    )
    assert made(shop, sql).first_difference(made(shop, sql, 1)) is None


def test_a_moment_is_written_as_the_default_that_made_it(shop: Workshop) -> None:
    sql = (
        "CREATE TABLE t (x, y DEFAULT (strftime('%d.%m.%Y', 'now')), z INTEGER DEFAULT (unixepoch()));"
        "INSERT INTO t (x) VALUES (1)"
    )
    written = as_statements(made(shop, sql), made(shop, sql, 1))
    assert (
        "(1, (strftime('%d.%m.%Y', 'now')), CAST(strftime('%s', 'now') AS INTEGER))" in written[1]
    )
