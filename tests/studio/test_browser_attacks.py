"""What a hostile page, server or row tries in a browser that is inside, and does not get."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.studio.chromium import SIZES, Watched, cut_off, overflow
from tests.studio.scene import Scene, scene
from tests.studio.servers.desk import SCRIPT

FORM = """<form method="post" action="{to}"><input name="typed" value="desk">
<input name="sql" value="DELETE FROM customers"><input name="key" value="[1]"></form>
<script>document.forms[0].submit()</script>"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("attacks"), pending=False) as made:
        assert made.place.run("call", "hire").code == 0
        yield made


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def site(folder: Path, html: str) -> Iterator[str]:
    """Serve a page of somebody else on this machine; yield its address."""
    (folder / "index.html").write_text(f"<!doctype html><title>Free games</title>{html}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def test_a_script_is_shown_as_text_wherever_it_comes_from(
    page: Page, watched: Watched, shop: Scene
) -> None:
    shop.place.write("UPDATE customers SET name = ? WHERE id = 1", SCRIPT)
    shop.place.write(
        "INSERT INTO debug_logs (created_at, profile, server, method, target, status, error,"
        " duration_us, request_bytes, response_bytes, request) SELECT max(created_at), 'default',"
        " 'desk', 'tools/call', ?, 'error', ?, 1, 1, 1, ? FROM debug_logs",
        *(SCRIPT, SCRIPT, f'{{"text": "{SCRIPT[:20]}"}}'),
    )
    watched.complaints.clear()
    for path, where in (
        ("/studio/data/customers", "tbody"),
        ("/studio/data/customers/row?key=%5B1%5D", ".crumb"),
        ("/studio/held/desk", "ins"),
        ("/studio/servers/desk", "#live-wrote pre"),
        ("/studio/calls", "#live-list"),
    ):
        page.goto(path)
        expect(page.locator(where).first).to_be_visible()
        assert SCRIPT[:20] in page.content().replace("&lt;", "<").replace("&gt;", ">"), path
        assert "taken" not in page.title()
        assert page.locator("img[src='x']").count() == 0
    page.goto("/studio/calls")
    page.locator("#live-list tbody a").first.click()
    expect(page.locator(".problem")).to_contain_text(SCRIPT)
    assert "taken" not in page.title()
    assert watched.complaints == []


@pytest.mark.parametrize(
    "to", ["/studio/servers/desk/remove", "/studio/data/customers/delete", "/studio/sql"]
)
def test_a_form_of_another_port_of_this_machine_changes_nothing(
    page: Page, shop: Scene, tmp_path: Path, to: str
) -> None:
    before = shop.place.content()
    with site(tmp_path, FORM.format(to=shop.gateway.url + to)) as url:
        page.goto(url)
        page.wait_for_url(f"**{to}")
    assert "This request came from a page of another site." in page.locator("main").inner_text()
    assert shop.place.content() == before


def test_no_other_origin_reads_the_data_or_shows_it_in_a_frame(
    page: Page, shop: Scene, tmp_path: Path
) -> None:
    data = f"{shop.gateway.url}/studio/data/customers"
    with site(tmp_path, f'<iframe id="frame" src="{data}"></iframe>') as url:
        page.goto(url)
        for how in ("{credentials: 'include'}", "{mode: 'no-cors', credentials: 'include'}"):
            read = f"fetch({data!r}, {how}).then(reply => reply.text()).catch(() => 'refused')"
            assert page.evaluate(read) in {"refused", ""}
        page.wait_for_load_state("load")
        assert page.frames[1].url == "chrome-error://chromewebdata/"


def test_a_name_that_is_bound_again_to_this_machine_gets_nothing(page: Page, shop: Scene) -> None:
    port = shop.gateway.url.rpartition(":")[2]
    for path in ("/studio/data/customers", "/"):
        answer = page.goto(f"http://evil.example:{port}{path}")
        assert answer is not None
        assert answer.status == 403
        assert "example.org" not in page.content()


def test_a_link_lets_in_one_browser_once_and_a_made_up_cookie_none(
    shop: Scene, watched: Watched
) -> None:
    browser = watched.context.browser
    assert browser is not None
    link = shop.place.link()
    first, second = (Watched(browser, shop.gateway.url) for _ in range(2))
    first.enter(link)
    thief = second.context.new_page()
    thief.goto(link)
    expect(thief.locator("h1")).to_contain_text("used already")
    name = first.context.cookies()[0]["name"]
    second.context.add_cookies([{"name": name, "value": "A" * 43, "url": shop.gateway.url}])
    answer = thief.goto("/studio/data/customers")
    assert answer is not None
    assert answer.status == 401
    assert "example.org" not in thief.content()
    cookie = first.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert first.context.pages[0].evaluate("document.cookie") == ""
    for made in (first, second):
        made.context.close()


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM customers",
        "ATTACH '/etc/passwd' AS x",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "SELECT writefile('/tmp/x', 'y')",
        "VACUUM INTO '/tmp/stolen.db'",
    ],
)
def test_the_console_reads_and_does_nothing_else(page: Page, shop: Scene, sql: str) -> None:
    before = shop.place.content()
    page.goto("/studio/sql")
    page.get_by_label("Statement").fill(sql)
    page.get_by_label("Statement").press("Control+Enter")
    expect(page.locator("[role=alert]")).to_be_visible()
    expect(page.get_by_label("Statement")).to_have_value(sql)
    assert shop.place.content() == before


def test_names_of_any_length_stay_inside_the_window_and_their_panels(
    page: Page, shop: Scene
) -> None:
    table, column = "t" * 180, "c" * 150
    shop.place.write(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {column} TEXT)")
    shop.place.write(f"INSERT INTO {table} VALUES (1, '{'w' * 400}')")
    found = []
    for path in (
        "/studio/data",
        f"/studio/data/{table}",
        f"/studio/data/{table}/row?key=[1]",
        f"/studio/data/{table}/new",
        f"/studio/data/{table}/structure",
        f'/studio/data/customers?where=["name","=","{"n" * 300}"]',
        f"/studio/diagram?around={table}",
        f"/studio/tools/default/{'x' * 200}",
        f"/studio/sql?sql={'x' * 400}",
    ):
        page.goto(path)
        for width, (_, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            found += [(path[:40], width, name) for name in (overflow(page), *cut_off(page)) if name]
    page.set_viewport_size({"width": 1280, "height": 860})
    assert found == []
