"""How far a database and a folder agree: a pure function of the ledger's rows and the files.

Dev mode takes back what comes after that point, so that the folder can be applied from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from local_mcp_gateway.migrate.resolve import match

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Folder
    from local_mcp_gateway.migrate.ledger import Applied


def agreed(folder: Folder, rows: Sequence[Applied]) -> int:
    """Return how many of the ledger's rows, from the first one on, may stay as they are.

    A row may not stay if the folder does not have its text, or has something before it that would
    then be applied after it.
    """
    place = {migration.tag: number for number, migration in enumerate(folder.migrations)}
    matched, _, _ = match(folder, rows)
    place_of = {row[:2]: place[tag] for tag, row in matched.items()}
    places = [place_of.get(row[:2]) for row in rows]
    kept = len(rows)
    while True:
        there = set(places[:kept])
        gap = next((n for n in range(len(place)) if n not in there), len(place))
        bad = (n for n, found in enumerate(places[:kept]) if found is None or found > gap)
        first = next(bad, kept)
        if first == kept:
            return kept
        kept = first
