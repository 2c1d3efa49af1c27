"""Databases that were replaced and kept beside: a restore or a rewind can be undone by name."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import Backup, find_backup, names
from local_mcp_gateway.backup.durable import named_failures
from local_mcp_gateway.backup.verify import file_hash, open_immutable
from local_mcp_gateway.errors import BackupForeign
from local_mcp_gateway.migrate.ledger import read_ledger
from local_mcp_gateway.migrate.seals import text_fingerprint

if TYPE_CHECKING:
    import threading


def find_to_restore(
    database: Path, name: str, folder: Path | None, *, stop: threading.Event | None = None
) -> Backup:
    """Return the backup of that name, or the replaced database; raises as `find_backup` does."""
    wanted = Path(name).name
    for aside in names.asides(database):
        if wanted in (aside.name, aside.stem):
            return _as_backup(database, aside, stop)
    return find_backup(database, name, folder)


def _as_backup(database: Path, aside: Path, stop: threading.Event | None) -> Backup:
    """Say of a replaced database what a manifest would; a restore checks the file itself."""
    if any(side.exists() for side in names.side_files(aside)):
        raise BackupForeign(f"{aside.name} was damaged when it was replaced.")
    with named_failures("read", aside), closing(open_immutable(aside)) as reader:
        applied = tuple(row.tag or row.hash for row in read_ledger(reader))
        fingerprint = text_fingerprint(reader)
        return Backup(
            path=aside,
            name=aside.stem,
            bytes=aside.stat().st_size,
            sha256=file_hash(aside, stop=stop),
            created_at=names.iso(datetime.fromisoformat(aside.stem.rpartition("replaced-")[2])),
            before=None,
            fingerprint=fingerprint,
            applied=applied,
            program_version="",
            verified=False,
            database=str(database.resolve()),
        )
