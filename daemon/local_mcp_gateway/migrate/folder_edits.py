"""Change a migrations folder: write, drop and renumber migrations.

The journal is written last: a crash leaves the old folder and perhaps a file without a journal entry,
which every command names. Each file is written to a temporary one, flushed and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.database import flush, has_content, reading
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.migrate.journal import (
    INDEX_DIGITS,
    Entry,
    places_of,
    prefix_of,
    replace_durably,
    write_journal,
)
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.regular_file import read_bytes

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.resolution import Resolution


_TIMESTAMP_DIGITS = len("20241128123456")
_UNIX_DIGITS = len("1732797296")


@dataclass(frozen=True, slots=True)
class WrittenMigration:
    """What was written."""

    tag: str
    files: tuple[Path, ...]


def next_prefix(folder: Folder, *, now: int) -> str:
    """Return what the next tag begins with, in the style of the newest one.

    One more than any number in the folder, journaled or not, with as many digits; or the time `now` (in
    milliseconds) as `drizzle-kit generate --prefix timestamp|supabase|unix` writes it, and later than
    any other.
    """
    names = [migration.tag for migration in folder.migrations] + [
        p.stem for p in folder.unjournaled
    ]
    names += [entry.tag for entry in folder.absent]
    prefixes = [prefix for name in names if (prefix := prefix_of(name))]
    newest = max(prefixes, key=int, default="")
    number, digits = int(newest or -1) + 1, len(newest)
    if digits == _TIMESTAMP_DIGITS:
        moment = datetime.fromtimestamp(now / 1000, UTC)
        return str(max(number, int(moment.strftime("%Y%m%d%H%M%S"))))
    if digits == _UNIX_DIGITS:
        return str(max(number, now // 1000))
    return f"{number:0{digits or INDEX_DIGITS}d}"


def write_migration(
    folder: Folder,
    name: str,
    sql: str,
    *,
    down: str | None,
    snapshot: dict[str, Any] | None,
    when: int | None = None,
) -> WrittenMigration:
    """Write the migration's file, its down file, its snapshot, then the journal entry; create the folder.

    `when` is in milliseconds since 1970: now, but later than every entry before it.
    """
    latest = max((migration.when for migration in folder.migrations), default=0)
    stamp = max(now_ms() if when is None else when, latest + 1)
    if folder.is_v1:
        return _write_v1(folder.path, name, sql, down=down, snapshot=snapshot, when=stamp)
    tag = f"{next_prefix(folder, now=stamp)}_{name}"
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
    idx = max((migration.idx for migration in folder.migrations), default=-1) + 1
    write_journal(folder.path, [Entry(idx, tag, stamp)])
    return WrittenMigration(tag, (*reversed(files), meta / "_journal.json"))


def _write_v1(
    path: Path, name: str, sql: str, *, down: str | None, snapshot: dict[str, Any] | None, when: int
) -> WrittenMigration:
    """Write a migration of Drizzle 1.x: a folder, which appears whole."""
    moment = datetime.fromtimestamp(-(-when // 1000), UTC)  # whole seconds, not earlier
    tag = f"{moment:%Y%m%d%H%M%S}_{name}"
    hidden, place = path / f".{tag}.{os.getpid()}.tmp", path / tag
    texts = {
        "migration.sql": sql.encode(),
        "snapshot.json": None if snapshot is None else snapshot_bytes(snapshot),
        "down.sql": None if down is None else down.encode(),
    }
    hidden.mkdir()
    try:
        for file, data in texts.items():
            if data is not None:
                replace_durably(hidden / file, data)
        hidden.rename(place)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    flush(path)
    return WrittenMigration(tag, tuple(place / file for file, data in texts.items() if data))


def snapshot_bytes(snapshot: dict[str, Any]) -> bytes:
    """Return a snapshot as its file holds it."""
    return json.dumps(snapshot, indent=2, ensure_ascii=False).encode()


def snapshot_file(folder: Path, tag: str) -> Path:
    """Return the path of a migration's snapshot: Drizzle names it by the number or time alone.

    In Drizzle 1.x it is in the migration's own folder.
    """
    if (folder / tag).is_dir():
        return folder / tag / "snapshot.json"
    return folder / "meta" / f"{prefix_of(tag) or tag}_snapshot.json"


def with_snapshots(folder: Folder) -> tuple[Migration, ...]:
    """Return the migrations that can have a snapshot: of two with one number, the later."""
    owners = {snapshot_file(folder.path, m.tag): m for m in folder.migrations}
    return tuple(m for m in folder.migrations if owners[snapshot_file(folder.path, m.tag)] is m)


def read_snapshot_file(folder: Path, tag: str) -> dict[str, Any] | None:
    """Return a snapshot's JSON, or None where there is none or it is damaged."""
    try:
        found = parse_json(read_bytes(snapshot_file(folder, tag)))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def has_applied(database: Path, migration: Migration) -> bool:
    """Return whether this database has applied it, even with a text that was edited since."""
    if not has_content(database):
        return False
    with reading(database) as connection:
        return Ledger(connection).has_applied(migration)


def drop_migration(folder: Folder, migration: Migration) -> tuple[Path, ...]:
    """Remove the newest migration: its journal entry, then its files; no database may have applied it.

    Returns what was removed.
    """
    if folder.is_v1:
        return _drop_v1(migration)
    journal = folder.path / "meta" / "_journal.json"
    content = parse_json(journal.read_bytes())
    content["entries"] = [
        entry for entry in content["entries"] if entry.get("tag") != migration.tag
    ]
    replace_durably(journal, json.dumps(content, indent=2, ensure_ascii=False).encode())
    files = [migration.path, snapshot_file(folder.path, migration.tag)]
    if migration.down is not None:
        files.append(migration.down)
    removed = [file for file in files if file.exists()]
    for file in removed:
        file.unlink()
    flush(folder.path)
    flush(journal.parent)
    return tuple(removed)


def _drop_v1(migration: Migration) -> tuple[Path, ...]:
    place = migration.path.parent
    removed = tuple(sorted(file for file in place.rglob("*") if file.is_file()))
    hidden = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    place.rename(hidden)
    flush(hidden.parent)
    shutil.rmtree(hidden)
    return removed


@dataclass(frozen=True, slots=True)
class RenumberedMigration:
    """One migration's new place."""

    migration: Migration
    tag: str
    idx: int
    when: int


def plan_renumber(
    folder: Folder, resolution: Resolution, *, now_ms: int
) -> tuple[RenumberedMigration, ...]:
    """Return the moves that resolve duplicate numbers and late arrivals, in the folder's order. Pure."""
    if folder.is_v1:
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
            taken.update(dict.fromkeys(places_of(migration.idx, migration.tag), migration.tag))
    moving: list[Migration] = []
    for place, migration in enumerate(folder.migrations):
        if migration.tag not in pending:
            continue
        late = place < last or migration.when <= newest_applied
        if late or any(place in taken for place in places_of(migration.idx, migration.tag)):
            moving.append(migration)
        else:
            taken.update(dict.fromkeys(places_of(migration.idx, migration.tag), migration.tag))
    number = 1 + max((max(m.idx, _number(m.tag)) for m in folder.migrations), default=-1)
    when = max((m.when for m in folder.migrations if m not in moving), default=0)
    moves = []
    for n, m in enumerate(moving, number):
        # A time that is right already stays: another database may have applied the file by it.
        when = m.when if m.when > when else max(now_ms, when + 1)
        moves.append(RenumberedMigration(m, f"{n:0{INDEX_DIGITS}d}_{_name(m.tag)}", n, when))
    return tuple(moves)


def renumber(folder: Path, moves: Sequence[RenumberedMigration]) -> None:
    """Renumber: write the new files, then the journal, then remove the old files.

    A crash in between leaves old files next to the journal, which are refused as unjournaled.
    """
    old: list[Path] = []
    for move in moves:
        for suffix in (".sql", ".down.sql"):
            source = folder / f"{move.migration.tag}{suffix}"
            if source.exists():
                replace_durably(folder / f"{move.tag}{suffix}", source.read_bytes())
                old.append(source)
    file = folder / "meta" / "_journal.json"
    journal = parse_json(file.read_bytes())
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


def _move_snapshots(meta: Path, moves: Sequence[RenumberedMigration], tags: list[str]) -> None:
    """Update number and predecessor of each snapshot that belongs to a moved migration alone.

    Two migrations with the same number share one snapshot: it stays with the one that stays, and
    `db generate` writes the next from the folder itself.
    """
    numbers = [tag.partition("_")[0] for tag in tags]
    for move in moves:
        number = move.migration.tag.partition("_")[0]
        source = meta / f"{number}_snapshot.json"
        if number in numbers or not source.exists():
            continue
        snapshot = parse_json(source.read_bytes())
        before = sorted(file for file in meta.glob("*_snapshot.json") if file != source)
        if before:
            snapshot["prevId"] = parse_json(before[-1].read_bytes()).get(
                "id", snapshot.get("prevId")
            )
        replace_durably(
            meta / f"{move.tag.partition('_')[0]}_snapshot.json",
            json.dumps(snapshot, indent=2, ensure_ascii=False).encode(),
        )
        source.unlink()


def _number(tag: str) -> int:
    """Return the number at the beginning of a tag; a time there does not count."""
    number = prefix_of(tag)
    return int(number) if number and len(number) <= INDEX_DIGITS else -1


def _name(tag: str) -> str:
    return tag.removeprefix(f"{prefix_of(tag)}_")
