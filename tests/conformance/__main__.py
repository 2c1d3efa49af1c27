"""Run the official conformance suite directly and through the gateway, and print the table of it.

`python -m tests.conformance [REVISION…]`; needs Node.js 22 (or `CONFORMANCE_NODE`) and npm.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.conformance.sides import SIDES, compare, row, sides
from tests.conformance.suite import REVISIONS, Missing, installed

CACHE = Path.home() / ".cache" / "local-mcp-gateway-conformance"


async def main(revisions: list[str]) -> int:
    """Return 0, 1 when something differs that should not, or 2 when the suite cannot be run."""
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        suite = installed(CACHE)
    except Missing as why:
        print(f"The conformance suite cannot be run here: {why}", file=sys.stderr)
        return 2
    rows: list[str] = []
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        async with sides(Path(folder)) as urls:
            for revision in revisions or REVISIONS:
                result = await compare(suite, urls, revision)
                rows.append(row(revision, result.found))
                differing += result.differing
                rows += [f"(run again: {sentence})" for sentence in result.repeated]
    print(f"| revision | {' | '.join(SIDES)} |", *rows, *differing, sep="\n")
    return 1 if differing else 0


sys.exit(asyncio.run(main(sys.argv[1:])))
