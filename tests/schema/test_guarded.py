"""Every plan of `cases/` goes through the real guard, on a database with rows, and down again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.guard.guard import guarded
from local_mcp_gateway.migrate import generate
from local_mcp_gateway.schema import compare, inspect
from local_mcp_gateway.schema.renames import Renames, parse_renames
from local_mcp_gateway.schema.source import read_sql
from tests.schema import seeding
from tests.schema.oracles import STRICTER
from tests.schema.test_cases import CASES, fills_of, said


def add(folder: Path, target: Path) -> generate.Draft | None:
    """Generate the next migration towards a schema, as `db generate` does; None if nothing changes."""
    opened = generate.open_folder(folder)
    base, wanted = generate.schema_of(opened), read_sql(target)
    renames = (
        parse_renames(said(target, "rename"), base, wanted) if opened.migrations else Renames()
    )
    if not compare(wanted, base) and not renames.tables and not renames.columns:
        return None
    made = generate.draft(
        base, wanted, renames, fills_of(target), name="x", first=not opened.migrations
    )
    generate.write(opened, made)
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_guard_applies_every_plan(case: Path, tmp_path: Path) -> None:
    folder, database = tmp_path / "migrations", tmp_path / "x.db"
    old, new = read_sql(case / "old.sql"), read_sql(case / "new.sql")
    add(folder, case / "old.sql")
    with guarded(database, folder):
        pass
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        seeding.seed(connection, old)
    made = add(folder, case / "new.sql")
    may_fail = made is not None and {hazard.kind for hazard in made.plan.hazards} & STRICTER
    try:
        with guarded(database, folder):
            pass
    except GatewayError:
        assert may_fail
        return
    with closing(sqlite3.connect(database)) as connection:
        assert compare(new, inspect(connection)) == ()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
