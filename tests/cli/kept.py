"""A database with backups, and what lies around it."""

from __future__ import annotations

from typing import Any

from tests.harness import Place

NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"


def backups(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.run("db", "backup", "list", "--json").json()["backups"]
    return found


def data_files(place: Place) -> set[str]:
    """Name the files next to the database, without those of a WAL that a reading test left."""
    found = {path.name for path in place.database.parent.iterdir() if path.is_file()}
    return {name for name in found if not name.endswith(("-wal", "-shm"))}
