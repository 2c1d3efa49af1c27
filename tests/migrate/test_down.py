"""A revert is planned from what is applied, and its result is known beforehand."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from local_mcp_gateway.database import open_migration
from local_mcp_gateway.errors import NoWayBack, UsageProblem, VerificationFailed
from local_mcp_gateway.migrate import DownPlan, Ledger, Plan
from tests.migrate.workshop import Workshop


@pytest.fixture
def two(shop: Workshop) -> Workshop:
    shop.add("0000_a", "CREATE TABLE a (x);", down="DROP TABLE a;")
    shop.add("0001_b", "CREATE TABLE b (x);", down="DROP TABLE b;")
    shop.apply()
    return shop


def down(shop: Workshop, connection: sqlite3.Connection, *, to: str | None = None) -> DownPlan:
    ledger = Ledger(connection)
    found = Plan.read(shop.read(), ledger).resolution
    return DownPlan.make(found, ledger, steps=None, to=to)


def test_the_newest_is_reverted_and_leaves_the_ledger(two: Workshop) -> None:
    with closing(open_migration(two.database)) as connection:
        steps = down(two, connection).revert(Ledger(connection))
        assert [step.tag for step in steps] == ["0001_b"]
        assert Ledger(connection).names() == ["0000_a"]
        assert Ledger(connection).recorded_fingerprint() == Ledger(connection).fingerprint()


def test_several_are_reverted_newest_first(two: Workshop) -> None:
    two.add("0002_c", "CREATE TABLE c (x);", down="DROP TABLE c;")
    two.apply()
    with closing(open_migration(two.database)) as connection:
        plan = down(two, connection, to="0000_a")
        assert [way.applied.tag for way in plan.reversals] == ["0002_c", "0001_b"]
        assert set(plan.expected.tables) == {"a"}


def test_a_tag_that_is_not_applied_cannot_be_gone_back_to(two: Workshop) -> None:
    with closing(open_migration(two.database)) as connection, pytest.raises(UsageProblem):
        down(two, connection, to="0007_z")


def test_another_result_than_the_remaining_migrations_make_is_refused(two: Workshop) -> None:
    (two.path / "0001_b.down.sql").write_text("DROP TABLE b; CREATE TABLE c (x);")
    with closing(open_migration(two.database)) as connection:
        plan = down(two, connection)
        connection.execute("BEGIN")
        with pytest.raises(VerificationFailed, match="is not what it was before it"):
            plan.revert(Ledger(connection))
        connection.execute("ROLLBACK")


def test_what_has_no_down_file_is_named(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.apply()
    with closing(open_migration(shop.database)) as connection, pytest.raises(NoWayBack) as caught:
        down(shop, connection)
    assert caught.value.data["tags"] == ["0000_a"]
