"""Refuse a write-ahead log or rollback journal that was written for another file.

SQLite knows both by their names alone. Somebody who copies a good file over a damaged one, or moves it
there, leaves them in place, and SQLite writes the old file's pages into the new one without a word. So
before SQLite opens a database that nobody has open, a log or journal next to it is compared with it:

- Only a file whose header says WAL has a write-ahead log, with pages of the same size.
- A checkpoint copies pages in ascending order. So either the first page of the log is in the file, in
  one of the log's versions, or the file is what it was when the log was begun. Then its change counter is
  that of the log's oldest first page or one less, and it is not much younger than the log.
- A rollback journal holds the old first page of the file that it belongs to.
- The lock file names the file that a guard accepted last.

A false alarm is possible (a log and a file that were copied here apart), so the way out is named.

`ServedFile` watches the same pair while a gateway serves: what another program writes past SQLite, as `cp`
does, is in no log. There a false alarm is not possible.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from local_mcp_gateway.database.lock import MAGIC, SHARED_BYTES, accepted_file, held_file
from local_mcp_gateway.errors import ForeignLog
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAL_MODE = b"\x02\x02"
"""Bytes 18 and 19 of the header of a database in WAL mode."""
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER_BYTES = 100
_PAGE_SIZE_AND_MODE = slice(16, 20)
_COUNTER = slice(24, 28)
_FIRST_PAGE = b"\x00\x00\x00\x01"
_SLACK_NS = 2_000_000_000
"""How much younger than its log a file may be: a power cut in a checkpoint can keep its time and lose its
pages."""


class _Database(NamedTuple):
    """What is known about a database that has a log next to it."""

    path: Path
    descriptor: int
    header: bytes
    status: os.stat_result

    @property
    def counter(self) -> int:
        return int.from_bytes(self.header[_COUNTER], "big")

    @property
    def page_size(self) -> int:
        size = int.from_bytes(self.header[16:18], "big")
        return 65_536 if size == 1 else size

    @property
    def is_another(self) -> bool:
        """Return whether it is not the file that a guard accepted here last."""
        accepted = accepted_file(self.path)
        return accepted is not None and accepted != (self.status.st_dev, self.status.st_ino)


def require_fitting_logs(real: Path) -> None:
    """Raise ForeignLog if SQLite would write pages of another file into this one, a real path.

    What is open, here or in another program, is not looked at: who opened it has recovered it.
    """
    with suppress(OSError):
        descriptor = _lasting_descriptor(real)
        if _is_open(descriptor):
            return
        header = os.pread(descriptor, _HEADER_BYTES, 0)
        found = _Database(real, descriptor, header, os.fstat(descriptor))
        if header and not header.startswith(MAGIC):
            return  # SQLite does not open it
        for suffix, fits in (("-wal", _wal_fits), ("-journal", _journal_fits)):
            path = Path(f"{real}{suffix}")
            with suppress(FileNotFoundError), os.fdopen(open_file(path), "rb") as log:
                if not fits(found, log):
                    raise _foreign(real, path)


def _foreign(database: Path, log: Path) -> ForeignLog:
    kind = "write-ahead log" if log.name.endswith("-wal") else "rollback journal"
    return ForeignLog(
        f"{log} is the {kind} of another file than {database}, and SQLite would write its pages into it.",
        hint=f"If {database.name} is right as it is, move the log away (`mv {log} {log}.old`) and start"
        " again; `db restore FILE` puts a copy in place without such leftovers. If the two belong together,"
        " open the file once with the program that wrote them.",
        path=str(database),
        log=str(log),
    )


_lasting: dict[Path, int] = {}
_opening = threading.Lock()


def _lasting_descriptor(real: Path) -> int:
    """Return a descriptor that stays open for as long as the path names this file. Raises OSError, NotAFile.

    Closing one would drop the locks that SQLite has on the file in this process: then the next program
    that closes the database removes the write-ahead log.
    """
    with _opening:
        now = real.stat()
        for known in (held_file(real), _lasting.get(real, -1)):
            if known >= 0 and os.path.samestat(os.fstat(known), now):
                return known
        before, _lasting[real] = _lasting.get(real), open_file(real)
        if before is not None:
            os.close(before)
        return _lasting[real]


def _is_open(descriptor: int) -> bool:
    """Return whether a process has the file locked as SQLite does while it reads or writes."""
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, *SHARED_BYTES, 0)
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False  # a file system without such locks
    return bool(struct.unpack("hhqqi", answer)[0] != fcntl.F_UNLCK)


class ServedFile:
    """Notices that a program has written over a file that is open here in WAL mode, past SQLite.

    Through SQLite only a checkpoint writes to the file. Then its header is that of a first page in the log;
    but the log may have been restarted since, and have lost such a page. So a new header has to be in
    the log, or to go on from the last one if the log has changed: same page size and mode, no lower counter.
    Any thread may ask.
    """

    def __init__(self, database: Path) -> None:
        self._descriptor = held_file(database)
        self._log = f"{os.path.realpath(database)}-wal"
        self._overwritten = False
        self._header = self._now()
        self._begun = self._log_state()

    def is_overwritten(self) -> bool:
        """Return whether the file was written over; once it is, it stays so."""
        if self._overwritten or self._descriptor < 0:
            return self._overwritten
        now = self._now()
        if now != self._header:
            begun = self._log_state()
            if (begun != self._begun and self._goes_on(now)) or self._is_in_log(now):
                self._header, self._begun = now, begun
            else:
                # A header that is read while it is written is another one the next time.
                self._overwritten = self._now() == now and self._log_state() == begun
        elif self._size_and_time() != self._begun[1:]:
            self._begun = self._log_state()
        return self._overwritten

    def _now(self) -> bytes:
        return os.pread(self._descriptor, _HEADER_BYTES, 0) if self._descriptor >= 0 else b""

    def _size_and_time(self) -> tuple[int, int]:
        try:
            status = os.stat(self._log)  # noqa: PTH116  every write asks this
        except OSError:
            return 0, 0
        return status.st_size, status.st_mtime_ns

    def _log_state(self) -> tuple[bytes, int, int]:
        """Return what changes with every frame: the log's header (it has new salts after a restart) and its status."""
        try:
            with os.fdopen(open_file(self._log), "rb") as log:
                header = log.read(32)
        except OSError:
            header = b""
        return header, *self._size_and_time()

    def _goes_on(self, now: bytes) -> bool:
        """Return whether this header may follow on the last one."""
        if len(now) < _HEADER_BYTES or not now.startswith(MAGIC):
            return False
        same = now[_PAGE_SIZE_AND_MODE] == self._header[_PAGE_SIZE_AND_MODE]
        return same and now[_COUNTER] >= self._header[_COUNTER]

    def _is_in_log(self, now: bytes) -> bool:
        """Return whether any frame of the log, even of before its restart, has this header."""
        with suppress(OSError), os.fdopen(open_file(self._log), "rb") as log:
            page_size = int.from_bytes(log.read(32)[8:12], "big")
            places = range(32, os.fstat(log.fileno()).st_size, 24 + page_size)
            return any(
                _read(log, at, 4) == _FIRST_PAGE and _read(log, at + 24, _HEADER_BYTES) == now
                for at in (places if page_size else ())
            )
        return False


def _wal_fits(database: _Database, log: BinaryIO) -> bool:
    """Return whether the write-ahead log was begun on this file; one that SQLite ignores fits any."""
    page_size, frames = _committed(log)
    if not frames:
        return True
    if database.header[18:20] != _WAL_MODE or page_size != database.page_size:
        return False
    lowest = min(page for page, _ in frames)
    versions = [at for page, at in frames if page == lowest]
    now = os.pread(database.descriptor, page_size, (lowest - 1) * page_size)
    if any(_read(log, at, page_size) == now for at in reversed(versions)):
        return True
    if lowest == 1:
        begun = int.from_bytes(_read(log, versions[0], _HEADER_BYTES)[_COUNTER], "big")
        if database.counter not in (begun, begun - 1):
            return False
    if database.is_another:
        return False
    written = os.fstat(log.fileno()).st_mtime_ns
    return database.status.st_mtime_ns <= written + _SLACK_NS


def _committed(log: BinaryIO) -> tuple[int, list[tuple[int, int]]]:
    """Return the page size, and page number and place of every frame up to the last commit.

    The checksums of the frames are not computed: it takes long in Python, and a torn end is of this
    log anyway.
    """
    header = log.read(32)
    if len(header) < 32 or not _is_wal_header(header):
        return 0, []
    page_size = int.from_bytes(header[8:12], "big")
    frames: list[tuple[int, int]] = []
    committed, at = 0, 32
    while True:
        log.seek(at)
        frame = log.read(24)
        if len(frame) < 24 or frame[8:16] != header[16:24]:
            return page_size, frames[:committed]
        page, pages_after_commit = struct.unpack_from(">II", frame)
        frames.append((page, at + 24))
        at += 24 + page_size
        if pages_after_commit:
            committed = len(frames)


def _is_wal_header(header: bytes) -> bool:
    """Return whether magic number and checksum are right: else SQLite ignores the log."""
    if header[:4] not in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"):
        return False
    words = struct.unpack(">6I" if header[3] & 1 else "<6I", header[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFF_FFFF
        second = (second + odd + first) & 0xFFFF_FFFF
    return struct.pack(">2I", first, second) == header[24:]


def _journal_fits(database: _Database, log: BinaryIO) -> bool:
    """Return whether the rollback journal was begun on this file; one that SQLite ignores fits any."""
    start = log.read(28)
    if len(start) < 28 or not start.startswith(_JOURNAL_MAGIC):
        return True
    if int.from_bytes(start[16:20], "big") == 0:
        return database.counter <= 1  # the first transaction of a new file
    old = next(_first_pages(log), None)
    if old is not None and database.counter == int.from_bytes(old[_COUNTER], "big"):
        return old == database.header
    if old is not None and database.counter != int.from_bytes(old[_COUNTER], "big") + 1:
        return False
    return not database.is_another


def _first_pages(log: BinaryIO) -> Iterator[bytes]:
    """Yield the header of every first page in the journal, which is made of segments."""
    at, end = 0, os.fstat(log.fileno()).st_size
    while (start := _read(log, at, 28)).startswith(_JOURNAL_MAGIC) and len(start) == 28:
        records, _, _, sector, page_size = struct.unpack_from(">5I", start, 8)
        if not sector or not page_size:
            return
        record = page_size + 8
        at += sector
        if records == 0xFFFF_FFFF:  # written without syncs: to the end
            records = (end - at) // record
        for number in range(min(records, (end - at) // record)):
            place = at + number * record
            if _read(log, place, 4) == _FIRST_PAGE:
                yield _read(log, place + 4, _HEADER_BYTES)
        at = -(-(at + records * record) // sector) * sector


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
