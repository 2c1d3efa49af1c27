"""The journal is read as untrusted input, and written whole or not at all."""

from __future__ import annotations

import json

import pytest

from local_mcp_gateway.migrate.journal import Entry, places_of, read_journal, write_journal
from tests.migrate.workshop import Workshop


def test_entries_are_added_and_everything_else_stays(shop: Workshop) -> None:
    shop.write_journal(drizzle="kept")
    write_journal(shop.path, [Entry(0, "0000_a", 5)])
    written = json.loads((shop.path / "meta/_journal.json").read_text())
    assert written["drizzle"] == "kept"
    assert read_journal(shop.path).entries == (Entry(0, "0000_a", 5),)
    assert [file.name for file in (shop.path / "meta").iterdir()] == ["_journal.json"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"idx": 0, "when": 1, "tag": "../a"}, "is not a file name"),
        ({"idx": 0, "when": "soon", "tag": "a"}, "not a number of milliseconds"),
        ({"idx": 0, "when": 1 << 70, "tag": "a"}, "beyond any date"),
        ({"when": 1}, "without a `tag`"),
        ("a", "not an object"),
    ],
)
def test_an_entry_that_cannot_be_one_is_named(shop: Workshop, entry: object, why: str) -> None:
    shop.write_journal(entries=[entry])
    (problem,) = read_journal(shop.path).problems
    assert why in problem.message


def test_a_number_is_a_place_and_a_date_is_none() -> None:
    assert places_of(3, "0007_a") == [3, "0007"]
    assert places_of(-1, "20240101000000_a") == []
