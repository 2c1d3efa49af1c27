"""`profile tool`: what a profile changes about single tools. `logs --calls`: what was called."""

from __future__ import annotations

import json
import sys

import pytest

from tests.harness import REPOSITORY, Place

PLAIN = (sys.executable, str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"))


@pytest.fixture
def plain(shipped: Place) -> Place:
    assert shipped.run("server", "add", "plain", "--", *PLAIN).code == 0
    return shipped


def test_a_tool_is_renamed_hidden_described_and_reset_while_the_gateway_runs(plain: Place) -> None:
    tool = ("profile", "tool", "default", "plain")
    with plain.serve() as gateway:
        gateway.wait_ready()
        assert plain.run("call", "echo").code == 0
        changed = plain.run(*tool, "echo", "--rename", "say", "--description", "Say it.", "--json")
        assert changed.json()["tools"] == [
            {
                "server": "plain",
                "tool": "echo",
                "enabled": True,
                "name": "say",
                "description": "Say it.",
            }
        ]
        assert plain.run("call", "say", "x=1").code == 0
        assert plain.run("call", "echo").code == 1
        plain.run(*tool, "echo", "--hide")
        assert plain.run("call", "say").code == 1
        shown = plain.run("profile", "show", "default").stdout
        assert "plain  echo as say (hidden): Say it." in shown
        assert plain.run(*tool, "echo", "--reset", "--json").json()["tools"] == []
        assert plain.run("call", "echo").code == 0
        misspelt = plain.run(*tool, "ecko", "--hide")
        assert misspelt.code == 2
        assert "has no tool 'ecko'" in misspelt.stderr
        assert "Did you mean 'echo'?" in misspelt.stderr


def test_a_tool_takes_no_name_that_is_shown_already(plain: Place) -> None:
    with plain.serve() as gateway:
        gateway.wait_ready()
        assert plain.run("server", "add", "other", "--", *PLAIN).code == 0
        assert plain.run("call", "other__pid").code == 0
        tool = ("profile", "tool", "default")
        for name, shown in (
            ("echo", "'echo' of server 'plain'"),
            ("other__raw", "'raw' of server"),
        ):
            refused = plain.run(*tool, "other", "pid", "--rename", name)
            assert refused.code == 2
            assert f"shows the tool {shown}" in refused.stderr
        assert plain.run("call", "other__pid").code == 0
        for _ in range(2):
            assert plain.run(*tool, "other", "pid", "--rename", "which").code == 0
        assert plain.run("call", "which").code == 0


REFUSED = [
    (("default", "plain", "echo"), "Give what to change"),
    (("default", "plain", "echo", "--reset", "--hide"), "Give what to change"),
    (("default", "plain", "echo", "--rename", "a b"), "'a b' cannot be the name"),
    (("default", "other", "echo", "--hide"), "has no server 'other'"),
    (("nobody", "plain", "echo", "--hide"), "no profile 'nobody'"),
]


def test_what_makes_no_sense_is_refused(plain: Place) -> None:
    for arguments, said in REFUSED:
        done = plain.run("profile", "tool", *arguments)
        assert (done.code, said in done.stderr) == (2, True), done.stderr


def test_calls_are_found_again_without_their_payloads(plain: Place) -> None:
    assert plain.run("logs", "--calls").code == 0  # before there is a database to read
    with plain.serve() as gateway:
        gateway.wait_ready()
        plain.run("call", "echo", "word=s3cret")
        plain.run("call", "fail")
        assert gateway.stop() == 0
    lines = plain.run("logs", "--calls", "--json").stdout.splitlines()
    echoed, failed = (json.loads(line) for line in lines)
    assert (echoed["server"], echoed["target"], echoed["status"]) == ("plain", "echo", "ok")
    assert echoed["request_bytes"] > 0 < echoed["response_bytes"]
    assert echoed["duration_ms"] > 0
    assert (failed["level"], failed["status"]) == ("warning", "error")
    assert "s3cret" not in "".join(lines)
    newest = plain.run("logs", "--calls", "--json", "--lines", "1").stdout
    assert json.loads(newest)["target"] == "fail"
    assert plain.run("logs", "--calls", "--follow").code == 2


def test_payloads_are_kept_on_demand_without_what_looks_like_a_secret(plain: Place) -> None:
    with plain.serve(env={"LMG_LOG__PAYLOADS": "true", "LMG_LOG__KEEP_CALLS": "2"}) as gateway:
        gateway.wait_ready()
        for word in ("one", "two", "three"):
            plain.run("call", "echo", f"word={word}", "api_key=sk-1234567890")
        assert gateway.stop() == 0
    two, three = (
        json.loads(line) for line in plain.run("logs", "--calls", "--json").stdout.splitlines()
    )
    assert '"two"' in two["request"]
    assert "three" in three["response"]
    assert "sk-1234567890" not in json.dumps([two, three])


def test_profiles_order_switch_and_lose_their_servers(either: Place) -> None:
    for name in ("a", "b", "c"):
        either.run("server", "add", name, "--", "cmd")
    assert either.run("profile", "add", "work", "b", "a", "--description", "for work").code == 0
    assert (
        either.run("profile", "edit", "work", "--add", "c", "--disable", "a", "--remove", "b").code
        == 0
    )
    shown = either.run("profile", "show", "work", "--json").json()
    assert shown["description"] == "for work"
    assert shown["servers"] == [{"name": "a", "active": False}, {"name": "c", "active": True}]
    moved = either.run("profile", "edit", "work", "--first", "c", "--json").json()
    assert [server["name"] for server in moved["servers"]] == ["c", "a"]
    assert either.run("profile", "edit", "work", "--remove", "zzz").code == 2
    assert either.run("profile", "edit", "work", "--first", "b").code == 2
    assert either.run("profile", "add", "broken", "nobody").code == 2
    assert either.run("profile", "remove", "work", "--yes").code == 0
    left = either.run("profile", "list", "--json").json()
    assert [profile["name"] for profile in left] == ["default"]
