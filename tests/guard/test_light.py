"""Who guards a database does not load the gateway for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import Place, clean_environment

CODE = """
import sys
from local_mcp_gateway.guard import guarded
with guarded("app.db", "migrations") as report:
    print(report.state)
print([name for name in sys.argv[1:] if name in sys.modules])
"""
HEAVY = ("click", "asyncio", "structlog", "msgspec", "sqlalchemy", "aiohttp", "starlette", "mcp")
WITH_ROWS = ("local_mcp_gateway.schema", "local_mcp_gateway.guard.rehearse")
"""What only a migration of a database with rows needs."""


def run(place: Place, names: tuple[str, ...]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *names],
        capture_output=True,
        text=True,
        cwd=place.root,
        env=clean_environment(place.home),
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("names", [HEAVY, WITH_ROWS], ids=["heavy", "with rows"])
def test_a_start_loads_only_what_it_needs(place: Place, names: tuple[str, ...]) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    assert [run(place, names) for _ in range(2)] == [["created", "[]"], ["current", "[]"]]


def test_a_migration_that_only_adds_does_not_load_the_schema(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    names = ("local_mcp_gateway.schema",)
    run(place, names)
    place.folder.add("b", "ALTER TABLE a ADD COLUMN y;")
    assert run(place, names) == ["migrated", "[]"]
