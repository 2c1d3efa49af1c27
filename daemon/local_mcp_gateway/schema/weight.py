"""What a rebuild costs on the data that is really there: rows, bytes and seconds, estimated."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.hazard import Hazard, HazardKind
from local_mcp_gateway.schema.tokens import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

_SAMPLE = 500
_BYTES_PER_ROW = 12
"""Of a b-tree cell, beside its values."""
_BYTES_PER_S = 50e6
_ROWS_PER_S = 400e3
"""What a laptop of these years copies; the rehearsal measures the real figure."""


def weigh(hazards: Iterable[Hazard], connection: sqlite3.Connection) -> tuple[Hazard, ...]:
    """Return the hazards, each rebuild with what it means for the rows of this database.

    Counts the rows of each such table and reads the first few hundred of them.
    """
    return tuple(_weighed(h, connection) if h.kind is HazardKind.REBUILD else h for h in hazards)


def _weighed(hazard: Hazard, connection: sqlite3.Connection) -> Hazard:
    with suppress(
        sqlite3.Error
    ):  # renamed by the same migration, or not there yet: nothing to weigh
        rows, size = _rows_and_bytes(connection, hazard.object)
        seconds = size / _BYTES_PER_S + rows / _ROWS_PER_S
        took = f"about {seconds:.0f} s" if seconds >= 1 else "less than a second"
        return replace(
            hazard,
            message=f"The table {unquote(hazard.object)} is written anew: {rows:,} row{'s' * (rows != 1)}, about "
            f"{size / 1e6:,.1f} MB, {took} and as much room on disk again.",
        )
    return hazard


def _rows_and_bytes(connection: sqlite3.Connection, table: str) -> tuple[int, float]:
    [(rows,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    lengths = " + ".join(f"coalesce(length(CAST({quote(name)} AS BLOB)), 0)" for name in columns)
    [(mean,)] = connection.execute(
        f"SELECT avg(size) FROM (SELECT {lengths} AS size FROM {table} LIMIT {_SAMPLE})"
    ).fetchall()
    return rows, rows * ((mean or 0) + _BYTES_PER_ROW)
