"""Keep the numbers of AUTOINCREMENT tables over a rebuild.

SQLite never gives a rowid of such a table twice: `sqlite_sequence` has the largest one ever. A rebuild's
new table begins with the largest that was copied, so the number of a deleted row would be given again,
and whatever still names that row would mean another. The old number is certain, and is set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.migrate.lineage import Lineage
from local_mcp_gateway.sql import fold, tokens

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from local_mcp_gateway.migrate.apply import Step


def read_sequences(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the largest rowid that each AUTOINCREMENT table ever had, by its folded name."""
    ever = connection.execute(
        "SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'"
    ).fetchone()
    if ever is None:  # there has never been such a table
        return {}
    found = connection.execute("SELECT name, seq FROM sqlite_sequence")
    return {fold(name): seq for name, seq in found if name and isinstance(seq, int)}


def keep_sequences(
    connection: sqlite3.Connection, before: Mapping[str, int], steps: Sequence[Step]
) -> None:
    """Give rebuilt tables at least the numbers `before`, unless a statement sets them itself.

    Runs inside the open transaction.
    """
    changes = [change for step in steps for change in step.changes]
    if not before or not any(change.what == "drop" for change in changes):
        return
    texts = (text.lower() for step in steps for text in step.texts)
    own = [text for text in texts if "sqlite_sequence" in text]
    now = read_sequences(connection)
    lineage = Lineage(before, changes)
    for name, last in before.items():
        fate = lineage.fate(name)
        if not fate.rebuilt or fate.now is None or now.get(fate.now, -1) >= last:
            continue
        if any(one in text for text in own for one in (name, fate.last_name)):
            continue
        table, sql = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND lower(name) = ?",
            (fate.now,),
        ).fetchone()
        if any(token.upper == "AUTOINCREMENT" for token in tokens(sql)):
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last))
