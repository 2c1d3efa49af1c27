"""A folder against a live database, at the least cost: most starts find nothing to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.migrate.ledger import read_ledger
from local_mcp_gateway.migrate.resolve import resolve

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.folder import Folder
    from local_mcp_gateway.migrate.resolve import Resolution


def resolve_live(
    folder: Folder, connection: sqlite3.Connection, *, allow_out_of_order: bool = False
) -> Resolution:
    """Resolve against the ledger; the history is read only where a problem needs its words."""
    found = resolve(
        folder, read_ledger(connection, brief=True), allow_out_of_order=allow_out_of_order
    )
    if not found.problems:
        return found
    return resolve(folder, read_ledger(connection), allow_out_of_order=allow_out_of_order)
