"""Fetch a state of the replica into a file next to the database, to restore it or to compare it with the live one.

SQLite's check does not show that Litestream sent what never was (its file was replaced, or a second database
writes to the URL). So a check compares every row with the live database.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from local_mcp_gateway.backup import fetched_folder, named_failures, rows_lost, unhurried
from local_mcp_gateway.database import UNWATCHED, check_sound, data_version, reading, table_names
from local_mcp_gateway.errors import Damaged, NotADatabase, ReplicaProblem, UsageProblem
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.migrate import Ledger
from local_mcp_gateway.schema import is_engines
from local_mcp_gateway.service.replica.sent import fetch
from local_mcp_gateway.service.replica.store import ReplicaStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from local_mcp_gateway.database import Connection, Run
    from local_mcp_gateway.service.replica.store import Target

ATTEMPTS: Final = 3
"""How often a comparison with a database that is written meanwhile is tried."""


@contextmanager
def fetched(
    target: Target,
    database: Path,
    *,
    moment: datetime | None = None,
    txid: int | None = None,
    run: Run = UNWATCHED,
) -> Iterator[Path]:
    """Yield a file, next to the database, with its state at a moment or after a transaction.

    Raises ReplicaProblem, NoRoom, Interrupted. What a killed command left is removed by the next, or the next start.
    """
    store = ReplicaStore(target)  # says within seconds what is wrong
    unhurried(partial(store.read, trusting=True), run)
    with ExitStack() as removed_after:
        with named_failures(database, doing="write beside"):
            folder = removed_after.enter_context(fetched_folder(database))
        file = folder / "replica.db"
        found = fetch(target, file, moment=moment, txid=txid, run=run)
        file.chmod(0o600)
        os.utime(file, (found.timestamp(), found.timestamp()))
        yield file.rename(folder / f"replica-{found:%Y%m%dT%H%M%SZ}.db")


def replicated_before(target: Target, database: Path, tag: str, run: Run = UNWATCHED) -> int:
    """Return the replica's transaction from before a migration, as the history of database or replica has it.

    Raises UsageProblem where it was not noted.
    """
    found = None
    if database.exists():
        with reading(database) as reader:
            found = Ledger(reader).replicated_before(tag)
    if found is None:
        with fetched(target, database, run=run) as file, reading(file) as reader:
            found = Ledger(reader).replicated_before(tag)
    if found is None:
        raise UsageProblem(
            f"No history says which transaction of the replica is from before {tag}.",
            hint="Give a moment with --at, or restore the backup from before it: `db backup list`.",
        )
    return found


@frozen
class Checked:
    """The newest state of a replica, restored and checked in full."""

    bytes: int
    applied: tuple[str, ...]
    tables: int
    rows: Literal["same", "behind", "changing", "alone"]
    """Against the live database: equal; not all is sent; written all the while; there is none."""
    differences: tuple[str, ...] = ()


def check(
    target: Target, database: Path, sync: Callable[[], int | None], run: Run = UNWATCHED
) -> Checked:
    """Restore the newest state, check it in full, and compare each of its rows with the live database.

    `sync` sends what is new, and returns None where no gateway can. Raises Damaged, and ReplicaProblem where
    a replica that has everything is not the database.
    """
    there = database.exists()
    for _ in range(ATTEMPTS):
        with reading(database) if there else nullcontext() as live:
            before = live and data_version(live)
            sent = sync()
            with fetched(target, database, run=run) as file:
                _require_sound(target, file)
                found = _examine(database, file, live)
            unchanged = (live and data_version(live)) == before
        if not found.differences or (unchanged and sent is None):
            return found
        if unchanged:
            raise ReplicaProblem(
                f"{target.url} is not what {database} holds: {'; '.join(found.differences[:3])}.",
                hint="Restart the gateway, and check again: Litestream then sends the whole database again.",
            )
    return Checked(found.bytes, found.applied, found.tables, "changing")


def _require_sound(target: Target, file: Path) -> None:
    try:
        with reading(file) as reader:
            check_sound(reader, file, full=True)
    except (Damaged, NotADatabase) as error:
        reason = error.message.replace(str(file), "it")
        raise ReplicaProblem(
            f"The newest state of {target.url} is damaged: {reason}",
            hint="Restart the gateway: Litestream then sends the whole database again. Earlier moments may be sound.",
        ) from error


def _examine(database: Path, file: Path, live: Connection | None) -> Checked:
    with reading(file) as reader:
        applied = Ledger(reader).names()
        tables = sum(not is_engines(name) for name in table_names(reader))
    size = file.stat().st_size
    if live is None:
        return Checked(size, tuple(applied), tables, "alone")
    lost = tuple(map(str, rows_lost(database, file)))
    return Checked(size, tuple(applied), tables, "behind" if lost else "same", lost)
