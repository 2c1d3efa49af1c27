"""Fixtures of the engine's tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import open_scratch
from tests.migrate.workshop import Workshop


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def scratch() -> Iterator[sqlite3.Connection]:
    connection = open_scratch()
    yield connection
    connection.close()


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()
