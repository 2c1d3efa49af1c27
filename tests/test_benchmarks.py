"""What a start is compared with is what the program cannot do without: it loads all of it itself."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.startup import SERVE_FLOOR, STATUS_FLOOR
from tests.harness import Place

TELLING = {"PYTHONPROFILEIMPORTTIME": "1"}
"""Python writes a line for each import to stderr."""


def loaded(lines: Iterable[str]) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_the_floor_of_status_is_loaded_by_it(place: Place) -> None:
    done = place.run("db", "status", "--json", env=TELLING)
    assert set(STATUS_FLOOR) <= loaded(done.stderr.splitlines())


def test_the_floor_of_a_start_is_loaded_until_it_is_ready(shipped: Place) -> None:
    with shipped.serve(env=TELLING) as gateway:
        gateway.wait_ready()
        assert set(SERVE_FLOOR) <= loaded(gateway.lines)
        gateway.stop()
