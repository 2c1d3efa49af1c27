"""Tell a migrations folder as its author left it from one that is being saved.

Editors write temporary files, rename, and save twice; a file that is read half-written would be applied
half (platformatic/platformatic#84). So a folder counts as stable when two looks a moment apart see the
same bytes, and a file whose last statement is not finished gets longer to grow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from local_mcp_gateway.migrate.statements import is_complete

if TYPE_CHECKING:
    from pathlib import Path

PAUSE_S = 0.025
"""Between two looks. An editor's write and its rename are microseconds apart, a copy of many files ms."""
JOURNAL = "meta/_journal.json"
PATIENCE_S = 1.0
"""How long a file may stay empty or end inside a statement before it is taken at its word."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a folder held at one moment: each file's name and the hash of its bytes."""

    files: tuple[tuple[str, str], ...]
    unfinished: tuple[str, ...]
    """Files that are empty or whose last statement has no end yet."""


NOTHING: Final = Look((), ())
"""What was seen before the first look."""


def look(folder: Path) -> Look:
    """Read every file that decides what is applied: `*.sql` and the journal."""
    files: list[tuple[str, str]] = []
    unfinished: list[str] = []
    for path in sorted([*folder.glob("*.sql"), *folder.glob("*/*.sql"), folder / JOURNAL]):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # renamed away between the listing and the reading
        files.append((str(path.relative_to(folder)), hashlib.sha256(content).hexdigest()))
        if path.suffix == ".sql" and not _is_whole(content):
            unfinished.append(path.name)
    return Look(tuple(sorted(files)), tuple(unfinished))


async def settled(folder: Path, known: frozenset[str] = frozenset()) -> Look:
    """Return the folder once nobody is writing to it any more; `known` are files that were there."""
    before = look(folder)
    waited_s = 0.0
    while True:
        await anyio.sleep(PAUSE_S)
        waited_s += PAUSE_S
        now = look(folder)
        # A file that is gone may be one that an editor is just about to put back.
        growing = now.unfinished or known - {name for name, _ in now.files}
        if now == before and (not growing or waited_s >= PATIENCE_S):
            return now
        if now != before:
            waited_s = 0.0
        before = now


def _is_whole(content: bytes) -> bool:
    text = content.decode("utf-8", "replace").strip()
    if not text:
        return False
    # A last statement needs no semicolon; complete_statement is false for it. A file that was cut
    # looks the same, so it only waits longer; after that SQLite itself is the judge.
    return is_complete(text) or text.endswith("--> statement-breakpoint")
