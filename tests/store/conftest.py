"""A real database file with this project's migrations applied."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.pool import ConnectionPool

MIGRATIONS = Path(__file__).parents[2] / "migrations"


def create_database(path: Path) -> Path:
    """Replay every migration file into a new database."""
    with closing(sqlite3.connect(path)) as connection:
        for file in sorted(MIGRATIONS.glob("*.sql")):
            if not file.name.endswith(".down.sql"):
                connection.executescript(file.read_text())
    return path


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    """Yield an open, empty database."""
    async with ConnectionPool.open(create_database(tmp_path / "gateway.db")) as database:
        yield database
