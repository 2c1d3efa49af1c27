"""What safety costs on a large file: the backup against the bare one, a guarded start against `cp`.

Both floors run in turns with ours, on the same file and disk; the bounds are those of 1 GiB (`--long`). A start counts with everything on:
backup, read back and hashed; rehearsal; rows and keys verified; COMMIT, flush and check.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from benchmarks.table import Row, Size
from benchmarks.timing import in_turns

MEBIBYTES = {Size.QUICK: 16, Size.SHORT: 128, Size.LONG: 1024}
ROUNDS = {Size.QUICK: 2, Size.SHORT: 3, Size.LONG: 3}
PHASES = (
    "lock",
    "check",
    "plan",
    "hold",
    "backup",
    "rehearse",
    "apply",
    "verify",
    "commit",
    "durable",
)


def measure(size: Size) -> Iterable[Row]:
    """Yield what a backup and a guarded start cost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        migrations = folder / "migrations"
        database = folder / "large.db"
        add(migrations, "CREATE TABLE notes (id INTEGER PRIMARY KEY, kind TEXT, body TEXT)")
        guard_in_process(database, migrations)
        fill(database, MEBIBYTES[size])
        label = f"{database.stat().st_size / (1 << 20):.0f} MiB"
        yield from backups(database, folder, label, ROUNDS[size])
        yield from starts(database, migrations, folder, label, ROUNDS[size])


def add(migrations: Path, sql: str) -> None:
    """Add one migration to the folder."""
    journal = migrations / "meta" / "_journal.json"
    journal.parent.mkdir(parents=True, exist_ok=True)
    entries = json.loads(journal.read_text())["entries"] if journal.exists() else []
    tag = f"{len(entries):04d}_step"
    (migrations / f"{tag}.sql").write_text(sql)
    entries.append(
        {"idx": len(entries), "version": "6", "when": 1_900_000_000_000 + len(entries),
         "tag": tag, "breakpoints": True}
    )  # fmt: skip
    journal.write_text(json.dumps({"version": "7", "dialect": "sqlite", "entries": entries}))


def fill(database: Path, mebibytes: int) -> None:
    """Fill the table with rows of about 1 KiB, of text that differs from row to row."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO notes SELECT i, 'kind' || i % 10, hex(randomblob(480)) FROM n",
            (mebibytes * 1024,),
        )
        connection.execute("CREATE INDEX notes_by_kind ON notes (kind)")
        connection.execute("DROP INDEX notes_by_kind")  # the schema stays what the migrations made
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def backups(database: Path, folder: Path, label: str, rounds: int) -> Iterable[Row]:
    """Measure a backup that is verified and hashed against a bare one that is flushed and checked."""
    from local_mcp_gateway.backup import create_backup, scratch_copy

    def bare() -> float:
        target = folder / "bare.db"
        started = time.perf_counter()
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy, pages=-1)
        flush(target)
        quick_check(target)
        spent = time.perf_counter() - started
        target.unlink()
        return spent * 1000

    def ours() -> float:
        started = time.perf_counter()
        made = create_backup(
            database, before=None, fingerprint="", applied=(), program_version="benchmark"
        )
        spent = time.perf_counter() - started
        made.path.unlink()
        made.manifest.unlink()
        return spent * 1000

    floor, guarded_backup = in_turns(rounds, bare, ours)
    yield Row(
        f"backup of {label}, verified and hashed, to backup(-1) + fsync + quick_check",
        guarded_backup / floor,
        "×",
        at_most=1.3 if is_large(database) else None,
        note=f"{guarded_backup:.0f} ms, bare {floor:.0f} ms",
    )
    made = create_backup(
        database, before=None, fingerprint="", applied=(), program_version="benchmark"
    )
    started = time.perf_counter()
    with scratch_copy(made):
        spent = (time.perf_counter() - started) * 1000
    yield Row(f"copy of {label} for the rehearsal", spent, "ms")
    made.path.unlink()
    made.manifest.unlink()


def starts(
    database: Path, migrations: Path, folder: Path, label: str, rounds: int
) -> Iterable[Row]:
    """Measure a whole guarded start with one ADD COLUMN pending against `cp` + fsync + quick_check."""
    phases: dict[str, float] = {}

    def copied() -> float:
        target = folder / "copied.db"
        started = time.perf_counter()
        subprocess.run(["cp", database, target], check=True)
        flush(target)
        quick_check(target)
        spent = time.perf_counter() - started
        target.unlink()
        return spent * 1000

    def started() -> float:
        nonlocal phases
        number = len(json.loads((migrations / "meta" / "_journal.json").read_text())["entries"])
        add(migrations, f"ALTER TABLE notes ADD COLUMN added_{number} TEXT")
        begun = time.perf_counter()
        phases = guard_in_process(database, migrations)
        spent = time.perf_counter() - begun
        for path in (folder / "backups").iterdir():
            path.unlink()
        return spent * 1000

    floor, guarded_start = in_turns(rounds, copied, started)
    extra = sum(spent for name, spent in phases.items() if name not in ("apply", "commit"))
    yield Row(
        f"the guard's extra cost on {label}: all but apply and commit",
        extra,
        "ms",
        note=f"of {sum(phases.values()):.0f} ms",
    )
    yield Row(
        f"guarded start of {label} with ADD COLUMN, to cp + fsync + quick_check",
        guarded_start / floor,
        "×",
        at_most=3.3 if is_large(database) else None,
        note=f"{guarded_start:.0f} ms, floor {floor:.0f} ms; last: "
        + ", ".join(f"{name} {phases[name]:.0f}" for name in PHASES if name in phases),
    )


def guard_in_process(database: Path, migrations: Path) -> dict[str, float]:
    """Run the guard with everything on; return what each phase took, in milliseconds."""
    from local_mcp_gateway.guard import guarded

    with guarded(database, migrations) as report:
        return report.durations_ms


def is_large(database: Path) -> bool:
    """Tell whether the bounds apply: they are of 1 GiB, where bytes and not files and threads count."""
    return database.stat().st_size >= MEBIBYTES[Size.LONG] << 20


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def quick_check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
