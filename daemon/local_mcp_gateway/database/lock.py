"""Ensure that one process uses a database: `flock` on a file next to the database's real path.

The kernel releases a flock when its process dies, however it dies, and refuses a second one even in the
same process. The lock file is never unlinked: a process that waits on a removed file would hold a lock
that nobody else sees. The file also names the lock's holder, as JSON, for messages; and it records what
the database looked like at the last clean stop, so that the next start can skip the integrity check.

    {"holder": {"pid", "since", "command", "started"} | null,
     "stopped": stamp | absent,          written at a clean stop
     "stopped_before": stamp | absent,   what the present holder found; lost if it crashes
     "last_stop": stamp | absent,        the newest clean stop of all, whatever happened since
     "file": identity | absent}          the file that a holder found sound, or made

A file may have two names (a hard link, a bind mount, a file that is moved while it is served). Each name has
its own lock file and its own write-ahead log, and what is written to one of the logs is lost. So the database
file itself is locked too, at a byte that SQLite never uses, with an open file description lock: it stays when the
process closes another descriptor of the file. Our descriptor is closed last, since that drops the locks
of SQLite's connections in this process.

`read_holder` only reads and never calls flock: even a shared probe would make a starting `serve` fail.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from local_mcp_gateway.database.connections import require_database_file
from local_mcp_gateway.database.errors import raise_translated
from local_mcp_gateway.errors import DatabasePathProblem, Interrupted, LockHeld, NotADatabase
from local_mcp_gateway.formats import iso
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.regular_file import NotAFile, open_file, read_bytes

if TYPE_CHECKING:
    from types import TracebackType

MAGIC = b"SQLite format 3\x00"
"""The first bytes of every database."""
_LOCKED_BYTE = 1 << 62
"""Beyond every page, and away from SQLite's own lock bytes at 1 GiB."""
SHARED_BYTES = (0x4000_0002, 510)
"""What SQLite locks to read: first byte and length ("pending byte", os.h)."""
_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.05
_LONGEST_NAME_BYTES = 100
"""The name of a backup has the database's name, the time and a tag, and may have 255 bytes."""

_BY_UNIT = (
    "It is the systemd service: `reload` applies changes in it; `service stop`, or"
    " `systemctl --user stop local-mcp-gateway`, ends it."
)


class Holder(NamedTuple):
    """The process that holds a lock."""

    pid: int
    since: str
    """ISO 8601, UTC."""
    command: str
    started: int
    """When the process started, in clock ticks since boot; 0 where that is unknown."""


_held: dict[str, DatabaseLock] = {}
"""The locks of this process, by the database's real path."""


class DatabaseLock:
    """Hold the database for this process from `with` to its end; release it last of all."""

    def __init__(
        self,
        database: Path,
        *,
        timeout_s: float = 0.0,
        on_wait: Callable[[Holder | None], None] | None = None,
        stop: threading.Event | None = None,
        replaces: bool = False,
    ) -> None:
        """Store the arguments. `replaces`: the existing file may be anything, since it will be replaced."""
        self.database = Path(os.path.realpath(database))
        self._replaces = replaces
        self.path = lock_path(database)
        self._timeout_s = timeout_s
        self._on_wait = on_wait
        self._stop = stop or threading.Event()
        self._descriptor = -1
        self.file = -1
        """A descriptor of the database, with the lock on the file itself."""
        self.stopped_before: dict[str, int] | None = None
        """What the clean stop before this process recorded; None if a holder in between crashed."""
        self._clean = False
        self._last_stop: dict[str, int] | None = None
        self._accepted: dict[str, int] | None = None

    def __enter__(self) -> Self:
        """Take the lock, waiting at most `timeout_s`; raise LockHeld, naming the holder."""
        _refuse_long_name(self.database)
        if not self._replaces and not self.path.exists():
            _refuse_other_files(self.database)
        self._descriptor = _open_lock_file(self.path, self.database)
        try:
            self._acquire()
            found = _read(self._descriptor)
            before = found.get("stopped")
            self.stopped_before = _stamp(before)
            self._last_stop = self.stopped_before or _stamp(found.get("last_stop"))
            self._accepted = _stamp(found.get("file"))
            record = {"holder": _myself()._asdict(), "stopped_before": before}
            self._record(record | self._kept())
        except BaseException:
            self._close()
            raise
        _held[str(self.database)] = self
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clear the holder, then release the lock; a database that was not touched stays clean.

        A disk that refuses the few bytes does not matter: the lock goes with the descriptor, and
        without the record the next start checks the file.
        """
        try:
            with suppress(OSError):
                now = stamp(self.database) if self._is_ours() else None
                found = _read(self._descriptor).get("stopped_before")
                untouched = now is not None and now == found
                stopped = {"stopped": now} if now and (self._clean or untouched) else {}
                _write(self._descriptor, {"holder": None} | self._kept() | stopped)
        finally:
            self._close()

    def hold_file(self) -> bool:
        """Lock the file at the path; False while another process holds it under another name.

        Raises DatabasePathProblem for a file that cannot be written.
        """
        try:
            descriptor = open_file(self.database, os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError as error:
            if self._replaces:
                return True
            if isinstance(error, NotAFile):
                require_database_file(self.database)
            raise_translated(error, self.database)
        if self.file >= 0 and os.path.sameopenfile(self.file, descriptor):
            os.close(descriptor)
            return True
        if not _try_lock_file(descriptor):
            os.close(descriptor)
            return False
        if self.file >= 0:
            os.close(self.file)
        self.file = descriptor
        return True

    def accept_file(self) -> None:
        """Record that the file is sound, or was made by this process: what is next to it is its own."""
        if self.file < 0:
            return
        file, lock = os.fstat(self.file), os.fstat(self._descriptor)
        now = {"device": file.st_dev, "inode": file.st_ino, "lock_inode": lock.st_ino}
        if now != self._accepted:
            self._accepted = now
            self._record(_read(self._descriptor) | self._kept())

    def distrust_file(self) -> None:
        """Record another file than this one as the one that was accepted last."""
        lock = os.fstat(self._descriptor)
        self._accepted = {"device": lock.st_dev, "inode": 0, "lock_inode": lock.st_ino}

    def _record(self, record: dict[str, Any]) -> None:
        try:
            _write(self._descriptor, record)
        except OSError as error:
            raise_translated(error, self.path)

    def _kept(self) -> dict[str, object]:
        kept = {"last_stop": self._last_stop, "file": self._accepted}
        return {key: value for key, value in kept.items() if value}

    def _is_ours(self) -> bool:
        """Return whether the path still names the file that is locked."""
        with suppress(OSError):
            return self.file < 0 or os.path.samestat(os.fstat(self.file), self.database.stat())
        return False

    def _close(self) -> None:
        if _held.get(str(self.database)) is self:
            del _held[str(self.database)]
        for descriptor in (self.file, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self.file = self._descriptor = -1

    def record_clean_stop(self) -> None:
        """Record that the database is sound and all of this process's connections to it are closed.

        What the file looks like is written when the lock is released.
        """
        self._clean = True

    def _acquire(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        pause = _FIRST_PAUSE_S
        announced = False
        locked = False
        while not (locked := locked or _try_flock(self._descriptor)) or not self.hold_file():
            if self._stop.is_set():
                raise Interrupted("Stopped while waiting for the database's lock.")
            holder = None if locked else read_holder(self.database)
            if time.monotonic() >= deadline:
                told_by = holder._asdict() if holder else {}
                raise LockHeld(
                    _held_by(self.database, holder, locked=locked),
                    hint=_BY_UNIT if holder and _is_unit(holder.pid) else None,
                    **told_by,
                )
            if self._on_wait and not announced:
                self._on_wait(holder)
                announced = True
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)


def hold_new_file(database: Path) -> None:
    """Move this process's lock, if it holds the database's, to a file that has just replaced it.

    No connection to the database is open in this process.
    """
    if lock := _held.get(os.path.realpath(database)):
        lock.hold_file()
        lock.accept_file()


def held_file(database: Path) -> int:
    """Return this process's own descriptor of a database whose lock it holds, else -1; never close it."""
    lock = _held.get(os.path.realpath(database))
    return -1 if lock is None else lock.file


def distrust_file(database: Path) -> None:
    """Record that the files next to the database may belong to another one."""
    if lock := _held.get(os.path.realpath(database)):
        lock.distrust_file()


def leave_side_files(database: Path) -> None:
    """Keep SQLite in this process from removing the write-ahead log when it closes the database.

    It removes whatever has the log's name, and by now that is the log of another file. It does so only
    if nobody else has the database open, so this takes a read lock on SQLite's own bytes.
    """
    if (lock := _held.get(os.path.realpath(database))) and lock.file >= 0:
        with suppress(OSError):
            _set_lock(lock.file, fcntl.F_RDLCK, *SHARED_BYTES)


def lock_path(database: Path) -> Path:
    """Return the lock file: next to the real file, so that all paths to it share one lock."""
    return Path(os.path.realpath(database) + ".lock")


def read_holder(database: Path) -> Holder | None:
    """Return who holds the database's lock, without touching the lock; None if no live process does."""
    try:
        record = parse_json(_content(database)).get("holder")
        holder = Holder(**record) if record else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return holder if holder and _is_alive(holder) else None


def stopped_before(database: Path) -> dict[str, int] | None:
    """Return what the last clean stop recorded, if this process has held the lock since, and no other."""
    lock = _held.get(os.path.realpath(database))
    return None if lock is None else lock.stopped_before


def last_stop(database: Path) -> dict[str, int] | None:
    """Return what the newest clean stop recorded, even if later ones were not clean."""
    return _recorded(database, "stopped") or _recorded(database, "last_stop")


def accepted_file(database: Path) -> tuple[int, int] | None:
    """Return device and inode of the file that was accepted last; None if that was in another place.

    A folder that is copied as a whole has other inodes: then the lock file's own says so.
    """
    known = _recorded(database, "file") or {}
    try:
        place = lock_path(database).stat()
    except OSError:
        return None
    if (known.get("device"), known.get("lock_inode")) != (place.st_dev, place.st_ino):
        return None
    return known["device"], known.get("inode", 0)


def stamp(database: Path) -> dict[str, int] | None:
    """Return a fingerprint of the closed file's state; None where there is no file. The lock is held.

    In WAL not every commit increases the change counter, so the sizes and times of the file and
    of a remaining write-ahead log (if a reader closed last) belong to it.
    """
    descriptor = held_file(database)
    if descriptor < 0:
        return None
    status, header = os.fstat(descriptor), os.pread(descriptor, 28, 0)
    try:
        log = Path(f"{database}-wal").stat()
    except OSError:
        log = None
    has_log = log is not None and log.st_size > 0
    return {
        "change_counter": int.from_bytes(header[24:28], "big"),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "wal_size": log.st_size if log and has_log else 0,
        "wal_mtime_ns": log.st_mtime_ns if log and has_log else 0,
    }


def _refuse_long_name(database: Path) -> None:
    length = len(os.fsencode(database.name))
    if length > _LONGEST_NAME_BYTES:
        raise DatabasePathProblem(
            f"The name of {database} has {length} bytes; those of its backups would be too long.",
            hint=f"Give it a name of at most {_LONGEST_NAME_BYTES} bytes.",
            path=str(database),
        )


def _refuse_other_files(database: Path) -> None:
    """Create no lock file next to foreign files: other programs use `/etc/passwd.lock` themselves."""
    require_database_file(database)
    with suppress(OSError), os.fdopen(open_file(database), "rb") as file:
        if (header := file.read(len(MAGIC))) and header != MAGIC:
            raise NotADatabase(f"{database} is not a SQLite database.", path=str(database))


def _open_lock_file(path: Path, database: Path) -> int:
    try:
        return open_file(path, os.O_RDWR | os.O_CREAT, follow=False)
    except FileNotFoundError:
        raise DatabasePathProblem(
            f"The folder {database.parent} of the database does not exist.", path=str(database)
        ) from None
    except NotADirectoryError:
        raise DatabasePathProblem(
            f"{database.parent} is a file, not the folder of a database.",
            hint="Give the file itself with --database or DATABASE_PATH.",
            path=str(database),
        ) from None
    except OSError as error:
        writable = (
            "Make the database's folder writable for this user, or give another with --database."
        )
        raise DatabasePathProblem(
            f"The lock file {path} cannot be opened: {error.strerror}.",
            hint="Move it away and start again." if isinstance(error, NotAFile) else writable,
            path=str(database),
        ) from error


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
            return False
        raise
    return True


def _try_lock_file(descriptor: int) -> bool:
    if sys.platform != "linux":
        return True
    try:
        _set_lock(descriptor, fcntl.F_WRLCK, _LOCKED_BYTE, 1)
    except OSError as error:  # a file system without such locks does not work with SQLite either
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _set_lock(descriptor: int, kind: int, start: int, length: int) -> None:
    """Take an open file description lock (fcntl(2)). Raises OSError."""
    wanted = struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)


def _held_by(database: Path, holder: Holder | None, *, locked: bool) -> str:
    if locked:
        return f"{database} is locked by another process, under another name of the same file."
    if holder is None:
        return f"{database} is locked by another process."
    return f"{database} is locked by process {holder.pid} ({holder.command}) since {holder.since}."


def _is_unit(pid: int) -> bool:
    """Return whether a process belongs to the systemd service that `service install` writes."""
    with suppress(OSError):
        return "/local-mcp-gateway.service" in Path(f"/proc/{pid}/cgroup").read_text("utf-8")
    return False


def _myself() -> Holder:
    pid = os.getpid()
    command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:]])
    return Holder(
        pid=pid,
        since=iso(timespec="seconds"),
        command=command if len(command) <= 200 else f"{command[:199]}…",
        started=_started(pid) or 0,
    )


def _is_alive(holder: Holder) -> bool:
    """Distinguish a living holder from a process that got its pid later."""
    started = _started(holder.pid)
    if started is not None:
        return not holder.started or started == holder.started
    if Path("/proc/self/stat").exists():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _started(pid: int) -> int | None:
    """Read field 22 of /proc/PID/stat; the name in field 2 may hold spaces and parentheses."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat.rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _recorded(database: Path, key: str) -> dict[str, int] | None:
    try:
        return _stamp(parse_json(_content(database)).get(key))
    except (OSError, ValueError, AttributeError):
        return None


def _stamp(value: object) -> dict[str, int] | None:
    whole = isinstance(value, dict) and all(isinstance(number, int) for number in value.values())
    return cast("dict[str, int]", value) if whole else None


def _content(database: Path) -> bytes:
    return read_bytes(lock_path(database), follow=False) or b"{}"


def _read(descriptor: int) -> dict[str, Any]:
    try:
        record = parse_json(os.pread(descriptor, 65_536, 0) or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _write(descriptor: int, record: dict[str, Any]) -> None:
    """Replace the content; a crash in between leaves invalid JSON, which reads as "unknown"."""
    data = json.dumps(record).encode() + b"\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
