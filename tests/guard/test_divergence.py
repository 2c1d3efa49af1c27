"""How far a ledger and a folder agree: what a rewind in dev mode leaves alone."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.guard.divergence import common_prefix
from local_mcp_gateway.migrate.folder import Folder, Migration
from local_mcp_gateway.migrate.ledger import Applied
from local_mcp_gateway.migrate.resolve import resolve

TEXTS = st.lists(st.sampled_from("abcdefg"), unique=True, max_size=7)


def folder_of(texts: list[str]) -> Folder:
    made = (
        Migration(f"{idx:04d}_m", idx, 1000 + idx, text, text, f"{idx:04d}_m.sql")
        for idx, text in enumerate(texts)
    )
    return Folder(Path("migrations"), tuple(made))


def rows_of(texts: list[str]) -> list[Applied]:
    return [Applied(text, 1000 + idx, f"{idx:04d}_m") for idx, text in enumerate(texts)]


def test_everything_agrees_where_only_new_files_are_pending() -> None:
    assert common_prefix(folder_of(["a", "b", "c"]), rows_of(["a", "b"])) == 2


def test_an_edited_file_and_all_that_came_after_it_do_not_agree() -> None:
    assert common_prefix(folder_of(["a", "X", "c"]), rows_of(["a", "b", "c"])) == 1


def test_a_file_that_was_merged_in_before_an_applied_one_comes_first() -> None:
    assert common_prefix(folder_of(["a", "new", "b"]), rows_of(["a", "b"])) == 1


def test_what_was_applied_out_of_order_on_purpose_may_stay() -> None:
    assert common_prefix(folder_of(["a", "b", "c"]), rows_of(["a", "c", "b"])) == 3


@given(said=TEXTS, applied=TEXTS)
def test_what_stays_leaves_nothing_but_pending_files(said: list[str], applied: list[str]) -> None:
    folder, rows = folder_of(said), rows_of(applied)
    kept = common_prefix(folder, rows)
    assert resolve(folder, rows[:kept]).problems == ()


@given(said=TEXTS, applied=TEXTS)
def test_no_more_is_taken_back_than_has_to_be(said: list[str], applied: list[str]) -> None:
    folder, rows = folder_of(said), rows_of(applied)
    kept = common_prefix(folder, rows)
    for more in range(kept + 1, len(rows) + 1):
        assert resolve(folder, rows[:more]).problems != ()
