"""The tables that `generate` reads and the migrations that users have are the same schema."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from local_mcp_gateway.schema import compare, inspect
from local_mcp_gateway.store.model import COLUMNS
from local_mcp_gateway.store.tables import metadata
from tests.gateway.support import create_database


def test_the_replayed_migrations_equal_the_declared_tables(tmp_path: Path) -> None:
    replayed = sqlite3.connect(create_database(tmp_path / "replayed.db"))
    declared = sqlite3.connect(":memory:")
    with closing(replayed), closing(declared):
        for table in metadata.sorted_tables:
            declared.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
            for index in table.indexes:
                declared.execute(str(CreateIndex(index).compile(dialect=sqlite.dialect())))
        assert compare(inspect(replayed), inspect(declared)) == ()


def test_the_columns_that_a_migrated_database_must_have_are_those_of_the_tables() -> None:
    named = {table: columns.split() for table, columns in COLUMNS.items()}
    assert named == {
        table.name: [column.name for column in table.columns] for table in metadata.tables.values()
    }
