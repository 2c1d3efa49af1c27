"""Servers on the pages: added, seen healthy, changed, refused, removed."""

from __future__ import annotations

import json
import sys

from tests.needs import sandbox
from tests.studio.conftest import PLAIN, Browser, Running


def test_a_server_that_is_added_is_tested_turned_off_and_removed(browser: Browser) -> None:
    what = f"{sys.executable} {PLAIN}"
    page = browser.sent(
        "/studio/add", what=what, name="extra", env="KEY=hunter2", profile="default"
    )
    assert "extra is added" in page.words
    assert "hunter2" not in page.text
    assert "KEY sealed" in page.words
    page = browser.sent("/studio/servers/extra/test")
    assert "extra works: 13 tools" in page.words
    page = browser.sent("/studio/servers/extra/switch", active="0")
    assert "turned off" in page.words
    page = browser.sent(
        "/studio/servers/extra/edit", name="other", what=what, forget="KEY", timeout_s="5"
    )
    assert "other is changed" in page.words
    assert "KEY" not in page.words
    reply = browser.post("/studio/servers/other/remove", typed="wrong")
    assert reply.status == 400
    assert "Nothing was removed" in reply.words
    assert "other is removed" in browser.sent("/studio/servers/other/remove", typed="other").words


def test_the_page_of_a_server_says_what_its_sandbox_lets_it_do(
    running: Running, browser: Browser
) -> None:
    sandbox()
    folder = str(running.place.root)
    options = ("--sandbox", "--writable", folder, "--no-network", "--no-test")
    done = running.place.run("server", "add", "boxed", *options, "--", sys.executable, PLAIN)
    assert done.code == 0, done.stderr
    assert f"Sandbox writes {folder}; no network" in browser.page("/studio/servers/boxed").words
    browser.sent("/studio/servers/boxed/edit", what="true")
    assert f"Sandbox writes {folder}" in browser.page("/studio/servers/boxed").words
    edit = "/studio/servers/boxed/edit"
    assert "Sandbox writes nothing; network" in browser.sent(edit, sandbox="network").words
    assert "writes nothing" not in browser.sent(edit, sandbox="off").words
    refused = browser.post(edit, sandbox="alone", writable="relative")
    assert (refused.status, "is not a full path" in refused.words) == (400, True)
    browser.sent("/studio/servers/boxed/remove", typed="boxed")
    page = browser.sent("/studio/add", what="true", name="b2", sandbox="alone", writable=folder)
    assert f"Sandbox writes {folder}; no network" in page.words
    browser.sent("/studio/servers/b2/remove", typed="b2")
    document = '{"mcpServers": {"b3": {"command": "true"}}}'
    browser.sent("/studio/add/document", document=document, sandbox="alone")
    assert "Sandbox writes nothing; no network" in browser.page("/studio/servers/b3").words
    browser.sent("/studio/servers/b3/remove", typed="b3")


def test_a_form_that_is_refused_keeps_what_was_typed(browser: Browser) -> None:
    reply = browser.post("/studio/add", what="'never closed", name="x<y", env="A=1")
    assert reply.status == 400
    assert "The command cannot be read" in reply.words
    assert 'value="x&lt;y"' in reply.text
    assert "A=1" in reply.text
    for wrong in ("soon", "9" * 5_000):
        reply = browser.post(
            "/studio/servers/plain/edit", what=f"{sys.executable} {PLAIN}", timeout_s=wrong
        )
        assert "is not a whole number" in reply.words
    assert browser.post("/studio/add", what="", name="x").status == 400
    assert browser.post("/studio/add", what="x", env="novalue").status == 400


def test_a_clients_configuration_is_pasted(browser: Browser) -> None:
    document = {
        "mcpServers": {
            "pasted": {"command": "true"},
            "plain": {"command": "true"},
            "self": {"url": browser.url + "/mcp"},
        }
    }
    page = browser.sent("/studio/add/document", document=json.dumps(document))
    assert "Added pasted; kept plain as before; left out self, which is this gateway." in page.words
    browser.sent("/studio/servers/pasted/remove", typed="pasted")
    assert browser.post("/studio/add/document", document="{").status == 400


def test_why_a_server_is_down_is_said_on_its_page_and_on_the_first_one(browser: Browser) -> None:
    reply = browser.post("/studio/servers/gone/test")
    assert reply.status == 400
    assert "'gone' does not work" in reply.words
    assert "Connection refused" in reply.words
