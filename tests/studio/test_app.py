"""Every page: its headers, its frame, its errors, and what it must never show."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request

import pytest

from local_mcp_gateway.studio.app import inside
from tests.studio.conftest import Browser, Running

PAGES = [
    *(
        "/studio/",
        "/studio/servers",
        "/studio/servers/plain",
        "/studio/servers/gone",
        "/studio/add",
    ),
    *("/studio/tools", "/studio/tools/default/echo", "/studio/tools/default/echo?json=1"),
    *(
        "/studio/tokens",
        "/studio/profiles",
        "/studio/profiles/default",
        "/studio/calls",
        "/studio/calls?span=7d",
    ),
    *("/studio/data", "/studio/data/mcp_servers", "/studio/data/debug_logs?sort=status"),
    *("/studio/data/profiles/new", "/studio/data/profile_mcp_servers/structure"),
    *("/studio/migrations", "/studio/migrations/backups", "/studio/migrations/file/0000_initial"),
]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_and_may_load_only_its_own_files(browser: Browser, path: str) -> None:
    reply = browser.page(path)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["cache-control"] == "no-store"
    assert "<script>" not in reply.text
    assert "style=" not in reply.text
    assert "onclick" not in reply.text
    assert "http://" not in reply.text.replace(browser.url, "").replace("http://127.0.0.1:9", "")
    assert len(reply.text) < 60_000


def test_a_page_that_is_not_there_says_so_inside_the_frame(browser: Browser) -> None:
    for path in ("/studio/nowhere", "/studio/calls/999999", "/studio/migrations/file/..%2f..%2fx"):
        reply = browser.get(path)
        assert reply.status == 404
        assert "Overview" in reply.words
    assert browser.get("/studio/servers/nobody").status == 400


def test_static_files_are_kept_and_no_other_file_is_served(browser: Browser) -> None:
    reply = browser.page("/studio/static/studio.js")
    assert "immutable" in reply.headers["cache-control"]
    for path in ("..%2fapp.py", "%2fetc%2fpasswd", "../templates/base.html", "nothing.css"):
        assert browser.get(f"/studio/static/{path}").status == 404


def test_all_that_a_first_page_loads_is_small(browser: Browser) -> None:
    sizes = {
        name: len(browser.page(f"/studio/static/{name}").text)
        for name in ("studio.css", "studio.js", "icon.svg")
    }
    assert sizes["studio.css"] <= 32_000
    assert sizes["studio.js"] <= 16_000
    assert sizes["icon.svg"] <= 4_000


def test_the_gateway_goes_on_serving_clients_and_says_to_a_browser_what_mcp_is(
    browser: Browser, running: Running
) -> None:
    reply = browser.get("/mcp")
    assert "address for MCP clients" in reply.words
    assert 'href="/"' in reply.text
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    request = urllib.request.Request(
        running.gateway.url + "/mcp",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["result"]["tools"]


def test_a_start_imports_nothing_of_the_pages() -> None:
    code = (
        "import sys, local_mcp_gateway.service.app, local_mcp_gateway.cli.serve;"
        "print([m for m in sys.modules if m.startswith(('jinja2', 'local_mcp_gateway.studio'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_script_in_a_name_or_a_text_is_shown_as_text(browser: Browser) -> None:
    script = "<script>alert(1)</script>"
    browser.sent("/studio/profiles", name="odd", description=script)
    for path in (
        "/studio/profiles",
        "/studio/profiles/odd",
        f"/studio/calls?text={script}&server={script}",
    ):
        reply = browser.page(path)
        assert script not in reply.text
    assert "&lt;script&gt;alert(1)" in browser.page("/studio/profiles").text
    browser.sent("/studio/profiles/odd/remove", typed="odd")


def test_the_colours_are_chosen_and_kept(running: Running) -> None:
    browser = running.browser()
    page = browser.sent("/studio/theme", theme="dark", to="/studio/servers")
    assert 'data-theme="dark"' in page.text
    assert browser.post("/studio/theme", theme="pink").status == 400


def test_a_form_leads_only_to_our_own_pages() -> None:
    assert inside("/studio/servers?x=1", "/") == "/studio/servers?x=1"
    for given in ("https://evil.example/", "//evil.example", "/studio/\r\nSet-Cookie: x", ""):
        assert inside(given, "/studio/") == "/studio/"


def test_a_broken_form_and_a_huge_one_are_refused_in_a_sentence(browser: Browser) -> None:
    reply = browser.ask("POST", "/studio/profiles", "x=%ff%fe")
    assert reply.status == 400
    assert "cannot be read" in reply.words
    assert browser.ask("POST", "/studio/profiles", "x=" + "a" * 5_000_000).status == 400
    assert (
        browser.ask("POST", "/studio/profiles", "{}", Content_Type="application/json").status == 400
    )
