"""A backup on request: the facts of its manifest are read from the database itself."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import create_backup
from local_mcp_gateway.database.connect import reading
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.ledger import read_ledger
from local_mcp_gateway.migrate.seals import text_fingerprint

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.log import Emit


def back_up_now(
    database: Path,
    *,
    backup_folder: Path,
    program_version: str,
    before: str | None = None,
    emit: Emit = ignore,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> Backup:
    """Back up a database that may be in use; needs no lock, and holds up no writer in WAL mode.

    What the manifest says is read just before: a migration that is applied in between is in the
    backup and not in its manifest, which makes a restore of it no less right.
    """
    begun = perf_counter()
    with reading(database) as reader:
        applied = [row.tag or row.hash for row in read_ledger(reader)]
        now = text_fingerprint(reader)
    backup = create_backup(
        database,
        folder=backup_folder,
        before=before,
        fingerprint=now,
        applied=applied,
        program_version=program_version,
        progress=progress,
        stop=stop,
    )
    emit(
        "backup.created",
        path=str(backup.path),
        bytes=backup.bytes,
        sha256=backup.sha256,
        duration_ms=round((perf_counter() - begun) * 1000, 3),
    )
    return backup
