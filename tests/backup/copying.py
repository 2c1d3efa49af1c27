"""A backup, a place for its copy, and a key: what the tests of copies are made from."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pyrage.x25519 import Identity

from local_mcp_gateway.backup import Backup, CopyStore, create_backup
from local_mcp_gateway.service.object_store.stores import folder as folder_place

KEY = Identity.generate()
RECIPIENTS = [KEY.to_public()]


def a_backup(root: Path, *, rows: int = 10, before: str | None = None) -> Backup:
    database = root / "app.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)")
        connection.execute("BEGIN")
        for _ in range(rows):
            connection.execute("INSERT INTO notes (text) VALUES (hex(randomblob(50000)))")
        connection.execute("COMMIT")
    return create_backup(database, before=before, fingerprint="", applied=(), program_version="1")


def a_store(root: Path) -> CopyStore:
    folder = root / "elsewhere"
    folder.mkdir(exist_ok=True)
    return CopyStore(f"file://{folder}", folder_place(folder))
