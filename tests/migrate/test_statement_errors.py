"""An error of SQLite becomes one sentence with file, line and the marked place."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.errors import ForbiddenStatement, MigrationFailed
from local_mcp_gateway.migrate import Migration
from local_mcp_gateway.migrate.statement_errors import explain_failure, locate

SQL = "CREATE TABLE a (x);\n\nINSERT INTO a\nSELECT nothing FROM a;"
MIGRATION = Migration("0000_a", 0, 0, "", SQL, "/folder/0000_a.sql")


def failure(refusal: str | None = None) -> MigrationFailed | ForbiddenStatement:
    found = explain_failure(
        sqlite3.OperationalError("no such column: nothing"),
        MIGRATION,
        MIGRATION.statements[1],
        refusal,
    )
    assert isinstance(found, MigrationFailed | ForbiddenStatement)
    return found


def test_the_line_is_that_of_the_token_and_it_is_marked() -> None:
    found = failure()
    assert found.message == "0000_a.sql, line 4, statement 2: no such column: nothing."
    assert found.data["excerpt"] == "4 | SELECT nothing FROM a;\n  |        ^"


def test_a_refusal_names_the_statement() -> None:
    found = failure("a migration may not do this")
    assert found.message == "0000_a.sql, line 3, statement 2: a migration may not do this."


@pytest.mark.parametrize(
    ("message", "at"),
    [
        ('near "FORM": syntax error', 9),
        ("no such table: t", None),
        ("something else", None),
    ],
)
def test_a_token_that_is_not_there_exactly_once_has_no_place(message: str, at: int | None) -> None:
    assert locate(message, "SELECT 1 FORM t, t") == at
