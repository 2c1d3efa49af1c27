"""`tools` and `call`: what clients get, seen and called from a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tests.harness import REPOSITORY, Place

TIME = (sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC")
PLAIN = REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"


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
