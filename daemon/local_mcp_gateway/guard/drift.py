"""Drift: the live schema against what the applied migrations make of an empty database.

The ledger's history remembers the schema's fingerprint after the last migration, so an unchanged
schema costs one inspection and no replay.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.migrate.ledger import last_fingerprint
from local_mcp_gateway.migrate.replay import replay
from local_mcp_gateway.schema import compare, fingerprint, inspect

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.resolve import Resolution
    from local_mcp_gateway.schema import Difference, Schema


def find_drift(
    connection: sqlite3.Connection, resolution: Resolution, found: Schema
) -> tuple[Difference, ...]:
    """Return what differs from the replay of the applied migrations; none for an unmigrated database."""
    if not resolution.applied or last_fingerprint(connection) == fingerprint(found):
        return ()
    with closing(replay(entry.migration for entry in resolution.applied)) as expected:
        return compare(inspect(expected), found)
