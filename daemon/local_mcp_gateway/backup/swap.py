"""Put another file in a database's place: at every moment the path holds the old one or the new one.

The danger is the old WAL: beside the new file SQLite would replay it into that. So the old database
is first locked against every other program and its WAL written back into it, and only then does one
rename make the change. (`journal_mode=DELETE` would do both too, but it writes the header under a
journal, which a kill leaves behind.)
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from local_mcp_gateway.backup import names
from local_mcp_gateway.backup.durable import PRIVATE_FILE, copy_bytes, flush, named_failures, remove
from local_mcp_gateway.database.connections import begin_immediate
from local_mcp_gateway.errors import Damaged, DatabaseBusy, NotADatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUSY_TIMEOUT_S = 5.0


def hold_still(live: sqlite3.Connection, real: Path) -> os.stat_result:
    """Take SQLite's write lock with the WAL written back; return the file as it stays while nobody writes.

    For `swap`, which takes the lock away from everybody and so has to let go of this one first: who
    waited for it may be quicker. Raises DatabaseBusy.
    """
    live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    begin_immediate(live, real)
    with suppress(FileNotFoundError):
        if real.with_name(f"{real.name}-wal").stat().st_size:
            raise DatabaseBusy(f"Another program is reading or writing {real}.")
    return real.stat()


def swap(
    database: Path, new: Path, *, aside: Path | None, seen: os.stat_result | None = None
) -> None:
    """Put `new` (flushed, closed, same folder) at the database's path; durable on return.

    The caller holds the database's lock. The old file is kept as `aside`, or is gone with None. `seen`
    is what `hold_still` returned: what has been written since is not in `new`, and so a DatabaseBusy. Killed at any point the path holds the old database or the new one; a second name that the old
    one has by then is taken away by `leftovers.sweep`. Raises DatabaseBusy while another program
    has the database open, before anything is changed.
    """
    real = database.resolve()
    with named_failures("replace", real), _at_rest(real) as sound:
        if seen is not None and not _is_as_seen(real, seen):
            raise DatabaseBusy(f"Another program has written to {real} meanwhile.")
        if aside is not None and real.exists():
            _keep(real, aside)
            if not sound:
                _keep_side_files(real, aside)
        for side in names.side_files(real):
            side.unlink(missing_ok=True)
        flush(real.parent)
        _inherit(real, new)
        new.rename(real)
        flush(real.parent)


def _is_as_seen(real: Path, seen: os.stat_result) -> bool:
    """Tell whether nothing has been committed since; by now the WAL is written back into the file."""
    now = real.stat()
    return (now.st_ino, now.st_size, now.st_mtime_ns) == (
        seen.st_ino,
        seen.st_size,
        seen.st_mtime_ns,
    )


def _inherit(real: Path, new: Path) -> None:
    """Give the new file the owner and the mode of the old one: root may do this for somebody else.

    The group, where the user is not allowed to choose it, is what a new file of theirs has.
    """
    with suppress(FileNotFoundError, PermissionError):
        old = real.stat()
        new.chmod(stat.S_IMODE(old.st_mode))
        os.chown(new, old.st_uid, old.st_gid)


@contextmanager
def _at_rest(real: Path) -> Iterator[bool]:
    """Hold the old database alone; yield whether it is one sound file now, or damaged as it was."""
    if not real.exists():
        yield True
        return
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(real))}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
    )
    try:
        try:
            with named_failures("take over", real):
                _make_one_file(connection, real)
            sound = True
        except (Damaged, NotADatabase):
            sound = False
        yield sound
    finally:
        with suppress(sqlite3.Error):
            connection.close()


def _make_one_file(connection: sqlite3.Connection, real: Path) -> None:
    """Lock every other program out until the connection is closed, and empty the WAL."""
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise DatabaseBusy(f"Another program has {real} open.") from error
        raise
    if busy:
        raise DatabaseBusy(f"Another program has {real} open.")


def _keep(real: Path, aside: Path) -> None:
    """Give the old database a second name."""
    try:
        os.link(real, aside)
    except OSError:  # a file system without hard links: a copy does as well
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            copy_bytes(real, descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _keep_side_files(real: Path, aside: Path) -> None:
    """Set the WAL and journal of a damaged database aside with it: they may hold what it does not.

    Of a sound one they hold nothing any more, even where SQLite could not remove them.
    """
    for side, kept in zip(names.side_files(real), names.side_files(aside), strict=True):
        if not side.name.endswith("-shm") and side.exists():
            side.rename(kept)


def prune_asides(database: Path, keep: int) -> tuple[Path, ...]:
    """Remove all but the newest replaced databases; return those removed.

    Runs after a swap that succeeded: what cannot be removed now is tried again after the next one.
    """
    removed = []
    with suppress(OSError):
        for path in names.asides(database)[max(keep, 0) :]:
            remove(path)
            removed.append(path)
    return tuple(removed)
