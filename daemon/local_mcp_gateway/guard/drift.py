"""Drift: the live schema against what the applied migrations make of an empty database.

The ledger's history remembers the fingerprint of the schema's texts after the last migration, so an
unchanged schema costs neither inspection nor replay. Where the texts differ, the models decide.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import ForbiddenStatement, MigrationFailed
from local_mcp_gateway.migrate.seals import last_fingerprint, text_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.migrate.resolve import Resolution
    from local_mcp_gateway.schema import Difference


def find_drift(
    connection: Connection,
    resolution: Resolution,
    prepare: Callable[[Connection], None] | None = None,
) -> tuple[Difference, ...]:
    """Return what differs from the replay of the applied migrations; none for an unmigrated database.

    `prepare` registers the SQL functions that the migrations call.
    """
    if not resolution.applied or last_fingerprint(connection) == text_fingerprint(connection):
        return ()
    from local_mcp_gateway.migrate.replay import replay
    from local_mcp_gateway.schema import compare, inspect

    applied = (entry.migration for entry in resolution.applied)
    try:
        with closing(replay(applied, prepare=prepare, past=True)) as expected:
            return compare(inspect(expected), inspect(connection))
    except (MigrationFailed, ForbiddenStatement):
        return ()  # applied out of order, say: an empty database says nothing about this one
