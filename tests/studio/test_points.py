"""Two points of the history next to each other."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from local_mcp_gateway.studio.points import Point, differences
from tests.studio.conftest import Browser


def test_what_is_new_gone_and_changed_is_told_and_another_way_to_write_it_is_not() -> None:
    before = Point({("table", "a"): "CREATE TABLE a (x)", ("index", "i"): "CREATE INDEX i ON a (x)", ("table", "s"): 'CREATE TABLE "s" ( x )'})  # fmt: skip
    after = Point({("table", "a"): "CREATE TABLE a (x, y)", ("view", "v"): "CREATE VIEW v AS SELECT 1", ("table", "s"): "create table s (x)"})  # fmt: skip
    found = [(one.kind, one.name, one.what) for one in differences(before, after)]
    assert found == [("table", "a", "changed"), ("view", "v", "new"), ("index", "i", "gone")]
    changed = differences(before, after)[0]
    assert "<ins>" in changed.after
    assert "<ins>" not in changed.before


def test_a_backup_is_compared_with_today_in_schema_and_rows(browser: Browser) -> None:
    page = browser.sent("/studio/migrations/backups")
    name = page.text.partition('<tr id="')[2].partition('"')[0]
    browser.sent("/studio/profiles", name="later")
    page = browser.page(f"/studio/migrations/compare?from=b:{quote(name)}&to=now")
    assert "The same schema" in page.words
    row = page.words.partition(" profiles ")[2].split()[:3]
    assert int(row[1]) - int(row[0]) == int(row[2]) == 1
    browser.sent("/studio/profiles/later/remove", typed="later")


def test_any_two_migrations_are_compared(browser: Browser) -> None:
    path = "/studio/migrations/compare?from=m:0000_initial&to=m:0002_add_debug_logs"
    page = browser.page(path)
    assert "debug_logs" in page.words
    assert "oauth_tokens" in page.words
    page = browser.page("/studio/migrations/compare?from=nothing&to=now")
    assert "has no rows" in page.words
    assert "__guard_history" not in page.words
    assert "0000_initial" in browser.page("/studio/migrations/compare").words


@pytest.mark.parametrize("name", ["m:nothing", "b:../../etc/passwd", "x", "b:", "m:../x"])
def test_a_point_that_is_not_there_is_refused(browser: Browser, name: str) -> None:
    reply = browser.get(f"/studio/migrations/compare?from={quote(name)}&to=now")
    assert reply.status == 400
    assert "root:" not in reply.text
