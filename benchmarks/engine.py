"""The migration engine compared with a bare Python loop that does the least that can be called migrating.

The floor reads, hashes and compares every file, runs the statements in one transaction and writes the
ledger: no lock, no checks, no durable pragmas. Both are whole processes, run in turns, and of each the
fastest run counts: the work is the same every time, and another process on the machine only adds to it.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from benchmarks.table import Row, Size
from benchmarks.timing import in_turns, process_ms
from tests.drizzle.toolbox import Toolbox

ROUNDS = {Size.QUICK: 1, Size.SHORT: 5, Size.LONG: 15}
FLOOR = """
import hashlib, json, os, sqlite3, sys
database, folder = sys.argv[1:]
db = sqlite3.connect(database, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("CREATE TABLE IF NOT EXISTS __drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)")
applied = {row[0] for row in db.execute("SELECT hash FROM __drizzle_migrations")}
for entry in json.load(open(folder + "/meta/_journal.json"))["entries"]:
    text = open(folder + "/" + entry["tag"] + ".sql", "rb").read()
    digest = hashlib.sha256(text).hexdigest()
    if digest not in applied:
        for statement in text.decode().split("--> statement-breakpoint"):
            db.execute(statement)
        db.execute("INSERT INTO __drizzle_migrations (hash, created_at) VALUES (?, ?)", (digest, entry["when"]))
db.execute("COMMIT")
"""


def measure(size: Size) -> Iterable[Row]:
    """Yield what the engine costs."""
    rounds = ROUNDS[size]
    with tempfile.TemporaryDirectory() as root:
        work = Path(root)
        folder = write_folder(work / "thousand", 1000)
        yield applied_fresh(work, folder, rounds)
        yield applied_on_rows(work, folder, rounds)
        yield nothing_pending(work, folder, rounds, 1000)
        yield status(work, folder, rounds)
        yield from beside_drizzle(work, folder, rounds)
        if size is Size.LONG:
            many = write_folder(work / "five-thousand", 5000)
            yield nothing_pending(work, many, rounds, 5000)
            yield memory(work, many)


def write_folder(path: Path, count: int) -> Path:
    """Write a folder in Drizzle's format: tables with an index, then columns added to them."""
    (path / "meta").mkdir(parents=True)
    entries = []
    for number in range(count):
        tag = f"{number:04d}_step"
        if number % 2:
            sql = f"ALTER TABLE `t{number - 1}` ADD COLUMN `note` text;"
        else:
            sql = (
                f"CREATE TABLE `t{number}` (\n\t`id` integer PRIMARY KEY NOT NULL,\n\t`name` text NOT NULL\n);"
                f"\n--> statement-breakpoint\nCREATE INDEX `i{number}` ON `t{number}` (`name`);"
            )
        (path / f"{tag}.sql").write_text(sql)
        when = 1_700_000_000_000 + number
        entries.append(
            {"idx": number, "version": "6", "when": when, "tag": tag, "breakpoints": True}
        )
    journal = {"version": "7", "dialect": "sqlite", "entries": entries}
    (path / "meta" / "_journal.json").write_text(json.dumps(journal))
    return path


def ours(database: Path, folder: Path, *arguments: str) -> list[str]:
    """Return the command that a person would type."""
    options = ["--database", str(database), "--migrations", str(folder)]
    return [str(Path(sys.executable).with_name("local-mcp-gateway")), *options, "db", *arguments]


def floor(database: Path, folder: Path) -> list[str]:
    """Return the bare loop as a process."""
    return [sys.executable, "-c", FLOOR, str(database), str(folder)]


def afresh(work: Path, command: Callable[[Path], list[str]], start: Path | None) -> float:
    """Time a command on a new database, or on a copy of one."""
    place = Path(tempfile.mkdtemp(dir=work))
    database = place / "x.db"
    if start is not None:
        shutil.copy(start, database)
    try:
        return process_ms(command(database))
    finally:
        shutil.rmtree(place)


def applied_fresh(work: Path, folder: Path, rounds: int) -> Row:
    """Measure 1,000 pending migrations on a new database."""
    bare, guard = in_turns(
        rounds,
        lambda: afresh(work, lambda database: floor(database, folder), None),
        lambda: afresh(work, lambda database: ours(database, folder, "migrate"), None),
        of=min,
    )
    note = f"{guard:.0f} ms, floor {bare:.0f} ms"
    return Row("1,000 pending, new database / floor", guard / bare, "×", at_most=1.15, note=note)


def applied_on_rows(work: Path, folder: Path, rounds: int) -> Row:
    """Measure 1,000 pending migrations on a database with rows: backup and rehearsal included."""
    start = work / "rows.db"
    with closing(sqlite3.connect(start)) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)")
        names = ((f"person {number}",) for number in range(10_000))
        connection.executemany("INSERT INTO people (name) VALUES (?)", names)
        connection.commit()
    bare, guard = in_turns(
        rounds,
        lambda: afresh(work, lambda database: floor(database, folder), start),
        lambda: afresh(work, lambda database: ours(database, folder, "migrate"), start),
        of=min,
    )
    note = f"{guard:.0f} ms, floor {bare:.0f} ms; backup and rehearsal included"
    return Row("1,000 pending, 10,000 rows / floor", guard / bare, "×", at_most=2.6, note=note)


def nothing_pending(work: Path, folder: Path, rounds: int, count: int) -> Row:
    """Measure a guard in process with nothing to do, and a loop that reads and hashes each file."""
    from local_mcp_gateway.guard import guarded

    database = work / f"{count}.db"
    if not database.exists():
        subprocess.run(ours(database, folder, "migrate"), check=True, capture_output=True)
    entries = json.loads((folder / "meta" / "_journal.json").read_bytes())["entries"]

    def loop() -> float:
        started = time.perf_counter()
        for entry in entries:
            text = (folder / f"{entry['tag']}.sql").read_bytes()
            hashlib.sha256(text).hexdigest()
        return (time.perf_counter() - started) * 1000

    def guard() -> float:
        started = time.perf_counter()
        with guarded(database, folder):
            return (time.perf_counter() - started) * 1000

    bare, taken = in_turns(rounds * 3, loop, guard, of=min)
    note = f"{taken:.1f} ms, loop {bare:.1f} ms"
    return Row(
        f"nothing pending, {count:,} / hash loop", taken / bare, "×", at_most=1.15, note=note
    )


def status(work: Path, folder: Path, rounds: int) -> Row:
    """Measure `db status` as a whole process with 1,000 migrations."""
    database = work / "1000.db"
    times = [process_ms(ours(database, folder, "status", "--json")) for _ in range(rounds)]
    return Row("db status, 1,000 applied", min(times), "ms")


def beside_drizzle(work: Path, folder: Path, rounds: int) -> Iterable[Row]:
    """Measure whole processes beside drizzle-orm and drizzle-kit, where the tests have fetched them."""
    place = Path(__file__).parents[1] / ".pytest_cache" / "d" / "drizzle-0"
    if not (place / "complete").exists():
        return  # `make test ARGS=tests/drizzle` fetches them
    drizzle = Toolbox(place)
    drizzle.migrate(work / "theirs.db", folder)

    def timed(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        return (time.perf_counter() - started) * 1000

    def fresh() -> float:
        with tempfile.TemporaryDirectory(dir=work) as name:
            return timed(lambda: drizzle.migrate(Path(name) / "x.db", folder))

    theirs, mine = in_turns(
        rounds,
        fresh,
        lambda: afresh(work, lambda database: ours(database, folder, "migrate"), None),
        of=min,
    )
    note = f"{mine:.0f} ms, drizzle-orm {theirs:.0f} ms"
    yield Row("1,000 pending, new database / drizzle-orm", mine / theirs, "×", at_most=1, note=note)
    theirs, mine = in_turns(
        rounds * 3,
        lambda: timed(lambda: drizzle.migrate(work / "theirs.db", folder)),
        lambda: process_ms(ours(work / "1000.db", folder, "migrate")),
        of=min,
    )
    note = f"{mine:.0f} ms, drizzle-orm {theirs:.0f} ms"
    yield Row("nothing pending, process / drizzle-orm", mine / theirs, "×", at_most=0.5, note=note)
    write_snapshots(folder)
    theirs, mine = in_turns(
        rounds * 3,
        lambda: timed(lambda: drizzle.check(folder)),
        lambda: process_ms(ours(work / "1000.db", folder, "status", "--json")),
        of=min,
    )
    note = f"{mine:.0f} ms, drizzle-kit check {theirs:.0f} ms"
    yield Row("db status, 1,000 / drizzle-kit check", mine / theirs, "×", at_most=1 / 3, note=note)


def write_snapshots(folder: Path) -> None:
    """Write the least chain of snapshots that `drizzle-kit check` reads."""
    before = "00000000-0000-0000-0000-000000000000"
    for number in range(len(list(folder.glob("*.sql")))):
        identity = f"00000000-0000-0000-0000-{number + 1:012d}"
        snapshot = {"version": "6", "dialect": "sqlite", "id": identity, "prevId": before}
        empty: dict[str, object] = {
            "tables": {},
            "views": {},
            "enums": {},
            "internal": {"indexes": {}},
        }
        meta: dict[str, object] = {"_meta": {"schemas": {}, "tables": {}, "columns": {}}}
        file = folder / "meta" / f"{number:04d}_snapshot.json"
        file.write_text(json.dumps({**snapshot, **empty, **meta}))
        before = identity


def memory(work: Path, folder: Path) -> Row:
    """Measure the largest resident set of `db migrate` with 5,000 migrations applied."""
    subprocess.run(ours(work / "5000.db", folder, "migrate"), check=True, capture_output=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Row("peak memory of all runs, 5,000", peak, "MiB", at_most=60)
