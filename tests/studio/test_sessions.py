"""Only a browser with a fresh link comes in, and only its own forms change anything."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from local_mcp_gateway.studio.http import Request
from local_mcp_gateway.studio.sessions import LINK_S, SESSION_S, Door
from tests.studio.conftest import Browser, Running, come_in


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Door:
    return Door(clock=clock)


def request(cookie: str = "") -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    return Request("GET", "/studio/", {}, {"cookie": cookie, "host": "127.0.0.1"}, receive)


def test_a_link_works_once_and_for_ten_minutes(door: Door, clock: Clock) -> None:
    link = door.make_link()
    entered = door.enter(link)
    assert entered is not None
    assert door.session_of(request(f"studio={entered[0]}")) is entered[1]
    assert door.enter(link) is None
    late = door.make_link()
    clock.now += LINK_S
    assert door.enter(late) is None


def test_a_session_ends_after_twelve_hours_or_when_it_is_left(door: Door, clock: Clock) -> None:
    entered, other = door.enter(door.make_link()), door.enter(door.make_link())
    assert entered is not None
    assert other is not None
    door.leave(request(f"studio={other[0]}"))
    assert door.session_of(request(f"studio={other[0]}")) is None
    assert door.session_of(request(f"theme=x; studio={entered[0]}")) is entered[1]
    clock.now += SESSION_S
    assert door.session_of(request(f"studio={entered[0]}")) is None


def test_the_cookie_is_for_no_script_and_no_other_site(running: Running) -> None:
    browser = Browser(running.gateway.url)
    reply = browser.get(running.place.link().removeprefix(running.gateway.url))
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert browser.page("/studio/").words.startswith("Overview")


def test_a_replayed_a_missing_and_a_made_up_link_let_nobody_in(running: Running) -> None:
    link = running.place.link()
    come_in(running.gateway.url, link)
    thief = Browser(running.gateway.url)
    for stolen in (link, "/studio/enter", "/studio/enter?token=" + "A" * 43):
        reply = thief.get(stolen.removeprefix(running.gateway.url))
        assert reply.status == 403
        assert "set-cookie" not in reply.headers
    assert thief.get("/studio/servers").status == 401


def test_without_a_cookie_one_quiet_page_says_what_runs_and_shows_no_data(running: Running) -> None:
    reply = Browser(running.gateway.url).page("/")
    assert "local-mcp-gateway open" in reply.words
    assert "plain" not in reply.text
    for path in (
        "/studio/servers",
        "/studio/live",
        "/studio/migrations",
        "/studio/static/../app.py",
    ):
        assert Browser(running.gateway.url).get(path).status in {401, 404}


def test_a_form_that_comes_after_the_session_is_told_that_it_is_over(running: Running) -> None:
    reply = Browser(running.gateway.url).ask("POST", "/studio/data/profiles/row", "v1=typed")
    assert reply.status == 401
    assert "You are signed out, so nothing was changed." in reply.words
    assert "local-mcp-gateway open" in reply.words


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3001", "127.0.0.1.evil.example", ""]
)
def test_a_rebound_name_is_refused_even_with_the_cookie(
    running: Running, browser: Browser, host: str
) -> None:
    reply = browser.get("/studio/servers", Host=host)
    assert reply.status == 403
    assert "plain" not in reply.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Origin": "http://127.0.0.1:9"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "document"},
    ],
    ids=["another site", "null", "none", "another port", "cross-site form", "form of another port"],
)
def test_a_form_of_another_page_changes_nothing(
    running: Running, browser: Browser, headers: dict[str, str | None]
) -> None:
    body = urlencode({"form_token": browser.form_token, "typed": "plain"})
    reply = browser.ask("POST", "/studio/servers/plain/remove", body, **headers)
    assert reply.status == 403
    assert "plain" in browser.page("/studio/servers").words


@pytest.mark.parametrize("token", ["", "A" * 43, None])
def test_a_form_without_the_token_of_this_session_changes_nothing(
    browser: Browser, running: Running, token: str | None
) -> None:
    fields = {"typed": "plain"} | ({} if token is None else {"form_token": token})
    assert browser.ask("POST", "/studio/servers/plain/remove", urlencode(fields)).status == 403
    other = running.browser()
    fields["form_token"] = other.form_token
    assert browser.ask("POST", "/studio/servers/plain/remove", urlencode(fields)).status == 403
    assert "plain" in browser.page("/studio/servers").words


def test_another_pages_script_gets_no_page_and_no_stream(browser: Browser) -> None:
    for path in ("/studio/live", "/studio/servers"):
        reply = browser.get(path, Sec_Fetch_Site="same-site", Sec_Fetch_Dest="empty")
        assert reply.status == 403


def test_whoever_has_left_is_outside(running: Running) -> None:
    browser = running.browser()
    kept = dict(browser.cookies)
    assert browser.post("/studio/leave").status == 303
    browser.cookies = kept
    assert browser.get("/studio/servers").status == 401
