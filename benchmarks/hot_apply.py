"""Dev mode: a migration is saved → applied → writers go on, measured from the file's close.

One gateway, many saves in turn, each with its backup and its rehearsal. The end is the event
`migration.hot_applied`, which is written once writers have resumed. For comparison, as far as the tests have
fetched it: what a person does without dev mode, `drizzle-kit migrate` by hand after each save.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from benchmarks.table import Row, Size
from tests.drizzle.toolbox import Toolbox
from tests.harness import REPOSITORY, MigrationFolder, new_place

SAVES = {Size.QUICK: 3, Size.SHORT: 20, Size.LONG: 100}
ROUNDS = {Size.QUICK: 1, Size.SHORT: 5, Size.LONG: 20}
DRIZZLE = REPOSITORY / ".pytest_cache" / "d" / "drizzle-0"
"""`make test ARGS=tests/drizzle` fetches it."""


def measure(size: Size) -> Iterable[Row]:
    times = sorted(saves(SAVES[size]))
    p95 = times[min(len(times) - 1, int(len(times) * 0.95))]
    note = f"{len(times)} saves, each backed up and rehearsed"
    yield Row(
        "dev: save to applied, median", statistics.median(times), "ms", at_most=150, note=note
    )
    yield Row("dev: save to applied, p95", p95, "ms", at_most=400)
    theirs = by_hand(ROUNDS[size])
    if theirs:
        mine = statistics.median(times)
        by_hand_ms = statistics.median(theirs)
        note = f"{mine:.0f} ms, drizzle-kit migrate {by_hand_ms:.0f} ms, {len(theirs)} rounds"
        yield Row("dev: save to applied / by hand", mine / by_hand_ms, "×", at_most=0.5, note=note)


def saves(count: int) -> list[float]:
    """Save that many migrations into a running gateway's folder; return milliseconds for each."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(REPOSITORY / "migrations", root / "migrations")
        place = new_place(root)
        with place.serve("--dev", env={"LMG_DEV__RELOAD": "false"}) as gateway:
            gateway.wait_for("dev.watching")
            gateway.wait_ready()
            first = len(place.folder.journal())
            for number in range(first, count + first):
                tag = f"{number:04d}_saved"
                path = place.folder.path / f"{tag}.sql"
                path.write_text(
                    f"CREATE TABLE saved_{number} (id INTEGER PRIMARY KEY, body TEXT);\n"
                )
                closed = time.perf_counter()
                gateway.wait_for("migration.hot_applied", where=partial(is_of, tag))
                times.append((time.perf_counter() - closed) * 1000)
            gateway.stop()
    return times


def by_hand(rounds: int) -> list[float]:
    """Write a migration and run `drizzle-kit migrate`, so many times; nothing where it is not there."""
    if not (DRIZZLE / "node_modules").exists():
        return []
    times: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = MigrationFolder(Path(name) / "migrations")
        for number in range(rounds + 1):
            folder.add("saved", f"CREATE TABLE saved_{number} (id INTEGER PRIMARY KEY, body TEXT)")
            closed = time.perf_counter()
            Toolbox(DRIZZLE).kit_migrate(Path(name) / "app.db", folder.path)
            times.append((time.perf_counter() - closed) * 1000)
    return times[1:]  # the first one made the database


def is_of(tag: str, event: dict[str, object]) -> bool:
    """Tell whether an event is about this migration."""
    return event["tag"] == tag
