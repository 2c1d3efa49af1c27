"""The database for a command that only reads: no lock of ours, nothing written, nothing migrated."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connect import reading
from local_mcp_gateway.database.serving import Database
from local_mcp_gateway.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local_mcp_gateway.database.serving import Parameters


class LookedAt(Database):
    """What can be read just now. `with LookedAt.open_at(path)`; where there is no file, no row is."""

    def __init__(self, path: Path, connection: sqlite3.Connection | None) -> None:
        super().__init__(path)
        self._connection = connection

    @classmethod
    @contextmanager
    def open_at(cls, path: Path) -> Iterator[LookedAt]:
        """Open it. Raises UsageProblem when it is of an older version than what is read in it."""
        if not path.exists():
            yield cls(path, None)
            return
        with reading(path) as connection:
            connection.row_factory = sqlite3.Row
            try:
                yield cls(path, connection)
            except (sqlite3.OperationalError, IndexError) as error:
                # a table is missing, or a column of a row
                if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
                    raise
                raise UsageProblem(
                    f"{path} does not have all that this version of the program reads: {error}.",
                    hint="`db status` shows what is pending; `db migrate` applies it.",
                ) from None

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return every row of one SELECT. Short: it blocks the loop, which does nothing else here."""
        if self._connection is None:
            return []
        return self._connection.execute(sql, tuple(parameters)).fetchall()
