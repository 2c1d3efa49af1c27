"""Real migration folders end where any engine ends, or are refused for the right reason."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.errors import HistoryRefused, MigrationFailed, VerificationFailed
from local_mcp_gateway.guard import guarded
from local_mcp_gateway.migrate.apply import run_batch
from local_mcp_gateway.migrate.folder import Migration, read_folder
from local_mcp_gateway.migrate.importers import FolderFormat, convert
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.plan import Batch
from local_mcp_gateway.migrate.rebuilds import Rebuilds
from local_mcp_gateway.migrate.verify import count_rows, verify, verify_dependents
from local_mcp_gateway.schema import inspect
from tests.corpus.folders import (
    COUNTED,
    FOLDERS,
    RealFolder,
    as_migrations,
    fetched_base,
    ledger_hash,
    schema_hash,
)
from tests.schema.seeding import seed
from tests.tally import Count

pytestmark = pytest.mark.corpus
LARGEST = "synapse-main"
"""It has rows in so many tables, so many times, that it takes longer than all others together."""

APPLICABLE = [folder for folder in FOLDERS if folder.schema]
REFUSED = [folder for folder in FOLDERS if folder.refusal]
INCOMPLETE = [folder for folder in FOLDERS if folder.left_out]


def named(folders: list[RealFolder]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("folder", folders, ids=lambda folder: folder.name)


def ours(folder: RealFolder, fetched: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The folder, ours by now, and the database that its application starts from."""
    migrations = as_migrations(folder, fetched, tmp_path / "migrations")
    if not (migrations / "meta").exists():
        convert(migrations, FolderFormat.PLAIN, now_ms=1)
    database = tmp_path / "app.db"
    fetched_base(fetched, database)
    return database, migrations


@named(APPLICABLE)
def test_a_real_folder_ends_with_the_schema_and_the_ledger_that_are_known(
    folder: RealFolder, fetched: Path, tmp_path: Path, count: Count
) -> None:
    database, migrations = ours(folder, fetched, tmp_path)
    with guarded(database, migrations) as report:
        assert len(report.applied) == len(read_folder(migrations).migrations)
    assert schema_hash(database) == folder.schema
    if folder.ledger:
        assert ledger_hash(database) == folder.ledger
    with guarded(database, migrations) as report:
        assert report.state == "current"
    count(COUNTED, "applied", folder.name)


@named(REFUSED)
def test_a_folder_for_another_database_is_refused_before_anything_is_written(
    folder: RealFolder, fetched: Path, tmp_path: Path, count: Count
) -> None:
    database, migrations = ours(folder, fetched, tmp_path)
    with pytest.raises(HistoryRefused) as caught, guarded(database, migrations):
        pass
    assert caught.value.problems[0].code == folder.refusal
    assert not database.exists()
    count(COUNTED, "refused", folder.name)


@named(INCOMPLETE)
def test_a_folder_whose_base_is_missing_fails_and_leaves_nothing(
    folder: RealFolder, fetched: Path, tmp_path: Path
) -> None:
    migrations = as_migrations(folder, fetched, tmp_path / "migrations", whole=True)
    convert(migrations, FolderFormat.PLAIN, now_ms=1)
    database = tmp_path / "app.db"
    with pytest.raises(MigrationFailed, match="no such table"), guarded(database, migrations):
        pass
    connection = sqlite3.connect(database)
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(folder, marks=pytest.mark.nightly if folder.name == LARGEST else ())
        for folder in APPLICABLE
    ],
    ids=lambda folder: folder.name,
)
def test_no_row_is_lost_that_the_migration_does_not_delete(
    folder: RealFolder, fetched: Path, tmp_path: Path
) -> None:
    """Rows in every table before each step; a step that our made-up rows do not fit runs without."""
    database, migrations = ours(folder, fetched, tmp_path)
    connection = open_scratch()  # in memory: each row is a transaction of its own
    with closing(sqlite3.connect(database)) as base:
        base.backup(connection)
    misfits: list[str] = []
    accepted: list[tuple[str, str]] = []
    lost: list[tuple[str, str]] = []
    for migration in read_folder(migrations).migrations:
        seed(connection, inspect(connection))
        try:
            lost += step(connection, migration, accepted)
        except (MigrationFailed, VerificationFailed):
            misfits.append(migration.tag)
            empty(connection)
            step(connection, migration, accepted)
    with closing(sqlite3.connect(database)) as result:
        connection.backup(result)
    connection.close()
    assert (misfits, lost) == (list(folder.misfits), list(folder.loses))
    assert accepted == list(folder.accepts)
    assert schema_hash(database) == folder.schema


def step(
    connection: sqlite3.Connection, migration: Migration, accepted: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Apply one migration; return the tables that are still there with fewer rows.

    What it would have to accept, by the line that its refusal gives, is accepted and added to `accepted`.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = count_rows(connection)
        rebuilds = Rebuilds(connection, limit=100_000) if before.rows else None
        steps = run_batch(Batch.of((migration,)), Ledger(connection), rebuilds=rebuilds)
        losses = verify(connection, before, steps)
        if before.rows:
            verify_dependents(connection, before, steps)
    except VerificationFailed as error:
        connection.execute("ROLLBACK")
        line = re.search(r"`-- guard: (accept [^`]+)`", error.hint)
        if line is None:
            raise
        accepted.append((migration.tag, line[1]))
        accepting = migration._replace(sql=f"-- guard: {line[1]}\n{migration.sql}")
        return step(connection, accepting, accepted)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    still = set(inspect(connection).tables)
    return [(migration.tag, loss.object) for loss in losses if loss.object in still]


def empty(connection: sqlite3.Connection) -> None:
    tables = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema='main' AND type='table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_\\_%' ESCAPE '\\'"
    ).fetchall()
    for (name,) in tables:
        connection.execute(f'DELETE FROM "{name}"')
