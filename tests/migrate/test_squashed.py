"""A database at any state of a folder, before and after a squash of it, ends where plain replay ends."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.errors import MigrationFailed
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.plan import Plan
from local_mcp_gateway.migrate.repair import Repair
from local_mcp_gateway.migrate.squash import draft_squash, write_squash
from local_mcp_gateway.migrate.squashed import unsquashed
from tests.migrate.made_folders import dump, texts
from tests.migrate.test_squash import SLOW
from tests.migrate.workshop import Workshop, apply_all

TEXTS = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
    "INSERT INTO users (name) VALUES ('a'), ('b')",
    "ALTER TABLE users ADD COLUMN age DEFAULT 3; UPDATE users SET age = 4 WHERE id = 1",
    "DELETE FROM users WHERE id = 2; CREATE INDEX by_name ON users (name)",
    "CREATE VIEW old AS SELECT * FROM users WHERE age > 3; INSERT INTO users (name) VALUES ('c')",
)
TAGS = tuple(f"{number:04d}_m" for number in range(len(TEXTS)))


@pytest.fixture
def five(shop: Workshop) -> Workshop:
    for tag, text in zip(TAGS, TEXTS, strict=True):
        shop.add(tag, text)
    return shop


def squash(path: Path, to: str | None = None) -> None:
    made = draft_squash(path, to=to)
    if made is not None:
        write_squash(made)


def migrated(connection: sqlite3.Connection, path: Path, count: int | None = None) -> Plan:
    """Apply what is pending, or so many of it; return what there was to do."""
    plan = Plan.read(read_folder(path), Ledger(connection))
    assert plan.problems == ()
    connection.execute("BEGIN")
    apply_all(connection, plan.pending[:count])
    Ledger(connection).ensure()
    connection.execute("COMMIT")
    return plan


def require_every_state(shop: Workshop, ends: Sequence[int]) -> None:
    """Apply some migrations, squash (more than once), apply the rest: everywhere the same is made."""
    old = shop.read().migrations
    whole = shop.path.with_name("whole")
    shutil.copytree(shop.path, whole)
    with closing(open_scratch()) as plain:
        migrated(plain, whole)
        expected = dump(plain)
    for before in range(len(old) + 1):
        with closing(open_scratch()) as connection:
            shutil.rmtree(shop.path)
            shutil.copytree(whole, shop.path)
            migrated(connection, shop.path, before)
            for end in ends:
                squash(shop.path, old[end].tag)
                plan = Plan.read(shop.read(), Ledger(connection))
                left = len(old) - before if before else len(shop.read().migrations)
                assert (plan.problems, len(plan.pending)) == ((), left)
            migrated(connection, shop.path)
            assert dump(connection) == expected
            assert (
                Plan.read(shop.read(), Ledger(connection)).with_drift(Ledger(connection)).drift
                == ()
            )
            times = [row.created_at for row in Ledger(connection).rows()]
            assert times == sorted(times)
            assert times[-1] == old[-1].when  # Drizzle has nothing to do either


LONG = [pytest.param(ends, marks=pytest.mark.nightly) for ends in ((1,), (4,), (2, 4), (1, 2, 4))]


@pytest.mark.parametrize("ends", [(2,), (1, 3), *LONG])
def test_a_database_at_any_state_ends_the_same(five: Workshop, ends: tuple[int, ...]) -> None:
    require_every_state(five, ends)


@pytest.mark.nightly
@settings(deadline=None, max_examples=100, suppress_health_check=SLOW)
@given(made=texts())
def test_made_folders_end_the_same_from_any_state(
    made: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    shop = Workshop(tmp_path_factory.mktemp("made"))
    for number, text in enumerate(made):
        shop.add(f"{number:04d}_m", text)
    require_every_state(shop, (1, len(made) - 1))
    shutil.rmtree(shop.path.parent)


def test_a_database_made_from_a_squash_goes_on_after_the_next_one(five: Workshop) -> None:
    squash(five.path, TAGS[1])
    with closing(open_scratch()) as connection:
        assert [m.tag for m in migrated(connection, five.path, 2).pending] == list(TAGS[1:])
        squash(five.path, TAGS[3])
        assert [m.tag for m in migrated(connection, five.path).pending] == list(TAGS[3:])
        assert [e.tag for e in Plan.read(five.read(), Ledger(connection)).applied] == list(TAGS[1:])
    assert [m.tag for m in unsquashed(five.read()).migrations] == list(TAGS)
    known = [migration.tag for migration in five.read().every_migration()]
    assert known == [*TAGS[3:], *TAGS[1:4], *TAGS[:2]]


def test_a_database_that_is_in_the_middle_is_told_what_is_gone(five: Workshop) -> None:
    migrated(connection := open_scratch(), five.path, 2)
    squash(five.path, TAGS[2])
    (five.path / "meta" / "_squashed" / "0000_m.sql").unlink()
    plan = Plan.read(five.read(), Ledger(connection))
    (told,) = plan.problems
    assert (told.code, told.tag) == ("missing", "0000_m")
    assert told.message.startswith("In meta/_squashed: The journal lists 0000_m, but 0000_m.sql")
    shutil.rmtree(five.path / "meta" / "_squashed")
    plan = Plan.read(five.read(), Ledger(connection))
    assert {problem.code for problem in plan.problems} >= {"missing"}
    connection.close()


def test_an_edited_squash_is_one_that_was_edited(five: Workshop) -> None:
    squash(five.path)
    migrated(connection := open_scratch(), five.path)
    file = five.path / f"{TAGS[-1]}.sql"
    file.write_text(file.read_text() + "-- more")
    plan = Plan.read(five.read(), Ledger(connection))
    assert [problem.code for problem in plan.problems] == ["edited"]
    connection.close()


@pytest.mark.parametrize("before", range(6))
def test_a_database_without_a_ledger_is_adopted_at_its_state(five: Workshop, before: int) -> None:
    """By its schema, or by the ledger of another tool, whose names are those of the old files."""
    squash(five.path, TAGS[3])
    with closing(open_scratch()) as connection:
        for text in TEXTS[:before]:
            connection.executescript(text)
        if before in {2, 5}:  # the schema alone does not say that the second one ran
            connection.execute("CREATE TABLE schema_migrations (version VARCHAR PRIMARY KEY)")
            for tag in TAGS[:before]:
                connection.execute("INSERT INTO schema_migrations VALUES (?)", (tag[:4],))
        if before == 1:
            with pytest.raises(Exception, match=r"Whether 0001_m ran cannot be"):
                Repair(five.database, five.path, Ledger(connection)).adopt(lambda _: None)
            return
        done = Repair(five.database, five.path, Ledger(connection)).adopt(lambda _: None)
        assert done == TAGS[:before]
        assert len(migrated(connection, five.path).pending) == (5 - before if before else 2)


def test_only_what_is_really_pending_in_the_folder_is_renumbered(five: Workshop) -> None:
    migrated(connection := open_scratch(), five.path, 2)
    squash(five.path, TAGS[2])
    five.entries = [
        {**five.entries[2], "idx": 2},
        *five.entries[3:],
        {**five.entries[4], "idx": 4, "tag": "0004_late", "when": five.entries[4]["when"]},
    ]
    (five.path / "0004_late.sql").write_text("CREATE TABLE late (x)")
    five.write_journal()
    moves = Repair(five.database, five.path, Ledger(connection)).renumber(now_ms=1_800_000_000_000)
    assert [(move.migration.tag, move.tag) for move in moves] == [("0004_late", "0005_late")]
    assert [m.tag for m in migrated(connection, five.path).pending] == [*TAGS[2:], "0005_late"]
    connection.close()


@pytest.mark.parametrize("applied", [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("to", [2, 4])
def test_equal_numbers_that_are_squashed_have_their_order(
    shop: Workshop, to: int, applied: tuple[int, ...]
) -> None:
    for tag in ("0000_a", "0001_b", "0001_c", "0002_d", "0002_e"):
        shop.add(tag, f"CREATE TABLE {tag[-1]} (x)")
    with closing(open_scratch()) as connection:
        connection.execute("BEGIN")
        apply_all(connection, [shop.read().migrations[n] for n in applied])
        connection.execute("COMMIT")
        squash(shop.path, shop.read().migrations[to].tag)
        if to == 2:  # the other two can still be moved
            assert [p.tag for p in Plan.read(shop.read(), Ledger(connection)).problems] == [
                "0002_e"
            ]
            return
        done = migrated(connection, shop.path).pending
    assert [m.tag[-1] for m in done] == list("abcde")[len(applied) :]


def test_a_late_squashed_migration_is_not_to_be_renumbered(five: Workshop) -> None:
    with closing(open_scratch()) as connection:
        connection.execute("BEGIN")
        apply_all(connection, [five.read().migrations[n] for n in (0, 3)])
        connection.execute("COMMIT")
        squash(five.path)
        problems = Plan.read(five.read(), Ledger(connection)).problems
    assert [(problem.code, problem.tag) for problem in problems] == [
        ("out_of_order", tag) for tag in TAGS[1:3]
    ]
    for problem in problems:
        assert problem.hint is not None
        assert problem.hint.endswith("apply it with `db migrate --allow-out-of-order`.")


def test_a_late_branch_among_squashed_migrations_of_drizzle_1_still_fits(tmp_path: Path) -> None:
    """A database has the branch that was merged second; the other one comes late, and before it."""
    ids = {"base": ["00000000-0000-0000-0000-000000000000"], "one": ["base"], "two": ["base"]}
    ids["both"] = ["one", "two"]
    for number, (name, before) in enumerate(ids.items(), 1):
        folder = tmp_path / f"2024010{number}000000_{name}"
        folder.mkdir()
        (folder / "migration.sql").write_text(f"CREATE TABLE {name} (x)")
        snapshot = {"version": "7", "dialect": "sqlite", "id": name, "prevIds": before, "ddl": []}
        (folder / "snapshot.json").write_text(json.dumps(snapshot))
    migrations = read_folder(tmp_path).migrations
    with closing(open_scratch()) as connection:
        ledger = Ledger(connection)
        connection.execute("BEGIN")
        ledger.ensure(is_v1=True)
        apply_all(connection, [migrations[0], migrations[2]])
        connection.execute("COMMIT")
        squash(tmp_path)
        plan = Plan.read(read_folder(tmp_path), ledger)
        assert plan.problems == ()
        assert [m.tag for m in plan.pending] == [migrations[1].tag, migrations[3].tag]


def test_an_error_in_a_squashed_migration_names_the_file_where_it_is(five: Workshop) -> None:
    migrated(connection := open_scratch(), five.path, 2)
    connection.execute("ALTER TABLE users ADD COLUMN age")
    squash(five.path)
    plan = Plan.read(five.read(), Ledger(connection))
    connection.execute("BEGIN")
    with pytest.raises(
        MigrationFailed, match=r"^meta/_squashed/0002_m\.sql, line 1, statement 1: dup"
    ):
        apply_all(connection, plan.pending)
    assert plan.pending[0].down_name == "meta/_squashed/0002_m.down.sql"
    connection.close()


def test_what_was_squashed_before_is_named_where_it_is(five: Workshop) -> None:
    squash(five.path, TAGS[1])
    squash(five.path, TAGS[3])
    before, after, *_ = unsquashed(five.read()).migrations
    for migration in (before, after):
        assert migration.name == f"meta/_squashed/meta/_squashed/{migration.tag}.sql"
        assert (five.path / migration.name).exists()
        assert migration.down_name == migration.name.replace(".sql", ".down.sql")


def test_what_the_tool_of_an_adopted_database_has_applied_since_is_still_seen(
    five: Workshop, scratch: sqlite3.Connection
) -> None:
    scratch.execute("CREATE TABLE schema_migrations (version VARCHAR PRIMARY KEY)")
    for tag, text in zip(TAGS[:3], TEXTS[:3], strict=True):
        scratch.executescript(text)
        scratch.execute("INSERT INTO schema_migrations VALUES (?)", (tag[:4],))
        squash(five.path, TAGS[3])
        done = Repair(five.database, five.path, Ledger(scratch)).adopt(lambda _: None)
        assert done == (tag,)
    assert [m.tag for m in migrated(scratch, five.path).pending] == list(TAGS[3:])
