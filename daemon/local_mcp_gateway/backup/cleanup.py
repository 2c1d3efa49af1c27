"""Clean up what a crash left beside a database and in its backup folder. Runs at every start."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import paths
from local_mcp_gateway.backup.atomic_write import named_failures
from local_mcp_gateway.database.transactions import commit, flush, write_lock
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.regular_file import NotAFile, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator


def clean_up(database: Path, folder: Path | None = None) -> tuple[Path, ...]:
    """Finish or remove what a killed command left; return the removed files.

    The caller holds the database's lock. Only files with this package's names are touched, and none
    whose writer lives (it holds a flock on the file): `db backup create` works without the lock.
    """
    database = database.resolve()
    backups = paths.backup_folder(database, folder)
    gone: list[Path] = []
    with named_failures("put away what a crash left beside", database):
        for path in _entries(backups, rf"\.{re.escape(database.stem)}-.*"):
            gone += _settle(path)
        for path in _entries(database.parent, rf"\.{re.escape(database.name)}\.tmp(-\w+|\.lock)?"):
            gone += _discard(path)
        gone += _unlinked_twins(database)
        gone += _cold_journal(database)
    return tuple(gone)


def _entries(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files of a folder whose whole name matches; none if there is no folder."""
    wanted = re.compile(pattern)
    try:
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    yield from (path for path in entries if wanted.fullmatch(path.name))


def _settle(path: Path) -> list[Path]:
    """Finish or remove one leftover of the backup folder."""
    if path.name.endswith(".json" + paths.DELISTED):
        target = path.with_name(path.name[1:].removesuffix(".json" + paths.DELISTED) + ".db")
        target.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return [target, path]
    if path.name.endswith(".json" + paths.TEMPORARY) and _is_abandoned(path):
        manifest = path.with_name(path.name[1:].removesuffix(paths.TEMPORARY))
        if manifest.with_suffix(".db").exists() and not manifest.exists():
            path.rename(manifest)  # it was flushed before its backup got its name
            flush(manifest.parent)
            return []
    return _discard(path)


def _discard(path: Path) -> list[Path]:
    if not re.search(r"\.tmp(-wal|-shm|-journal|\.lock)?$", path.name) or not _is_abandoned(path):
        return []
    path.unlink(missing_ok=True)
    return [path]


def _is_abandoned(path: Path) -> bool:
    """Return whether the writer of a temporary file is gone; for `-wal` and the like, of its main file."""
    main = path.with_name(re.sub(r"(\.tmp)(-wal|-shm|-journal|\.lock)$", r"\1", path.name))
    try:
        descriptor = open_file(main, follow=False)
    except (FileNotFoundError, NotAFile):
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _unlinked_twins(database: Path) -> list[Path]:
    """Remove the second name that a restore gave the database, if it was killed before the swap."""
    gone: list[Path] = []
    try:
        live = database.stat()
    except FileNotFoundError:
        return []
    if live.st_nlink < 2:
        return []
    for path in paths.asides(database):
        found = path.stat()
        if (found.st_dev, found.st_ino) == (live.st_dev, live.st_ino):
            for kept, side in zip(paths.side_files(path), paths.side_files(database), strict=True):
                if kept.exists() and not side.exists():
                    kept.rename(side)
            path.unlink()
            gone.append(path)
    return gone


def _cold_journal(database: Path) -> list[Path]:
    """Remove a rollback journal that SQLite does not need and would not remove by reading.

    A kill just before the journal was flushed leaves one that is not hot: readers ignore it, and the
    next write to a rollback-mode database removes it. So write, without changing anything. The probe
    reports anything else that is wrong with the file.
    """
    journal = paths.side_files(database)[2]
    if not journal.exists() or not database.exists():
        return []
    with suppress(GatewayError, sqlite3.Error), write_lock(database) as live:
        (version,) = live.execute("PRAGMA user_version").fetchone()
        live.execute(f"PRAGMA user_version={version}")
        commit(live)
    return [] if journal.exists() else [journal]
