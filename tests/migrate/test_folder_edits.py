"""A folder is changed with its journal last, so a crash leaves the old folder or the new one."""

from __future__ import annotations

import json

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.migrate import Migration, plan_renumber, renumber, resolve, write_migration
from local_mcp_gateway.migrate.ledger import Applied
from tests.migrate.workshop import Workshop


def tags(shop: Workshop) -> list[str]:
    return [
        entry["tag"]
        for entry in json.loads((shop.path / "meta/_journal.json").read_text())["entries"]
    ]


def test_a_migration_is_written_with_its_down_file_and_its_entry(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    written = write_migration(
        shop.read(), "b", "CREATE TABLE b (x);", down="DROP TABLE b;", snapshot=None
    )
    assert written.tag == "0001_b"
    assert [file.name for file in written.files] == [
        "0001_b.sql",
        "0001_b.down.sql",
        "_journal.json",
    ]
    assert tags(shop) == ["0000_a", "0001_b"]
    assert shop.read().problems == ()


def test_only_the_newest_migration_can_be_dropped(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "CREATE TABLE b (x);")
    folder = shop.read()
    with pytest.raises(UsageProblem, match="that is 0001_b"):
        folder.newest("0000_a")
    removed = folder.drop(folder.newest())
    assert [file.name for file in removed] == ["0001_b.sql"]
    assert tags(shop) == ["0000_a"]


def test_a_pending_migration_with_a_taken_number_goes_to_the_end(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a (x);")
    shop.add("0001_b", "CREATE TABLE b (x);")
    shop.add("0001_c", "CREATE TABLE c (x);")
    folder = shop.read()
    a, b, _ = folder.migrations
    moves = plan_renumber(folder, resolve(folder, [row(a), row(b)]), now_ms=0)
    renumber(folder.path, moves)
    assert tags(shop) == ["0000_a", "0001_b", "0003_c"]
    assert shop.read().problems == ()


def row(migration: Migration) -> Applied:
    return Applied(migration.hash, migration.when, migration.tag)
