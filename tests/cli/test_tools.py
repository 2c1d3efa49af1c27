"""`tools` and `call`: what clients get, seen and called from a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.harness import REPOSITORY, Place

TIME = (sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC")
PLAIN = REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"
SCRIPTED = PLAIN.with_name("scripted.py")


def test_tools_are_listed_and_found_in_whatever_profile_shows_them(
    either: Place, validate_json: Callable[[str, Any], None]
) -> None:
    plain = str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py")
    either.run("server", "add", "time", "--profile", "demo", "--", *TIME)
    either.run("server", "add", "plain", "--profile", "default", "--", sys.executable, plain)
    shown = either.run("tools")
    assert shown.stdout.splitlines()[0].split() == ["PROFILE", "TOOL", "SERVER", "WHAT"]
    (line,) = [row for row in shown.stdout.splitlines() if "get_current_time" in row]
    assert line.split()[:3] == ["demo", "get_current_time", "time"]
    found = either.run("tools", "CURRENT", "--server", "time", "--json").json()
    validate_json("tools", found)
    assert [tool["name"] for tool in found] == ["get_current_time"]
    assert either.run("tools", "get_*_time", "--profile", "default", "--json").json() == []
    assert either.run("call", "get_current_time", "timezone=UTC").code == 0  # not in the default
    near = either.run("call", "get_curent_time", "--profile", "demo")
    assert "Did you mean get_current_time?" in near.stderr
    nowhere = either.run("tools", "--profile", "zzz")
    assert (nowhere.code, "; there is default, demo." in nowhere.stderr) == (2, True)


def test_a_tool_that_fails_or_is_not_there_exits_with_1(shipped: Place) -> None:
    shipped.run("server", "add", "time", "--profile", "demo", "--", *TIME)
    assert shipped.run("call", "get_current_time", "timezone=Nowhere/City").code == 1
    missing = shipped.run("call", "no_such_tool")
    assert missing.code == 1
    assert "no_such_tool" in missing.stderr + missing.stdout


def test_a_value_is_what_the_schema_of_the_tool_says(shipped: Place) -> None:
    shipped.run("server", "add", "time", "--", *TIME)
    for text in ("5", "null"):  # JSON, but the schema says that it is text
        told = shipped.run("call", "get_current_time", f"timezone={text}").stdout
        assert f"No time zone found with key {text}" in told
    shipped.run("server", "add", "plain", "--", sys.executable, str(PLAIN))
    (shipped.root / "all.json").write_text('{"text": "from a file"}')
    told = shipped.run("call", "echo", "--json", "@all.json").json()["content"][0]["text"]
    assert json.loads(told) == {"text": "from a file"}
    told = shipped.run("call", "echo", "@-", "n=1", stdin='{"text": "1"}').stdout
    assert json.loads(told) == {"text": "1", "n": 1}


@pytest.mark.parametrize(
    "properties", [[], {"x": {"type": 5}}, {"x": {"type": [["string"]]}}, {"x": True}]
)
def test_a_tool_whose_schema_cannot_be_read_is_called_with_json(
    shipped: Place, properties: object
) -> None:
    tool = {"name": "odd", "inputSchema": {"type": "object", "properties": properties}}
    script = json.dumps({"answers": {"tools/list": {"tools": [tool]}}})
    shipped.run("server", "add", "odd", "--no-test", "--", sys.executable, str(SCRIPTED), script)
    done = shipped.run("call", "odd", "x=5", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.json()["content"][0]["text"])["arguments"] == {"x": 5}


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [("@-", "stdin is not a JSON object."), ("@", "@ names no file.")],
)
def test_what_holds_no_arguments_is_told(place: Place, argument: str, sentence: str) -> None:
    done = place.run("call", "echo", argument, stdin="[1]")
    assert (done.code, sentence in done.stderr) == (2, True)


def test_a_list_of_tools_that_is_empty_says_why(shipped: Place) -> None:
    none = "No tool is shown to clients.\n→ `server list` tells how each server is.\n"
    assert shipped.run("tools").stderr == none
    shipped.run("server", "add", "plain", "--", sys.executable, str(PLAIN))
    assert "No tool has 'zzz' in its name." in shipped.run("tools", "zzz").stderr
    unknown = shipped.run("tools", "--server", "zzz")
    assert (unknown.code, "There is no server 'zzz'." in unknown.stderr) == (2, True)
