"""Guards that are broken on purpose, so that the laboratory shows that it can fail.

Each is called in the process that then runs the program; nothing else uses them. `clock_back` is no
broken guard: the clock is set back under a right one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def no_backup_fsync() -> None:
    """Flush neither a backup nor the folder that it is in."""
    flush = os.fsync

    def skip(descriptor: int) -> None:
        if "/backups" not in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            flush(descriptor)

    os.fsync = skip  # type: ignore[assignment]


def commit_each() -> None:
    """Commit after each migration instead of after the last."""
    from local_mcp_gateway.migrate import batch as engine
    from local_mcp_gateway.migrate.apply import run_batch
    from local_mcp_gateway.migrate.plan import Batch

    def apply_one_by_one(batch: Batch, ledger: Any, **values: Any) -> Any:
        steps: tuple[Any, ...] = ()
        for migration in batch.migrations:
            steps += run_batch(Batch.of((migration,)), ledger, **values)
            ledger.connection.execute("COMMIT")
            ledger.connection.execute("BEGIN IMMEDIATE")
        return steps

    engine.run_batch = apply_one_by_one  # type: ignore[attr-defined]


def ledger_outside() -> None:
    """Write the ledger's rows in a second transaction, after the first is committed."""
    from local_mcp_gateway.database import transactions
    from local_mcp_gateway.guard import transaction
    from local_mcp_gateway.migrate.ledger import Ledger

    record = Ledger.record
    late: list[Callable[[], None]] = []

    def record_later(*arguments: Any, **values: Any) -> None:
        late.append(lambda: record(*arguments, **values))

    Ledger.record = record_later  # type: ignore[method-assign]
    commit = transactions.commit_and_compare

    def commit_then_record(live: Any, path: Path) -> None:
        commit(live, path)
        live.execute("BEGIN IMMEDIATE")
        late[-1]()
        live.execute("COMMIT")

    transaction.commit_and_compare = commit_then_record  # type: ignore[attr-defined, assignment]


def clock_back() -> None:
    """Set the clock to 2001 for everything that asks Python for the time."""
    shift_s = 25 * 365 * 86400
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() - shift_s
    time.time_ns = lambda: now_ns() - shift_s * 10**9
    import datetime as dt

    class Earlier(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Earlier:
            return cls.fromtimestamp(time.time(), tz)

    dt.datetime = Earlier  # type: ignore[misc]


GUARDS: Mapping[str, str] = {
    "commit_each": "kill",
    "ledger_outside": "kill",
    "no_backup_fsync": "power",
}
"""Each broken guard, and what shows that it is."""
