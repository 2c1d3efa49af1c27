"""Write a migration into the folder.

The journal is what makes a migration one, so it is written last: a crash leaves the old folder and perhaps a file that no journal lists, which every command names. Each file is written
to a temporary one, flushed and renamed.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.migrate.journal import Entry, replace_durably, write_journal

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Folder


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, or taken out."""

    tag: str
    files: tuple[Path, ...]


def next_number(folder: Folder) -> int:
    """Return the number of the next migration: one more than any in the folder, journaled or not."""
    names = [migration.tag for migration in folder.migrations] + [
        p.stem for p in folder.unjournaled
    ]
    names += [entry.tag for entry in folder.absent]
    numbers = [int(name[:4]) for name in names if name[:4].isdecimal()]
    return max(numbers, default=-1) + 1


def write_migration(
    folder: Folder,
    name: str,
    sql: str,
    *,
    down: str | None,
    snapshot: dict[str, Any] | None,
    when: int | None = None,
) -> Written:
    """Write `NNNN_name.sql`, its way back, its snapshot, then the journal entry; create the folder.

    `when` is in milliseconds since 1970: now, but later than every entry before it.
    """
    number = next_number(folder)
    tag = f"{number:04d}_{name}"
    meta = folder.path / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    files = [folder.path / f"{tag}.sql"]
    if snapshot is not None:
        files.insert(0, snapshot_file(folder.path, tag))
        replace_durably(files[0], snapshot_bytes(snapshot))
    if down is not None:
        files.insert(0, folder.path / f"{tag}.down.sql")
        replace_durably(files[0], down.encode())
    replace_durably(folder.path / f"{tag}.sql", sql.encode())
    latest = max((migration.when for migration in folder.migrations), default=0)
    stamp = max(int(time.time() * 1000) if when is None else when, latest + 1)
    idx = max((migration.idx for migration in folder.migrations), default=-1) + 1
    write_journal(folder.path, [Entry(idx, tag, stamp)])
    return Written(tag, (*reversed(files), meta / "_journal.json"))


def snapshot_bytes(snapshot: dict[str, Any]) -> bytes:
    """Return a snapshot as its file holds it."""
    return json.dumps(snapshot, indent=2, ensure_ascii=False).encode()


def snapshot_file(folder: Path, tag: str) -> Path:
    """Return where the snapshot of a migration is: Drizzle names it by the number alone."""
    return folder / "meta" / f"{tag[:4]}_snapshot.json"


def read_snapshot_file(folder: Path, tag: str) -> dict[str, Any] | None:
    """Return a snapshot's JSON, or None where there is none or it is damaged."""
    try:
        found = json.loads(snapshot_file(folder, tag).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
