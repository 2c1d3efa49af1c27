"""Check for enough free disk space before the guard writes anything."""

from __future__ import annotations

import os
from pathlib import Path

from local_mcp_gateway.backup.atomic_write import named_failures
from local_mcp_gateway.database.transactions import database_bytes
from local_mcp_gateway.errors import NoRoom
from local_mcp_gateway.formats import size

MARGIN_BYTES = 256 << 10
"""For manifests, the ledger, SQLite's own files and the file system."""


def room_needed(database: Path, *, rehearsed: bool = True) -> int:
    """Return the bytes that a backup, and a rehearsal on a copy of it, take in the backup folder.

    The copy is counted in full, though a file system with reflinks needs nothing for it.
    """
    size = database_bytes(database)
    return size * (2 if rehearsed else 1) + MARGIN_BYTES


def require_room(database: Path, folder: Path, *, rehearsed: bool = True) -> None:
    """Raise NoRoom, with the missing amount, unless the backup folder's disk has enough space."""
    require_free(folder, room_needed(database, rehearsed=rehearsed), what="the backup")


def require_free(folder: Path, needed: int, *, what: str) -> None:
    """Raise NoRoom unless that many bytes are free where the folder is, or will be created."""
    with named_failures("look at the free room of", folder):
        free = free_bytes(folder)
    if free < needed:
        raise NoRoom(
            f"Not enough room in {folder} for {what}: {size(needed)} are needed, {size(free)} are "
            f"free, {size(needed - free)} are missing.",
            needed_bytes=needed,
            free_bytes=free,
            missing_bytes=needed - free,
            path=str(folder),
        )


def free_bytes(folder: Path) -> int:
    """Return the bytes that this user may still write where the folder is, or will be created."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    found = os.statvfs(existing)
    return found.f_bavail * found.f_frsize
