"""Real folders, squashed: databases at every state, before and after, end where plain replay ends."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.migrate.folder import Folder, read_folder
from local_mcp_gateway.migrate.importers import FolderFormat, convert
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.plan import Plan
from local_mcp_gateway.migrate.squash import draft_squash, write_squash
from tests.corpus.folders import FOLDERS, RealFolder, as_migrations
from tests.harness import REPOSITORY
from tests.migrate.made_folders import dump
from tests.migrate.workshop import apply_all

pytestmark = pytest.mark.corpus

SHORT = "chromadb-sysdb"
"""Nine migrations that rebuild tables."""
UNSQUASHED = {
    "astrotask-migrations-drizzle-sqlite": "one migration",
    "synapse-common": "one migration",
    "actual-api": "begins with a database that its application ships",
}
SQUASHED = [folder for folder in FOLDERS if folder.schema and folder.name not in UNSQUASHED]


def in_the_middle(folder: Folder) -> list[str]:
    tags = [migration.tag for migration in folder.migrations]
    return [tags[len(tags) // 2], tags[-1]]


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(folder, marks=() if folder.name == SHORT else pytest.mark.nightly)
        for folder in SQUASHED
    ],
    ids=lambda folder: folder.name,
)
def test_a_database_of_a_real_folder_ends_the_same_from_any_state(
    folder: RealFolder, fetched: Path, tmp_path: Path
) -> None:
    migrations = as_migrations(folder, fetched, tmp_path / "old")
    if not (migrations / "meta").exists():
        convert(migrations, FolderFormat.PLAIN, now_ms=1)
    require_the_same(migrations, tmp_path)


@pytest.mark.nightly
def test_a_database_of_our_own_folder_ends_the_same_from_any_state(tmp_path: Path) -> None:
    require_the_same(shutil.copytree(REPOSITORY / "migrations", tmp_path / "old"), tmp_path)


def require_the_same(migrations: Path, root: Path) -> None:
    """Squash in the middle and at the end, and come there from each state."""
    old = read_folder(migrations)
    with closing(open_scratch()) as plain:
        migrate(plain, old)
        expected = dump(plain)
    for number, tag in enumerate(in_the_middle(old)):
        path = shutil.copytree(migrations, root / str(number))
        made = draft_squash(path, to=tag)
        if made is None:
            continue
        write_squash(made)
        new = read_folder(path)
        for before in range(len(old.migrations) + 1):
            with closing(open_scratch()) as connection:
                migrate(connection, old, before)
                left = migrate(connection, new)
                wanted = len(old.migrations) - before if before else len(new.migrations)
                assert (left, dump(connection)) == (wanted, expected)


def migrate(connection: sqlite3.Connection, folder: Folder, count: int | None = None) -> int:
    """Apply what is pending, or so many of it; return how many were."""
    plan = Plan.read(folder, Ledger(connection))
    assert plan.problems == ()
    connection.execute("BEGIN")
    apply_all(connection, plan.pending[:count])
    Ledger(connection).ensure()
    connection.execute("COMMIT")
    return len(plan.pending)
