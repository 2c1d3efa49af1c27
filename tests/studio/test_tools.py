"""Tools on the pages: called, answered, held and approved."""

from __future__ import annotations

import html
import json

from local_mcp_gateway.studio.tools import _parts
from tests.studio.conftest import Browser, Running


def test_a_tool_is_called_and_its_answer_shown_with_what_was_sent(browser: Browser) -> None:
    reply = browser.post("/studio/tools/default/echo", document='{"text": "<b>hi</b>"}')
    assert reply.status == 200
    assert "<b>hi</b>" not in reply.text
    assert "&lt;b&gt;hi&lt;/b&gt;" in reply.text
    assert "What was sent" in reply.words


def test_arguments_that_are_no_json_are_refused_and_kept(browser: Browser) -> None:
    reply = browser.post("/studio/tools/default/echo", document="{oops")
    assert "arguments is not JSON" in reply.words
    assert "{oops" in reply.text
    assert "There is no such page" not in browser.get("/studio/tools/default/nothing").words


def test_a_new_tool_is_held_compared_and_approved(browser: Browser, running: Running) -> None:
    seen = len(running.gateway.events)
    browser.post("/studio/tools/default/grow", document='{"name": "extra1"}')
    running.gateway.wait_for("catalog.altered", after=seen)
    page = browser.page("/studio/tools")
    assert "1 tool waits for your approval" in page.words
    held = browser.page("/studio/held/plain")
    assert "It was not there." in held.words
    stale = browser.post("/studio/held/plain", seen='["extra1", {}]', tool="extra1")
    assert stale.status == 400
    for nonsense in ("{", "1", '["extra1"]'):
        reply = browser.post("/studio/held/plain", seen=nonsense)
        assert "What was shown of a tool cannot be read" in reply.words
    shown = html.unescape(held.text.partition('name="seen" value="')[2].partition('"')[0])
    tool = json.loads(shown)[0]
    page = browser.sent("/studio/held/plain", seen=shown)
    assert "approved" in page.words
    assert tool in browser.page("/studio/tools").words


def test_an_answer_is_taken_apart_and_bytes_never_become_text() -> None:
    parts = _parts(
        {
            "content": [
                {"type": "text", "text": '{"a": 1}'},
                {"type": "text", "text": "x" * 200_000},
                {"type": "image", "mimeType": "image/png", "data": "AAAA"},
                {"type": "image", "mimeType": "image/svg+xml", "data": "PHN2Zz4="},
                {"type": "resource_link", "uri": "javascript:alert(1)"},
                {"type": "resource", "resource": {"uri": "a", "blob": "A" * 999}},
                "nonsense",
            ]
        }
    )
    assert [part["kind"] for part in parts] == ["json", "text", "image", "json", "link", "json"]
    assert parts[1]["cut"] == 100_000
    assert parts[5]["value"]["resource"]["blob"] == "999 characters"
    assert _parts("x") == _parts({"content": 5}) == []
