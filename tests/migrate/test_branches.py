"""Branches of a Drizzle 1.x folder: accepted where their order makes no difference, named where it does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.errors import HistoryRefused
from local_mcp_gateway.migrate import Folder, Ledger, Plan, check_folder, read_folder
from local_mcp_gateway.migrate.batch import apply_batch
from local_mcp_gateway.migrate.branches import find_collisions, leaves, read_graph
from local_mcp_gateway.migrate.generate import (
    draft,
    open_folder,
    rewrite_snapshots,
    schema_of,
    write,
)
from local_mcp_gateway.schema import FIRST, Renames, read_sql

BASE = "CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT);\nCREATE TABLE b (y);"


class Stamped:
    """A folder of Drizzle 1.x, one migration a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.add("base", BASE, after=FIRST)

    def add(self, name: str, sql: str, *, after: str | list[str] = "base") -> str:
        """Write a migration whose snapshot, without content, has its name for an id."""
        self.count += 1
        place = self.path / f"2024010203040{self.count}_{name}"
        place.mkdir(parents=True)
        (place / "migration.sql").write_text(sql)
        before = [after] if isinstance(after, str) else after
        snapshot = {"version": "7", "id": name, "prevIds": before, "ddl": []}
        (place / "snapshot.json").write_text(json.dumps(snapshot))
        return place.name

    def read(self) -> Folder:
        return read_folder(self.path)

    def collisions(self) -> list[str]:
        return [problem.message for problem in find_collisions(self.read())]


@pytest.fixture
def stamped(tmp_path: Path) -> Stamped:
    return Stamped(tmp_path / "drizzle")


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def migrate(folder: Folder, connection: sqlite3.Connection) -> list[str]:
    plan = Plan.read(folder, Ledger(connection))
    if plan.problems:
        raise HistoryRefused(plan.problems)
    connection.execute("BEGIN")
    done = apply_batch(plan, Ledger(connection))
    connection.execute("COMMIT")
    return [step.tag.partition("_")[2] for step in done.steps]


REBUILD = """CREATE TABLE __new_{0} ({1}); INSERT INTO __new_{0} SELECT {2} FROM {0};
DROP TABLE {0}; ALTER TABLE __new_{0} RENAME TO {0};"""
COMMUTING = [
    ("ALTER TABLE a ADD COLUMN p;", "ALTER TABLE a ADD COLUMN q;"),
    ("CREATE TABLE c (z);", "DROP TABLE b;"),
    ("UPDATE a SET x = 'n';", "ALTER TABLE b ADD COLUMN q;"),
    (REBUILD.format("b", "y TEXT", "y"), "UPDATE a SET x = (SELECT count(*) FROM b);"),
]
COLLIDING = [
    ("ALTER TABLE a ADD COLUMN p;", "ALTER TABLE a ADD COLUMN p;", "duplicate column name"),
    (
        "ALTER TABLE a ADD COLUMN p;",
        REBUILD.format("a", "id INTEGER PRIMARY KEY, x", "id, x"),
        "depends on their order",
    ),
    ("DROP TABLE a;", "CREATE INDEX by_x ON a (x);", "no such table"),
    ("UPDATE a SET x = 'n';", "UPDATE a SET x = 'm';", "rows of a"),
    ("UPDATE b SET y = (SELECT count(*) FROM a);", "DELETE FROM a;", "rows of a"),
    ("UPDATE a SET x = 'n';", "ALTER TABLE a ADD COLUMN p;", "rows of a"),
]


@pytest.mark.parametrize(("one", "other"), COMMUTING)
def test_branches_that_commute_are_applied_whichever_comes_first(
    stamped: Stamped, database: sqlite3.Connection, one: str, other: str
) -> None:
    earlier = stamped.path / stamped.add("one", one)
    stamped.add("other", other)
    assert stamped.collisions() == []
    aside = earlier.rename(stamped.path.with_name("aside"))
    assert migrate(stamped.read(), database) == ["base", "other"]
    aside.rename(earlier)
    assert migrate(stamped.read(), database) == ["one"]
    assert Plan.read(stamped.read(), Ledger(database)).problems == ()


@pytest.mark.parametrize(("one", "other", "why"), COLLIDING)
def test_branches_that_collide_are_named_and_the_late_one_is_refused(
    stamped: Stamped, database: sqlite3.Connection, one: str, other: str, why: str
) -> None:
    earlier = stamped.path / stamped.add("one", one)
    later = stamped.add("other", other)
    (said,) = stamped.collisions()
    assert said.startswith(f"{earlier.name} and {later} are from two branches")
    assert why in said
    assert "collision" in [problem.code for problem in check_folder(stamped.read()).problems]
    with pytest.raises(HistoryRefused):
        schema_of(stamped.read())
    aside = earlier.rename(stamped.path.with_name("aside"))
    migrate(stamped.read(), database)
    aside.rename(earlier)
    assert [p.code for p in Plan.read(stamped.read(), Ledger(database)).problems] == [
        "out_of_order"
    ]


def test_a_migration_that_others_build_on_is_never_late(
    stamped: Stamped, database: sqlite3.Connection
) -> None:
    earlier = stamped.path / stamped.add("one", "ALTER TABLE a ADD COLUMN p;")
    stamped.add("other", "ALTER TABLE a ADD COLUMN q;", after="one")
    aside = earlier.rename(stamped.path.with_name("aside"))
    migrate(stamped.read(), database)
    aside.rename(earlier)
    assert [p.code for p in Plan.read(stamped.read(), Ledger(database)).problems] == [
        "out_of_order"
    ]


def test_branches_that_a_migration_has_merged_are_one(stamped: Stamped) -> None:
    stamped.add("one", "ALTER TABLE a ADD COLUMN p;")
    stamped.add("other", "ALTER TABLE b ADD COLUMN q;")
    assert [node.migration.name[15:] for node in leaves(read_graph(stamped.read()))] == [
        "one/migration.sql",
        "other/migration.sql",
    ]
    stamped.add("both", "SELECT 1;", after=["one", "other"])
    assert len(leaves(read_graph(stamped.read()))) == 1


def test_each_snapshot_says_its_own_branch_and_is_written_again_from_it(stamped: Stamped) -> None:
    stamped.add("one", "ALTER TABLE a ADD COLUMN p;")
    other = stamped.add("other", "ALTER TABLE a ADD COLUMN q;")
    assert [w.code for w in check_folder(stamped.read()).warnings] == ["snapshot"] * 3
    assert len(rewrite_snapshots(stamped.read(), every=True)) == 3
    assert check_folder(stamped.read()).warnings == ()
    assert rewrite_snapshots(stamped.read(), every=True) == ()
    written = json.loads((stamped.path / other / "snapshot.json").read_text())
    columns = [entity["name"] for entity in written["ddl"] if entity["entityType"] == "columns"]
    assert (written["id"], written["prevIds"], columns) == (
        "other",
        ["base"],
        ["id", "x", "q", "y"],
    )


@pytest.mark.parametrize("damage", ["", "{}", None])
def test_a_missing_or_damaged_snapshot_gets_the_id_that_others_name(
    stamped: Stamped, damage: str | None
) -> None:
    one = stamped.add("one", "ALTER TABLE a ADD COLUMN p;")
    stamped.add("other", "ALTER TABLE a ADD COLUMN q;", after="one")
    rewrite_snapshots(stamped.read(), every=True)
    file = stamped.path / one / "snapshot.json"
    before = file.read_text()
    file.unlink() if damage is None else file.write_text(damage)
    assert rewrite_snapshots(stamped.read()) == (one,)
    assert json.loads(file.read_text()) == json.loads(before)


def test_a_snapshot_that_follows_an_unknown_one_is_a_warning(stamped: Stamped) -> None:
    rewrite_snapshots(stamped.read(), every=True)
    stamped.add("one", "SELECT 1;", after="lost")
    messages = [warning.message for warning in check_folder(stamped.read()).warnings]
    assert any(
        "one/snapshot.json follows a snapshot that is not in the folder" in m for m in messages
    )


def generate(path: Path, sql: str, tmp_path: Path) -> Path:
    file = tmp_path / "schema.sql"
    file.write_text(sql)
    folder = open_folder(path)
    made = draft(schema_of(folder), read_sql(file), Renames(), {}, name="next", first=False)
    return path / write(folder, made).tag


def test_the_next_migration_appears_whole_with_its_snapshot_and_its_way_back(
    stamped: Stamped, tmp_path: Path
) -> None:
    stamped.add("one", "ALTER TABLE a ADD COLUMN p;")
    stamped.add("other", "CREATE TABLE c (z);")
    sql = f"{BASE} ALTER TABLE a ADD COLUMN p; CREATE TABLE c (z); ALTER TABLE c ADD COLUMN v;"
    made = generate(stamped.path, sql, tmp_path)
    assert sorted(file.name for file in made.iterdir()) == [
        "down.sql",
        "migration.sql",
        "snapshot.json",
    ]
    assert (made / "migration.sql").read_text() == "ALTER TABLE c ADD COLUMN v;\n"
    assert json.loads((made / "snapshot.json").read_text())["prevIds"] == ["one", "other"]
    assert stamped.read().migrations[-1].tag == made.name
    assert not list(stamped.path.glob(".*"))
    again = generate(stamped.path, f"{sql} CREATE TABLE d (z);", tmp_path)
    assert again.name > made.name
    folder = stamped.read()
    assert folder.drop(folder.newest()) == tuple(
        again / name for name in ("down.sql", "migration.sql", "snapshot.json")
    )
    assert stamped.read().migrations[-1].tag == made.name


def test_a_migration_whose_writing_was_killed_is_no_part_of_the_folder(stamped: Stamped) -> None:
    before = stamped.read().migrations
    half = stamped.path / ".20240102030409_half.1.tmp"
    half.mkdir()
    (half / "migration.sql").write_text("CREATE TABLE half (")
    assert stamped.read().migrations == before
    assert stamped.read().problems == ()


def test_a_folder_without_snapshots_as_prismas_gets_none(tmp_path: Path) -> None:
    place = tmp_path / "prisma" / "20240102030405_init"
    place.mkdir(parents=True)
    (place / "migration.sql").write_text(BASE)
    made = generate(place.parent, f"{BASE} CREATE TABLE c (z);", tmp_path)
    assert sorted(file.name for file in made.iterdir()) == ["down.sql", "migration.sql"]
    assert rewrite_snapshots(read_folder(place.parent)) == ()
