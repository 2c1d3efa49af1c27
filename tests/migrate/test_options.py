"""SQL functions of the application: named by the settings, or offered by an installed package."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.errors import ConfigProblem
from local_mcp_gateway.migrate.options import ENTRY_POINTS, installed_functions, register
from local_mcp_gateway.schema import missing_hint


def answer_of(sql: str, functions: dict[str, object]) -> object:
    with closing(sqlite3.connect(":memory:")) as connection:
        register(connection, functions)  # type: ignore[arg-type]
        return connection.execute(sql).fetchone()[0]


def test_a_function_is_named_by_module_and_attribute() -> None:
    assert answer_of("SELECT join_path('a', 'b')", {"join_path": "posixpath:join"}) == "a/b"


def test_a_callable_is_taken_as_it_is() -> None:
    assert answer_of("SELECT shout('a')", {"shout": str.upper}) == "A"


def test_a_function_that_says_so_may_stand_in_an_index() -> None:
    def plain(text: str) -> str:
        return text.lower()

    def same(text: str) -> str:
        return text.lower()

    same.deterministic = True  # type: ignore[attr-defined]
    index = "CREATE TABLE t(a, b AS (%s(a))); CREATE INDEX i ON t(%s(a)) WHERE %s(a) > 'a'"
    with closing(sqlite3.connect(":memory:")) as connection:
        register(connection, {"plain": plain, "same": same})
        with pytest.raises(sqlite3.OperationalError, match="non-deterministic") as caught:
            connection.executescript(index.replace("%s", "plain"))
        assert "deterministic = True" in str(missing_hint(str(caught.value)))
        connection.executescript(index.replace("%s", "same"))


@pytest.mark.parametrize("target", ["nowhere:x", "posixpath:nothing", "posixpath", "posixpath:sep"])
def test_a_function_that_is_not_there_is_a_configuration_problem(target: str) -> None:
    with pytest.raises(ConfigProblem, match="SQL function f"):
        answer_of("SELECT f()", {"f": target})


def test_an_installed_package_offers_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_functions() == {}
    package = tmp_path / "offers-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: offers\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\njoin_path = posixpath:join\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert answer_of("SELECT join_path('a', 'b')", {}) == "a/b"
