"""Which table became which, through renames and rebuilds."""

from __future__ import annotations

import pytest

from local_mcp_gateway.migrate.lineage import Lineage
from tests.migrate.workshop import changes


@pytest.mark.parametrize(
    ("said", "now", "rebuilt"),
    [
        ("", "n", False),
        ("+x -x", "n", False),
        ("+n", "n", False),  # CREATE TABLE IF NOT EXISTS
        ("n>m", "m", False),
        ("-n", None, False),
        ("-n +n", "n", True),
        ("+new -n new>n", "n", True),
        ("n>old +n -old", "n", True),
        ("n>m +new -m new>m", "m", True),
        ("+a -n a>n +b -n b>n", "n", True),
        ("-n +n -n", None, False),
        ("-n other>n", "n", False),  # a table that was there before is no copy of this one
        ("n>tmp other>n tmp>other", "other", False),
        ("n>tmp other>n tmp>other -other -n", None, False),
        ("+N -n", None, False),
    ],
)
def test_a_table_is_followed_to_the_one_that_has_its_rows_now(
    said: str, now: str | None, rebuilt: bool
) -> None:
    fate = Lineage(["n", "other"], changes(said)).fate("N")
    assert (fate.now, fate.rebuilt) == (now, rebuilt)


@pytest.mark.parametrize("said", ["!n", "+new !new -n new>n", "n>old +n !n -old", "!n -n +n"])
def test_rows_deleted_from_a_copy_count_as_deleted_from_the_table(said: str) -> None:
    assert Lineage(["n"], changes(said)).fate("n").deleted_from


def test_deleting_from_another_table_says_nothing_about_this_one() -> None:
    assert not Lineage(["n", "other"], changes("!other -n +n")).fate("n").deleted_from


def test_a_table_moved_aside_is_replaced_by_a_new_one_and_not_by_one_that_was_there() -> None:
    assert Lineage(["n"], changes("n>old +n")).fate("n").replaced == "n"
    assert Lineage(["n", "m"], changes("n>old m>n")).fate("n").replaced is None
