"""The schema differ: a diff of 200 tables and 1,000 indexes, and rebuilds beside Drizzle Kit's."""

from __future__ import annotations

import itertools
import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.table import Row, Size
from local_mcp_gateway.schema import compare, fingerprint, inspect
from local_mcp_gateway.schema.drizzle import read_snapshot
from local_mcp_gateway.schema.plan import make_plan
from tests.corpus.folders import FOLDERS, NotFetched, fetch
from tests.schema.drizzle_kit import NotInstalled, installed, migrations_between

CACHE = Path(__file__).parents[1] / ".pytest_cache" / "d" / "corpus"
ROUNDS = {Size.QUICK: 3, Size.SHORT: 7, Size.LONG: 25}


def measure(size: Size) -> Iterator[Row]:
    """Yield the numbers of the differ."""
    small, large = database(12), database(200)
    edited = edit(database(200))
    rounds = ROUNDS[size]
    yield Row(
        "inspect 12 tables, 60 indexes",
        milliseconds(rounds, lambda: inspect(small)),
        "ms",
        at_most=6,
    )
    twelve = inspect(small)
    yield Row("fingerprint of them", milliseconds(rounds, lambda: fingerprint(twelve)), "ms")
    yield Row(
        "diff of 200 tables, 1,000 indexes",
        milliseconds(rounds, lambda: compare(inspect(large), inspect(edited))),
        "ms",
        at_most=250,
        note="both read from their databases",
    )
    old, new = inspect(large), inspect(edited)
    yield Row(
        "plan of it, proven in memory",
        milliseconds(rounds, lambda: make_plan(old, new)),
        "ms",
        at_most=250,
        note=f"{len(make_plan(old, new).statements)} statements",
    )
    if size is not Size.QUICK:
        yield from rebuilds()


def rebuilds() -> Iterator[Row]:
    """Count the tables that we rebuild and that Drizzle Kit rebuilds, on the same snapshots."""
    pairs = []
    try:
        kit = installed(CACHE)
        for folder in FOLDERS:
            if folder.name in {"promptfoo", "inkeep-agents-core", "alchemy"}:
                files = sorted((fetch(folder, CACHE) / "meta").glob("*_snapshot.json"))
                chain = [json.loads(file.read_text()) for file in files]
                pairs += list(itertools.pairwise(chain))
        drizzles = migrations_between(kit, pairs)
    except (NotFetched, NotInstalled) as why:
        yield Row("rebuilds beside drizzle-kit", 0, "tables", note=f"not measured: {why}")
        return
    plans = [make_plan(read_snapshot(old), read_snapshot(new)) for old, new in pairs]
    theirs = sum("INSERT INTO `__new_" in text for made in drizzles for text in made)
    ours = sum(plan.rebuilds for plan in plans)
    note = f"{len(pairs)} pairs of snapshots; drizzle-kit: {theirs}"
    yield Row("tables rebuilt", ours, "tables", at_most=theirs, note=note)
    statements = sum(len(plan.statements) for plan in plans)
    yield Row(
        "statements written",
        statements,
        "",
        at_most=sum(map(len, drizzles)),
        note="drizzle-kit's at most",
    )


def database(tables: int) -> sqlite3.Connection:
    """Return a database in memory with five indexes on each table."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for number in range(tables):
        connection.execute(
            f"CREATE TABLE t{number} (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL DEFAULT '', "
            "owner TEXT REFERENCES t0(id) ON DELETE CASCADE, a INTEGER, b REAL CHECK (b > 0), "
            "created_at INTEGER NOT NULL DEFAULT (unixepoch()), updated_at INTEGER, body TEXT)"
        )
        for column in ("name", "owner", "a", "b", "created_at"):
            connection.execute(f"CREATE INDEX t{number}_{column} ON t{number}({column})")
    return connection


def edit(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Change a tenth of the tables, one of them so that it has to be rebuilt."""
    for number in range(0, 200, 10):
        connection.execute(f"ALTER TABLE t{number} ADD COLUMN extra TEXT")
        connection.execute(f"CREATE INDEX t{number}_extra ON t{number}(extra)")
    connection.execute("DROP TABLE t7")
    connection.execute(
        "CREATE TABLE t7 (id TEXT PRIMARY KEY NOT NULL, name TEXT, a INTEGER UNIQUE)"
    )
    return connection


def milliseconds(rounds: int, work: Callable[[], object]) -> float:
    """Return the median CPU time of one call: nothing here waits, and the machine may be shared."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        taken.append((time.process_time() - started) * 1000)
    return statistics.median(taken)
