"""The database that replaces the old one in a rewind is built beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.guard import GuardContext, GuardPolicy, back_up_now, find_divergence, guarded
from local_mcp_gateway.guard.rebuild import restore_points, rewind_database
from tests.harness import Place

IN_DEV = GuardPolicy(journal_new_files=True)


@pytest.fixture
def edited(place: Place) -> GuardContext:
    """A database whose second migration was edited after dev mode had applied it."""
    place.folder.add("a", "CREATE TABLE a (x);", down="DROP TABLE a;")
    with guarded(place.database, place.folder.path, policy=IN_DEV):
        pass
    place.folder.write("0001_b", "CREATE TABLE b (x);")
    with guarded(place.database, place.folder.path, policy=IN_DEV):
        pass
    place.folder.write("0001_b", "CREATE TABLE b (x, y);")
    return GuardContext(place.database, place.folder.path, IN_DEV)


def test_points_are_tried_from_the_least_loss_to_the_most(edited: GuardContext) -> None:
    backup = back_up_now(edited)
    divergence = find_divergence(edited, at_start=False)
    assert divergence is not None
    found = [point.by for point in restore_points(edited, divergence)]
    assert found[0] == "down"
    assert found[-1] == "replay on an empty database"
    # A backup that holds the migration to be reverted is none.
    assert f"backup {backup.name}" not in found


def test_a_point_without_a_way_back_is_not_available(edited: GuardContext, tmp_path: Path) -> None:
    divergence = find_divergence(edited, at_start=False)
    assert divergence is not None
    down, *_, empty = restore_points(edited, divergence)
    staged = tmp_path / "staged.db"
    with staged.open("w+b") as file:
        # 0001_b has no down file.
        assert rewind_database(edited, divergence, down, staged, file.fileno()) is None
    staged.write_bytes(b"")
    with staged.open("r+b") as file:
        made = rewind_database(edited, divergence, empty, staged, file.fileno())
    assert made is not None
    assert [step.tag for step in made.steps] == ["0000_a", "0001_b"]
    assert made.lost == ()
