"""A real database file with this project's migrations applied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local_mcp_gateway.database.pool import ConnectionPool
from tests.gateway.support import create_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[ConnectionPool]:
    """Yield an open, empty database."""
    async with ConnectionPool.open(create_database(tmp_path / "gateway.db")) as database:
        yield database
