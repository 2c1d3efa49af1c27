"""Whose database it is: the original's is known in each of its states, and no other is taken for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.errors import HistoryRefused
from local_mcp_gateway.migrate import Original, find_original
from tests.harness import REPOSITORY
from tests.originals import STATES, make_original


def found(file: Path, *changes: str) -> Original | None:
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        for change in changes:
            database.execute(change)
        return find_original(database)


@pytest.mark.parametrize("state", STATES)
def test_each_state_is_known(tmp_path: Path, state: str) -> None:
    original = found(make_original(state, tmp_path / "old.db"))
    assert original is not None
    assert original.broken is None
    assert "belongs to the original local-mcp-gateway" in original.problem.message
    assert "db adopt --from local-mcp-gateway" in original.problem.hint


def test_other_databases_are_not_taken_for_it(tmp_path: Path) -> None:
    assert found(tmp_path / "empty.db") is None
    ours = (REPOSITORY / "migrations" / "0000_initial.sql").read_text()
    assert found(tmp_path / "ours.db", *ours.split("--> statement-breakpoint")) is None
    prisma = 'CREATE TABLE _prisma_migrations (id TEXT, "checksum" TEXT, migration_name TEXT)'
    assert found(tmp_path / "prisma.db", prisma, "CREATE TABLE profiles (id, name)") is None


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("E", "UPDATE _prisma_migrations SET finished_at = NULL WHERE migration_name LIKE '%settings'"),
        ("B", "DELETE FROM migrations WHERE name LIKE '002%'"),
        ("B", "DELETE FROM migrations WHERE name LIKE '005%'"),
    ],
)  # fmt: skip
def test_one_that_its_own_program_left_half_done_is_not_taken_over(
    tmp_path: Path, state: str, change: str
) -> None:
    original = found(make_original(state, tmp_path / "old.db"), change)
    assert original is not None
    assert "half done" in original.problem.message
    assert "Start the original once more" in original.problem.hint
    with pytest.raises(HistoryRefused, match="half done"):
        original.require_whole()


@pytest.mark.parametrize(
    ("state", "change"),
    [
        ("E", "UPDATE _prisma_migrations SET migration_name = '20260401_more' WHERE id LIKE '%init'"),
        ("A", "INSERT INTO migrations VALUES ('x', '006_more', 1)"),
    ],
)  # fmt: skip
def test_a_newer_version_of_theirs_is_named_by_its_migration(
    tmp_path: Path, state: str, change: str
) -> None:
    original = found(make_original(state, tmp_path / "old.db"), change)
    assert original is not None
    assert "newer version of the original" in original.problem.message
    assert "_more)" in original.problem.message
    with pytest.raises(HistoryRefused, match="newer version"):
        original.require_whole()
