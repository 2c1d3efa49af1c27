"""Only the engine's own rooms know which database this is, and speak its dialect."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import local_mcp_gateway
from local_mcp_gateway.database.connections import open_scratch, table_names
from local_mcp_gateway.database.integrity import examine_engine

PACKAGE = Path(local_mcp_gateway.__file__).parent
ELSEWHERE = ("cli", "config", "gateway", "guard", "log", "service", "store")
"""Parts that run on any engine. Which of them import its driver, the import rules say."""
DIALECT = re.compile(r"\b(PRAGMA|SAVEPOINT|ATTACH|DETACH|VACUUM|sqlite_schema|sqlite_master)\b")


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the strings that a module works with, not the prose about it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


@pytest.mark.parametrize("part", ELSEWHERE)
def test_a_part_that_runs_on_any_engine_speaks_no_dialect(part: str) -> None:
    spoken = [
        f"{path.relative_to(PACKAGE)}:{text.lineno}: {text.value!r}"
        for path in sorted((PACKAGE / part).rglob("*.py"))
        for text in texts(ast.parse(path.read_text()))
        if DIALECT.search(str(text.value))
    ]
    assert spoken == []


def test_the_rule_finds_what_it_is_about() -> None:
    spoken = 'def f(c):\n    """PRAGMA in prose."""\n    c.execute(f"PRAGMA {c} = 1")\n'
    assert [text.value for text in texts(ast.parse(spoken)) if DIALECT.search(str(text.value))] == [
        "PRAGMA "
    ]


def test_the_engine_that_runs_the_tests_is_good_enough() -> None:
    engine = examine_engine()
    assert engine.hint == ""
    assert engine.message.startswith("SQLite 3.")


def test_tables_are_named_and_indexes_are_not() -> None:
    connection = open_scratch()
    assert table_names(connection) == frozenset()
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT UNIQUE)")
    assert table_names(connection) == {"notes"}
    connection.close()
