"""The log of a start is a contract: every event, in its order, with what it carries."""

from __future__ import annotations

import pytest

from tests.harness import Place

pytestmark = pytest.mark.e2e


def test_a_start_with_three_pending_migrations_tells_the_whole_story_in_order(
    shipped: Place,
) -> None:
    shipped.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY, word TEXT)")
    shipped.migrate()
    shipped.write("INSERT INTO a (word) VALUES ('kept')")
    tags = [
        shipped.folder.add("two", "ALTER TABLE a ADD COLUMN x TEXT"),
        shipped.folder.add("three", "UPDATE a SET x = word", "CREATE INDEX a_x ON a (x)"),
        shipped.folder.add("four", "CREATE TABLE b (id INTEGER PRIMARY KEY)"),
    ]
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0
    told = [event for event in gateway.events if event["level"] != "debug"]
    # On a machine that is busy a start may take long enough to tell how far it is.
    told = [event for event in told if event["event"] != "guard.progressed"]
    assert [event["event"] for event in told] == [
        "service.starting",
        "guard.locked",
        "guard.checked",
        "guard.resolved",
        "backup.created",
        "migration.rehearsed",
        "guard.verified",
        "migration.applied",
        "migration.applied",
        "migration.applied",
        "guard.ready",
        "gateway.listening",
        "service.ready",
        "service.stopping",
        "service.stopped",
    ]
    by_name = {event["event"]: event for event in told}
    assert by_name["service.starting"]["database"] == str(shipped.database)
    assert by_name["guard.locked"]["pid"] == gateway.process.pid
    assert by_name["guard.resolved"]["applied"] == len(shipped.folder.journal()) - len(tags)
    assert by_name["guard.resolved"]["pending"] == tags
    (backup,) = shipped.backups
    assert by_name["backup.created"]["path"] == str(backup)
    assert by_name["backup.created"]["bytes"] == backup.stat().st_size
    assert by_name["migration.rehearsed"]["migrations"] == tags
    assert [event["tag"] for event in told if event["event"] == "migration.applied"] == tags
    ready = by_name["guard.ready"]
    assert (ready["state"], ready["applied"]) == ("migrated", 3)
    for phase in (
        "lock",
        "check",
        "plan",
        "hold",
        "backup",
        "rehearse",
        "apply",
        "verify",
        "commit",
    ):
        assert ready[f"{phase}_ms"] >= 0
    assert by_name["service.ready"]["duration_ms"] > 0
    times = [event["timestamp"] for event in gateway.events]
    assert times == sorted(times)


def test_a_start_with_nothing_pending_makes_no_backup(shipped: Place) -> None:
    shipped.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    shipped.migrate()
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0
    told = [event["event"] for event in gateway.events if event["level"] != "debug"]
    told = [name for name in told if name != "guard.progressed"]
    assert told == [
        "service.starting",
        "guard.locked",
        "guard.checked",
        "guard.resolved",
        "guard.ready",
        "gateway.listening",
        "service.ready",
        "service.stopping",
        "service.stopped",
    ]
    assert shipped.backups == []


def test_a_log_that_is_no_terminal_is_one_json_object_a_line(shipped: Place) -> None:
    shipped.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.stop()
    assert len(gateway.lines) == len(gateway.events)


def test_a_refusal_is_logged_with_its_code_its_hint_and_its_exit_code(shipped: Place) -> None:
    tag = shipped.folder.add("one", "CREATE TABLE a (id INTEGER PRIMARY KEY)")
    shipped.migrate()
    shipped.folder.write(tag, "CREATE TABLE a (id INTEGER PRIMARY KEY, edited TEXT)")
    with shipped.serve() as gateway:
        assert gateway.wait() == 8
    event = gateway.wait_for("guard.refused")
    assert (event["code"], event["exit_code"]) == ("history", 8)
    assert event["hint"]
