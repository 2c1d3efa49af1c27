"""A new place at the end for migrations that two branches numbered alike, or that came too late.

Only what is pending can be moved: what a database has applied is known there by its hash and time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.migrate.journal import replace_durably

if TYPE_CHECKING:
    from pathlib import Path

    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.resolve import Resolution

_WIDTH = 4


@dataclass(frozen=True, slots=True)
class Move:
    """One migration's new place."""

    migration: Migration
    tag: str
    idx: int
    when: int


def plan_renumber(folder: Folder, resolution: Resolution, *, now_ms: int) -> tuple[Move, ...]:
    """Return the moves that mend duplicate numbers and late arrivals, in the folder's order; pure."""
    if folder.stamped:
        raise UsageProblem(
            "This folder has one folder a migration (Drizzle 1.x), which have no numbers.",
            hint="Rename the folder of the late migration to a later stamp.",
        )
    pending = {migration.tag for migration in resolution.pending}
    newest_applied = max((entry.created_at for entry in resolution.applied), default=-1)
    last = max((n for n, m in enumerate(folder.migrations) if m.tag not in pending), default=-1)
    taken: dict[object, str] = {}
    for migration in folder.migrations:
        if migration.tag not in pending:
            taken.update(dict.fromkeys(_keys(migration), migration.tag))
    moving: list[Migration] = []
    for place, migration in enumerate(folder.migrations):
        if migration.tag not in pending:
            continue
        late = place < last or migration.when <= newest_applied
        if late or any(key in taken for key in _keys(migration)):
            moving.append(migration)
        else:
            taken.update(dict.fromkeys(_keys(migration), migration.tag))
    number = 1 + max((max(m.idx, _number(m.tag)) for m in folder.migrations), default=-1)
    when = max([now_ms, *(m.when + 1 for m in folder.migrations)])
    return tuple(
        Move(m, f"{number + n:0{_WIDTH}d}_{_name(m.tag)}", number + n, when + n)
        for n, m in enumerate(moving)
    )


def carry_out(folder: Path, moves: Sequence[Move]) -> None:
    """Rename the files and rewrite the journal: new files, journal, then the old files are removed.

    A crash in between leaves old files beside the journal, which are refused as unjournaled.
    """
    old: list[Path] = []
    for move in moves:
        for suffix in (".sql", ".down.sql"):
            source = folder / f"{move.migration.tag}{suffix}"
            if source.exists():
                replace_durably(folder / f"{move.tag}{suffix}", source.read_bytes())
                old.append(source)
    file = folder / "meta" / "_journal.json"
    journal = json.loads(file.read_bytes())
    gone = {move.migration.tag for move in moves}
    by_tag = {entry["tag"]: entry for entry in journal["entries"]}
    journal["entries"] = [entry for entry in journal["entries"] if entry["tag"] not in gone] + [
        {**by_tag[move.migration.tag], "idx": move.idx, "when": move.when, "tag": move.tag}
        for move in moves
    ]
    _move_snapshots(folder / "meta", moves, [entry["tag"] for entry in journal["entries"]])
    replace_durably(file, json.dumps(journal, indent=2, ensure_ascii=False).encode())
    for source in old:
        source.unlink()


def _move_snapshots(meta: Path, moves: Sequence[Move], tags: list[str]) -> None:
    """Give each snapshot that belongs to a moved migration alone its new number and predecessor.

    Where two migrations had one number there is one snapshot for both: it stays with the one that
    stays, and `db generate` writes the next from the folder itself.
    """
    numbers = [tag.partition("_")[0] for tag in tags]
    for move in moves:
        number = move.migration.tag.partition("_")[0]
        source = meta / f"{number}_snapshot.json"
        if number in numbers or not source.exists():
            continue
        snapshot = json.loads(source.read_bytes())
        before = sorted(file for file in meta.glob("*_snapshot.json") if file != source)
        if before:
            snapshot["prevId"] = json.loads(before[-1].read_bytes()).get(
                "id", snapshot.get("prevId")
            )
        replace_durably(
            meta / f"{move.tag.partition('_')[0]}_snapshot.json",
            json.dumps(snapshot, indent=2, ensure_ascii=False).encode(),
        )
        source.unlink()


def _keys(migration: Migration) -> list[object]:
    number = migration.tag.partition("_")[0]
    return (
        [migration.idx, number] if number.isdigit() and len(number) == _WIDTH else [migration.idx]
    )


def _number(tag: str) -> int:
    """Return the count at the beginning of a tag; a time stamp there is no count."""
    number = tag.partition("_")[0]
    return int(number) if number.isdigit() and len(number) <= _WIDTH else -1


def _name(tag: str) -> str:
    number, _, name = tag.partition("_")
    return name if number.isdigit() and name else tag
