"""The migrations on the pages: the time line, a rehearsal, applying, and backups."""

from __future__ import annotations

import pytest

from tests.harness import locks_on
from tests.studio.conftest import Browser, Reply, Running


@pytest.fixture
def pending(running: Running) -> str:
    """Add a migration; the test applies it, and it stays for those that follow."""
    return running.place.folder.add(
        "notes", "-- why <b>\nCREATE TABLE notes (id INTEGER PRIMARY KEY)"
    )


def test_a_pending_migration_is_rehearsed_and_applied_at_a_click(
    browser: Browser, running: Running, pending: str
) -> None:
    page = browser.page("/studio/migrations")
    assert "1 migration is pending" in page.words
    assert "-- why &lt;b&gt;" in page.text
    page = browser.sent("/studio/migrations/rehearse")
    assert "Rehearsed on a copy of your data" in page.words
    assert "notes" not in running.place.query("SELECT group_concat(name) FROM sqlite_schema")[0][
        0
    ].split(",")
    page = browser.sent("/studio/migrations/apply")
    assert f"Applied {pending}" in page.words
    assert "Up to date" in page.words
    assert "CREATE TABLE" in browser.page(f"/studio/migrations/file/{pending}").words


def test_the_time_line_says_what_each_migration_was_and_touched(
    browser: Browser, running: Running
) -> None:
    made = "CREATE TABLE counted (id INTEGER PRIMARY KEY)"
    filled = "INSERT INTO counted VALUES (1), (2), (3)"
    tag = running.place.folder.add("counted", made, filled, "DELETE FROM counted WHERE id > 1")
    page = browser.sent("/studio/migrations/apply")
    assert f"Applied {tag}" in page.words
    entry = page.text.partition('class="past"')[2].partition("</li>")[0]
    said = Reply(200, {}, entry).words
    assert "3 statements · 5 rows touched · rehearsed in" in said
    assert "backup from before" in said
    assert "DELETE FROM counted WHERE id > 1" in said


def test_a_rehearsal_that_fails_says_where_and_leaves_the_database(
    browser: Browser, running: Running
) -> None:
    folder = running.place.folder
    entries = folder.journal()
    tag = folder.add("broken", "INSERT INTO nowhere VALUES (1)")
    try:
        page = browser.sent("/studio/migrations/rehearse")
        assert "It failed on a copy of your data" in page.words
        assert "nowhere" in page.words
    finally:
        (folder.path / f"{tag}.sql").unlink()
        folder.write_journal(entries)


def test_nothing_is_taken_back_outside_of_dev_mode(browser: Browser) -> None:
    reply = browser.post("/studio/migrations/take-back", tag="0000_initial", typed="0000_initial")
    assert reply.status == 400
    assert "Only a gateway in dev mode" in reply.words
    assert browser.post("/studio/migrations/take-back", tag="a", typed="b").status == 400


def test_a_file_that_was_changed_is_a_problem_with_its_way_out(
    browser: Browser, running: Running
) -> None:
    file = running.place.folder.path / "0001_add_oauth_tokens.sql"
    whole = file.read_text()
    file.write_text(whole + "\n-- changed")
    try:
        page = browser.page("/studio/migrations")
        assert "1 problem to fix" in page.words
        assert "edited" in page.words
    finally:
        file.write_text(whole)


def test_a_backup_is_made_listed_and_verified(browser: Browser) -> None:
    page = browser.sent("/studio/migrations/backups")
    assert "Made and verified" in page.words
    name = page.text.partition('<tr id="')[2].partition('"')[0]
    page = browser.sent("/studio/migrations/backups/verify", name=name)
    assert "is intact" in page.words


def test_what_a_person_is_told_is_not_taken_by_a_page_that_asks_for_itself_again(
    browser: Browser,
) -> None:
    reply = browser.post("/studio/migrations/backups")
    asked = browser.get(reply.headers["location"], X_Requested_With="fetch")
    assert "Made and verified" not in asked.words
    assert "Made and verified" in browser.page(reply.headers["location"]).words


def test_a_restore_wants_the_name_and_brings_the_backup_back(
    browser: Browser, running: Running
) -> None:
    page = browser.sent("/studio/migrations/backups")
    name = page.text.partition('<tr id="')[2].partition('"')[0]
    browser.sent("/studio/profiles", name="after")
    wrong = browser.post("/studio/migrations/backups/restore", name=name, typed="gateway")
    assert "Nothing was restored" in wrong.words
    assert running.place.query("SELECT count(*) FROM profiles WHERE name = 'after'") == [(1,)]
    page = browser.sent("/studio/migrations/backups/restore", name=name, typed="gateway.db")
    assert f"The database is as it was in {name}." in page.words
    assert "The database was restored from a backup" in page.words
    assert running.place.query("SELECT count(*) FROM profiles WHERE name = 'after'") == [(0,)]
    assert "after" not in browser.page("/studio/profiles").words
    last = "SELECT who, action, object FROM audit_log ORDER BY id DESC LIMIT 1"
    assert running.place.query(last) == [("pages", "db.restore", name)]
    assert running.place.run("call", "echo", "text=hello").code == 0
    reply = browser.post(
        "/studio/migrations/backups/restore", name="../../etc/passwd", typed="gateway.db"
    )
    assert reply.status == 400
    assert locks_on(running.place.database, running.gateway.process.pid)


@pytest.mark.parametrize("name", ["../../etc/passwd", "--help", "no-such-backup", ""])
def test_a_name_that_is_no_backup_is_refused(browser: Browser, name: str) -> None:
    reply = browser.post("/studio/migrations/backups/verify", name=name)
    assert reply.status == 400
    assert "root:" not in reply.text


def test_the_database_keeps_its_locks_while_pages_read_it(
    browser: Browser, running: Running
) -> None:
    before = locks_on(running.place.database, running.gateway.process.pid)
    assert before
    for path in ("/studio/", "/studio/migrations", "/studio/migrations/backups"):
        browser.page(path)
    assert locks_on(running.place.database, running.gateway.process.pid) == before
