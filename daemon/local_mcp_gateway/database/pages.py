"""The pages of a small database as one connection sees them, to compare with what another reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

COMPARED_BYTES = 16 << 20
"""Up to this size it is worth it: some 50 ms."""
COUNTERS = ((18, 20), (24, 28), (92, 100))
"""Bytes of the first page that say how and when it was written, not what: journal mode, change
counter, valid-for, SQLite's version. COMMIT itself changes them."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What a connection sees, uncommitted changes included."""

    content: str
    """SHA-256 of all pages, without the counters that COMMIT changes."""
    version: int
    """Changes when another connection has written (`PRAGMA data_version`)."""


def pages(connection: sqlite3.Connection) -> Pages | None:
    """Read every page through the connection's own cache; None where COMMIT may move pages.

    Needs memory of the database's size.
    """
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0]:
        return None
    content = bytearray(connection.serialize())
    for start, end in COUNTERS:
        content[start:end] = bytes(end - start)
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return Pages(hashlib.sha256(content).hexdigest(), version)
