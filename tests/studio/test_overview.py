"""The first page: what is well, and what waits for a person."""

from __future__ import annotations

from local_mcp_gateway.backup import BackupCatalog
from local_mcp_gateway.studio.migrations import Standing
from local_mcp_gateway.studio.overview import _tasks, server_lines
from tests.studio.conftest import Browser


def test_the_first_page_answers_whether_all_is_well(browser: Browser) -> None:
    page = browser.page("/studio/")
    assert "Serving" in page.words
    assert "There is no backup of this database" in page.words or "ago" in page.words
    assert f"{browser.url}/mcp" in page.words
    assert "Last start" in page.words


def server(
    name: str, state: str, *, active: bool = True, held: tuple[str, ...] = ()
) -> dict[str, object]:
    live = {"state": state, "held": list(held), "reason": None, "tools": 1}
    return {"name": name, "kind": "stdio", "active": active, "profiles": [], "live": live}


def test_what_is_broken_comes_before_what_waits() -> None:
    servers = [
        server("asks", "needs_sign_in"),
        server("held", "ready", held=("x",)),
        server("down", "failed"),
        server("off", "failed", active=False),
    ]
    replica = {"state": "behind", "problem": None, "hint": None}
    standing = Standing(None, BackupCatalog((), ()))
    assert [task.title for task in _tasks(servers, standing, replica)][:4] == [
        "down is down",
        "The replica is behind",
        "asks needs a sign-in",
        "1 tool of held is held",
    ]


def test_servers_that_need_a_person_come_first() -> None:
    lines = server_lines(
        [
            server("up", "ready"),
            server("off", "failed", active=False),
            server("held", "ready", held=("x",)),
            server("down", "failed"),
            {"name": "new", "kind": "http", "active": True, "profiles": [], "live": None},
        ],
        {},
    )
    assert [(line.name, line.chip, line.word) for line in lines] == [
        ("down", "bad", "down"),
        ("held", "warn", "1 held"),
        ("up", "ok", "up"),
        ("new", "off", "idle"),
        ("off", "off", "off"),
    ]
