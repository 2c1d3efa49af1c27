"""Dev mode: what happens when a migration is saved while the gateway runs."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from tests.harness import GatewayProcess, Place


@pytest.fixture
def dev(shipped: Place) -> Iterator[tuple[Place, GatewayProcess]]:
    with shipped.serve("--dev") as gateway:
        gateway.wait_for("dev.watching")
        gateway.wait_ready()
        yield shipped, gateway


def alive(gateway: GatewayProcess) -> bool:
    with urllib.request.urlopen(gateway.url + "/health/live", timeout=10) as response:
        return bool(response.status == 200)


def test_a_saved_migration_is_journaled_backed_up_and_applied_without_a_restart(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0003_notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);")
    applied = gateway.wait_for("migration.hot_applied")
    assert applied["tag"] == "0003_notes"
    assert place.query("SELECT count(*) FROM notes") == [(0,)]
    assert place.folder.journal()[-1]["tag"] == "0003_notes"
    assert [str(backup) for backup in place.backups] == [applied["backup"]]
    assert alive(gateway)


def test_a_broken_migration_is_refused_with_its_line_and_the_gateway_serves_on(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    before = place.content()
    place.folder.write("0003_notes", "CREATE TABLE notes (id INTEGER);\n\nCREAT TABLE more (id);\n")
    refused = gateway.wait_for("migration.hot_refused")
    assert "0003_notes" in refused["message"]
    assert "line 3" in refused["message"]
    assert "statement 2" in refused["message"]
    assert place.content() == before
    assert [entry["tag"] for entry in place.folder.journal()][-1] == "0002_add_debug_logs"
    assert alive(gateway)

    place.folder.write(
        "0003_notes", "CREATE TABLE notes (id INTEGER);\n\nCREATE TABLE more (id);\n"
    )
    assert gateway.wait_for("migration.hot_applied")["tag"] == "0003_notes"
    assert place.query("SELECT count(*) FROM more") == [(0,)]


def test_a_file_that_is_written_in_pieces_is_applied_once_and_whole(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    path = place.folder.path / "0003_pieces.sql"
    with path.open("w") as file:
        for number in range(50):
            file.write(f"CREATE TABLE piece_{number} (id INTEGER PRIMARY KEY, ")
            file.flush()
            file.write("body TEXT);\n")
            file.flush()
    applied = gateway.wait_for("migration.hot_applied")
    assert applied["statements"] == 50
    assert "migration.hot_refused" not in gateway.names()


def test_our_own_write_to_the_journal_does_not_wake_the_watcher(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0003_one", "CREATE TABLE one (id INTEGER PRIMARY KEY);")
    gateway.wait_for("migration.hot_applied")
    place.folder.write("0004_two", "CREATE TABLE two (id INTEGER PRIMARY KEY);")
    gateway.wait_for("migration.hot_applied", where=lambda event: event["tag"] == "0004_two")
    assert gateway.names().count("guard.resolved") == 3


def test_several_files_at_once_are_applied_together_and_in_order(
    dev: tuple[Place, GatewayProcess],
) -> None:
    place, gateway = dev
    place.folder.write("0003_one", "CREATE TABLE one (id INTEGER PRIMARY KEY);")
    place.folder.write("0004_two", "ALTER TABLE one ADD COLUMN body TEXT;")
    gateway.wait_for("migration.hot_applied", where=lambda event: event["tag"] == "0004_two")
    assert place.query("SELECT id, body FROM one") == []


def test_a_production_start_leaves_saved_files_alone(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        shipped.folder.write("0003_notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY);")
        assert shipped.run("reload").code == 8
        assert "dev.watching" not in gateway.names()
        assert shipped.query("SELECT name FROM sqlite_schema WHERE name = 'notes'") == []
