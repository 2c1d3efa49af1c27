"""The pages of a small database as one connection sees them, to compare with what another reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

COMPARED_BYTES = 16 << 20
"""Up to this size it is worth it: some 10 ms, and memory for it twice."""
_HEADER_BYTES = 100
_BETWEEN_COUNTERS = (slice(0, 18), slice(20, 24), slice(28, 92))
"""Of the header: not the bytes that say how and when the file was written (journal mode, change counter,
valid-for, SQLite's version). COMMIT itself changes those."""


class Pages(NamedTuple):
    """What a connection sees, uncommitted changes included."""

    content: bytes
    version: int
    """Changes when another connection has written (`PRAGMA data_version`)."""

    def agree(self, other: Pages) -> bool:
        """Tell whether both connections saw the same pages, without copying them once more."""
        return (
            len(self.content) == len(other.content)
            and self.content.endswith(memoryview(other.content)[_HEADER_BYTES:])
            and all(self.content[part] == other.content[part] for part in _BETWEEN_COUNTERS)
        )


def pages(connection: sqlite3.Connection) -> Pages | None:
    """Read every page through the connection's own cache; None where COMMIT may move pages.

    Needs memory of the database's size.
    """
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0]:
        return None
    content = connection.serialize()
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return Pages(content, version)
