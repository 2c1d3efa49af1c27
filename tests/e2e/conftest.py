"""Fixtures of the tests that go through whole commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Place

FAILED = frozenset({1, 2, 4, 5, 7, 9})
"""The exit codes that come with an error instead of a result."""


@pytest.fixture
def said(validate_json: Callable[[str, Any], None]) -> Callable[..., Any]:
    """Run a command with `--json`, hold what it says against its schema, and return it.

    What follows `--` is the command of a server: `said(place, "server add", "a", "--", "cmd")`.
    """

    def run(place: Place, name: str, *arguments: str | Path, code: int = 0) -> Any:
        words = [str(argument) for argument in arguments]
        end = words.index("--") if "--" in words else len(words)
        done = place.run(*name.split(), *words[:end], "--json", *words[end:])
        assert done.code == code, done.stderr + done.stdout
        value = done.json()
        validate_json("error" if code in FAILED else name.replace(" ", "-"), value)
        return value

    return run
