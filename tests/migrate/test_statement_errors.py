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


@pytest.mark.parametrize("at", [0, 3_000, 20_000])
def test_of_a_long_line_the_part_around_the_place_is_shown(at: int) -> None:
    words = ["x" * 10] * 2_000
    words.insert(at // 10, "nothing")
    sql = f"SELECT {', '.join(words)};"
    migration = Migration("0000_a", 0, 0, "", sql, "/folder/0000_a.sql")
    error = sqlite3.OperationalError("no such column: nothing")
    found = explain_failure(error, migration, migration.statements[0], None)
    shown, caret = str(found.data["excerpt"]).splitlines()
    assert shown[caret.index("^") :].startswith("nothing")
    assert len(shown) < 140
    assert shown.endswith("…") is (at < 20_000)


def test_a_long_text_that_sqlite_quotes_is_shortened() -> None:
    error = sqlite3.OperationalError(f'unrecognized token: "\'{"x" * 9_000}"')
    found = explain_failure(error, MIGRATION, MIGRATION.statements[1], None)
    assert "unrecognized token: \"'xxx" in found.message
    assert len(found.message) < 200


@pytest.mark.parametrize("parameter", ["?", ":name", "@name", "$name", "?5"])
def test_a_parameter_has_no_value_in_a_migration(parameter: str) -> None:
    sql = f"SELECT {parameter};"
    migration = Migration("0000_a", 0, 0, "", sql, "/folder/0000_a.sql")
    with pytest.raises(sqlite3.ProgrammingError) as caught:
        sqlite3.connect(":memory:").execute(sql)
    found = explain_failure(caught.value, migration, migration.statements[0], None)
    assert found.message == (
        "0000_a.sql, line 1, statement 1: a migration has no values for parameters (`?`, `:name`)."
    )
    assert "Write the value itself" in found.hint
