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
WHEN_PENDING = ("local_mcp_gateway.schema", "local_mcp_gateway.guard.rehearse")


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


@pytest.mark.parametrize(
    ("names", "starts"), [(HEAVY, ["created", "current"]), (WHEN_PENDING, ["current"])]
)
def test_a_start_loads_only_what_it_needs(
    place: Place, names: tuple[str, ...], starts: list[str]
) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    if "created" not in starts:
        run(place, ())
    assert [run(place, names) for _ in starts] == [[state, "[]"] for state in starts]
