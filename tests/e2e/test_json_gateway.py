"""What scripts rely on: every `--json` output about servers, profiles, calls and the service."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway import __version__
from local_mcp_gateway.config.settings import Settings
from tests.e2e.json_values import ABOVE_ZERO, TIME, Like
from tests.harness import REPOSITORY, Place

pytestmark = pytest.mark.e2e
Said = Callable[..., Any]
SHIPPED = len(list((REPOSITORY / "migrations").glob("[0-9]*[a-z].sql"))) - len(
    list((REPOSITORY / "migrations").glob("*.down.sql"))
)

PLAIN = [sys.executable, str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py")]
OPTIONS: dict[str, Any] = {
    "share": "auto",
    "max_clients": None,
    "idle_stop_s": None,
    "timeout_s": None,
    "proxy": None,
    "ca": None,
    "insecure": False,
    "client_headers": [],
    "trust_annotations": False,
    "sandbox": None,
}
FREE: dict[str, Any] = {
    "allowed": [],
    "denied": [],
    "read_only": False,
    "calls_per_minute": None,
    "calls_at_once": None,
}
WEB = OPTIONS | {
    "name": "web",
    "kind": "http",
    "active": True,
    "command": None,
    "args": [],
    "env": {},
    "cwd": None,
    "url": "http://127.0.0.1:9/mcp",
    "headers": {"X-Key": "[redacted]"},
}
CLOCK = OPTIONS | {
    "name": "clock",
    "kind": "stdio",
    "active": True,
    "command": "clock-command",
    "args": ["--zone", "UTC"],
    "env": {"TOKEN": "[redacted]"},
    "cwd": "/",
    "url": None,
    "headers": {},
}


def add_both(place: Place, said: Said) -> None:
    web = ("web", "--url", "http://127.0.0.1:9/mcp", "--header", "X-Key=secret")
    assert said(place, "server add", *web) == WEB | {"test": None}
    clock = ("clock", "--profile", "daily", "--env", "TOKEN=t", "--cwd", "/")
    command = ("--", "clock-command", "--zone", "UTC")
    assert said(place, "server add", *clock, *command) == CLOCK | {"test": None}


def test_servers_are_described_as_they_are_stored(shipped: Place, said: Said) -> None:
    add_both(shipped, said)
    assert said(shipped, "server list") == [
        CLOCK | {"sign_in": None, "profiles": ["daily"], "live": None},
        WEB | {"sign_in": None, "profiles": ["default"], "live": None},
    ]
    shown = WEB | {"sign_in": None, "altered": [], "live": None}
    assert said(shipped, "server show", "web") == shown
    opened = said(shipped, "server show", "web", "--secrets")
    assert opened == shown | {"headers": {"X-Key": "secret"}}
    edited = said(shipped, "server edit", "web", "--off", "--url", "http://127.0.0.1:8/mcp")
    assert edited == WEB | {"active": False, "url": "http://127.0.0.1:8/mcp"}
    file = shipped.root / "servers.json"
    servers = {"time": {"command": "mcp-server-time"}, "web": {"url": "http://127.0.0.1:7/mcp"}}
    file.write_text(json.dumps({"mcpServers": servers}))
    imported = {
        "added": ["time"],
        "kept": ["web"],
        "differs": ["web"],
        "this_gateway": [],
        "refused": {},
        "notes": {},
        "profile": "work",
    }
    assert said(shipped, "server import", file, "--profile", "work") == imported
    assert said(shipped, "server remove", "web", "--yes") == {"removed": "web"}
    assert [server["name"] for server in said(shipped, "server list")] == ["clock", "time"]


def test_profiles_are_described_with_their_servers_and_tools(shipped: Place, said: Said) -> None:
    add_both(shipped, said)
    members = [{"name": "web", "active": True}, {"name": "clock", "active": True}]
    work: dict[str, Any] = {
        "name": "work",
        "description": "for work",
        "prefix": "always",
        "servers": members,
        "tools": [],
        "policy": FREE,
    }
    options = ("--description", "for work", "--prefix", "always")
    assert said(shipped, "profile add", "work", "web", "clock", *options) == work
    plain: dict[str, Any] = {"description": None, "prefix": "auto", "tools": [], "policy": FREE}
    assert said(shipped, "profile list") == [
        {"name": "daily", "servers": members[1:], **plain},
        {"name": "default", "servers": members[:1], **plain},
        work,
    ]
    work["servers"] = [{"name": "web", "active": False}, members[1]]
    assert said(shipped, "profile edit", "work", "--disable", "web") == work
    limits = ("--tools", "git_*", "--deny", "web/*", "--read-only", "--per-minute", "9")
    work["policy"] = {
        **FREE,
        "allowed": ["git_*"],
        "denied": ["web/*"],
        "read_only": True,
        "calls_per_minute": 9,
    }
    assert said(shipped, "profile edit", "work", *limits) == work
    work["policy"] = FREE
    free = ("--tools", "*", "--deny", "-", "--read-write", "--per-minute", "0")
    assert said(shipped, "profile edit", "work", *free) == work
    hidden = {
        "server": "web",
        "tool": "echo",
        "enabled": False,
        "name": None,
        "description": None,
    }
    work["tools"] = [hidden]
    assert said(shipped, "profile tool", "work", "web", "echo", "--hide") == work
    shown = {**hidden, "enabled": True, "name": "say", "description": "Says it."}
    work["tools"] = [shown]
    changed = ("--show", "--rename", "say", "--description", "Says it.")
    assert said(shipped, "profile tool", "work", "web", "echo", *changed) == work
    assert said(shipped, "profile show", "work") == work
    assert said(shipped, "profile remove", "work", "--yes") == {"removed": "work"}


def test_tokens_are_described_without_their_text(shipped: Place, said: Said) -> None:
    add_both(shipped, said)
    options = ("--profile", "daily", "--expires", "90d", "--read-only", "--at-once", "2")
    made = said(shipped, "token create", "ci", *options)
    stored = {
        "name": "ci",
        "id": Like(r"[0-9a-f]{16}"),
        "profiles": ["daily"],
        "created_at": TIME,
        "expires_at": TIME,
        "expired": False,
        "last_used_at": None,
        "last_client": None,
        "policy": {**FREE, "read_only": True, "calls_at_once": 2},
    }
    assert made == {"file": None, "token": Like(r"lmg_[0-9a-f]{16}_[\w-]{43}"), **stored}
    assert said(shipped, "token list") == [stored]
    assert said(shipped, "token edit", "ci", "--read-write") == {
        **stored,
        "policy": {**FREE, "calls_at_once": 2},
    }
    assert said(shipped, "token revoke", "ci", "--yes") == {"revoked": "ci"}


def test_a_server_that_runs_is_described_with_its_life(shipped: Place, said: Said) -> None:
    text = shipped.root / "echo.txt"
    text.write_text("Says it.")
    command = ("--", *PLAIN, "--grandchild", "--describe", str(text))
    said(shipped, "server add", "plain", *command)
    said(shipped, "server add", "ghost", "--", "no-such-command-anywhere")
    with shipped.serve(env={"LMG_UPSTREAM__ALTERED_TOOLS": "hold"}) as gateway:
        gateway.wait_ready()
        called = said(shipped, "call", "echo", "word=hello")
        assert called == {"content": [{"type": "text", "text": '{"word": "hello"}'}]}
        gateway.wait_for("upstream.lost")
        tools = gateway.wait_for("catalog.saved")
        assert tools["server"] == "plain"
        ghost, plain = (server["live"] for server in said(shipped, "server list"))
        assert ghost == {
            "state": "failed",
            "reason": "'no-such-command-anywhere' does not exist",
            "retry_at": TIME,
            "tools": None,
            "held": [],
            "protocol": None,
            "pid": None,
            "wrote": [],
        }
        live = {
            "state": "ready",
            "reason": None,
            "retry_at": None,
            "tools": 13,
            "held": [],
            "protocol": "2025-11-25",
            "pid": ABOVE_ZERO,
            "wrote": [Like(r"grandchild \d+")],
        }
        assert plain == live
        assert (Path("/proc") / str(plain["pid"]) / "cmdline").exists()
        text.write_text("Says something else.")
        said(shipped, "call", "grow", "name=more")
        gateway.wait_for("catalog.altered")
        gateway.wait_for("catalog.saved", after=gateway.names().index("catalog.altered"))
        shown = said(shipped, "server show", "plain")
        assert shown["live"] == live | {"tools": 14, "held": ["echo"], "wrote": plain["wrote"]}
        echo = {"name": "echo", "inputSchema": {"type": "object"}}
        assert shown["altered"] == [
            {
                "tool": "echo",
                "approved": echo | {"description": "Says it."},
                "offered": echo | {"description": "Says something else."},
            }
        ]
        assert said(shipped, "server approve", "plain", "--yes") == {"approved": ["echo"]}
        assert said(shipped, "server approve", "plain", "--yes") == {"approved": []}


def test_a_server_that_is_tried_says_who_it_is(shipped: Place, said: Said) -> None:
    said(shipped, "server add", "plain", "--", *PLAIN)
    assert said(shipped, "server test", "plain") == {
        "name": "plain",
        "answered_as": "plain",
        "protocol": "2025-11-25",
        "capabilities": ["logging", "tools"],
        "tools": 13,
        "notes": [],
        "duration_ms": ABOVE_ZERO,
    }


def test_a_start_and_a_reload_are_told_as_the_log_tells_them(shipped: Place, said: Said) -> None:
    shipped.migrate()
    said(shipped, "server add", "plain", "--", *PLAIN)
    tag = shipped.folder.add("more", "CREATE TABLE more (id INTEGER PRIMARY KEY)")
    config = shipped.root / "gateway.toml"
    config.write_text("")
    with shipped.serve(options=(*shipped.options, "--config", str(config))) as gateway:
        gateway.wait_ready()
        said(shipped, "call", "echo")
        later = shipped.folder.add("later", "CREATE TABLE later (id INTEGER PRIMARY KEY)")
        config.write_text("[upstream]\ncall_timeout_s = 7\n[log]\npayloads = true\n")
        reloaded = said(shipped, "reload")
        assert reloaded == {
            "changed": ["log.payloads", "upstream.call_timeout_s"],
            "needs_restart": [],
            "applied": [later],
            "paused_ms": gateway.wait_for("service.reloaded")["paused_ms"],
        }
        assert reloaded["paused_ms"] == ABOVE_ZERO
        assert gateway.stop() == 0
    (start,) = said(shipped, "startup")["starts"]
    phases = start.pop("phases")
    assert start == {
        "started_at": TIME,
        "pid": gateway.process.pid,
        "outcome": "ready",
        "duration_ms": ABOVE_ZERO,
        "version": __version__,
        "database": str(shipped.database),
        "state": "migrated",
        "applied": [tag],
        "backup": str(shipped.backups[0]),
        "upstreams": [{"server": "plain", "connected_ms": ABOVE_ZERO}],
        "refusal": None,
    }
    assert start["upstreams"][0]["connected_ms"] > start["duration_ms"]
    assert [phase["name"] for phase in phases] == [
        "process", "lock", "check", "plan", "backup", "rehearse", "apply and verify",
        "commit, durable", "gateway", "ready",
    ]  # fmt: skip
    begins = 0.0
    for phase in phases:
        assert phase["start_ms"] == pytest.approx(begins, abs=0.2)
        begins = phase["start_ms"] + phase["duration_ms"]
    assert start["duration_ms"] == pytest.approx(begins, abs=0.2)

    refused = shipped.folder.add("refused", "CREATE TABEL x (y)")
    assert shipped.run("serve", "--port", "0").code == 5
    (start,) = said(shipped, "startup")["starts"]
    assert (start["outcome"], start["applied"]) == ("refused", [])
    assert start["refusal"] == {
        "code": "migration_failed",
        "message": f'{refused}.sql, line 1, statement 1: near "TABEL": syntax error.',
        "hint": Like("Correct the statement.*"),
        "exit_code": 5,
    }


def test_the_log_and_its_calls_are_json_lines(
    shipped: Place, said: Said, validate_json: Callable[[str, Any], None]
) -> None:
    said(shipped, "server add", "plain", "--", *PLAIN)
    with shipped.serve() as gateway:
        gateway.wait_ready()
        said(shipped, "call", "echo", "word=hello")
        finished = gateway.wait_for("call.finished", where=lambda e: e["method"] == "tools/call")
        assert gateway.stop() == 0

    def lines(*options: str) -> list[dict[str, Any]]:
        done = shipped.run("logs", "--json", *options)
        assert done.code == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        for event in events:
            validate_json("logs", event)
        return events

    assert [without_time(event) for event in lines("--from", "file", "-n", "10000")] == [
        without_time(event) for event in gateway.events
    ]
    sizes = "SELECT request_bytes, response_bytes FROM debug_logs WHERE method = 'tools/call'"
    ((request_bytes, response_bytes),) = shipped.query(sizes)
    assert response_bytes > request_bytes > 0
    (call,) = [call for call in lines("--calls") if call["method"] == "tools/call"]
    assert call == {
        "timestamp": TIME,
        "level": "info",
        "event": "call.finished",
        "client": "local-mcp-gateway",
        "profile": "default",
        "server": "plain",
        "method": "tools/call",
        "target": "echo",
        "status": "ok",
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
        "duration_ms": pytest.approx(finished["duration_ms"], abs=0.01),
    }


def without_time(event: dict[str, Any]) -> dict[str, Any]:
    assert event["timestamp"] == TIME
    return event | {"timestamp": None}


def test_secrets_are_counted_and_their_key_is_named(shipped: Place, said: Said) -> None:
    add_both(shipped, said)
    key = shipped.home / ".config" / "local-mcp-gateway.key"
    plain = {"TOKEN": "t", "OTHER": "o"}
    shipped.write("UPDATE mcp_servers SET env = ? WHERE name = 'clock'", json.dumps(plain))
    sealed = said(shipped, "secrets seal")
    assert sealed == {
        "key": Like("[0-9a-f]{8}"),
        "file": str(key),
        "sealed": 2,
        "resealed": 0,
        "unreadable": [],
        "overwritten": True,
    }
    rotated = said(shipped, "secrets rotate")
    assert rotated == sealed | {"key": rotated["key"], "sealed": 0, "resealed": 3}
    assert rotated["key"] != sealed["key"]
    key.unlink()
    lost = said(shipped, "secrets rotate", code=3)
    assert lost["unreadable"] == [
        {
            "server": server,
            "column": column,
            "name": name,
            "reason": Like(f"The {kind} {name} of server '{server}' is sealed with key .*"),
        }
        for server, column, kind, name in (
            ("clock", "env", "variable", "TOKEN"),
            ("clock", "env", "variable", "OTHER"),
            ("web", "headers", "header", "X-Key"),
        )
    ]


def test_a_setting_and_the_default_profile_are_written_to_the_file(
    shipped: Place, said: Said
) -> None:
    file, overlay = shipped.root / "gateway.toml", shipped.root / "gateway.dev.toml"
    with_file = Place(shipped.root, (*shipped.command, "--config", str(file)))
    place = {"file": str(file), "overlay": str(overlay)}
    assert said(with_file, "config path") == {**place, "exists": False}
    assert said(with_file, "config set", "gateway.port", "4000") == {
        "key": "gateway.port",
        "value": "4000",
        "file": str(file),
        "overridden_by": None,
        "needs_restart": True,
    }
    said(with_file, "profile add", "work")
    assert said(with_file, "profile use", "work") == {
        "name": "work",
        "file": str(file),
        "overridden_by": None,
        "live": False,
    }
    assert said(with_file, "config path") == {**place, "exists": True}


def test_settings_are_shown_with_where_they_come_from(place: Place, said: Said) -> None:
    file = place.root / "gateway.toml"
    file.write_text("[gateway]\nport = 4000\n")
    with_file = Place(place.root, (*place.command, "--config", str(file)))
    shown = said(with_file, "config show")["settings"]
    by_key = {row["key"]: row for row in shown}
    assert len(by_key) == len(shown)
    assert by_key["gateway.port"] == {
        "key": "gateway.port",
        "value": 4000,
        "default": 3001,
        "from": str(file),
        "environment": "LMG_GATEWAY__PORT",
        "needs_restart": True,
        "help": "TCP port to listen on; 0 lets the system choose.",
    }
    assert by_key["database.path"]["from"] == "command line"
    assert by_key["log.format"]["from"] == "default"
    defaults = Settings()
    for row in shown:
        section, name = row["key"].split(".")
        default = getattr(getattr(defaults, section), name)
        assert row["default"] == (list(default) if isinstance(default, tuple) else default)
        assert row["environment"] == f"LMG_{section}__{name}".upper()
        assert row["help"].endswith(".")
    keys = {"gateway.port", "database.path", "migrations.folder"}
    assert said(with_file, "config check") == {"file": None, "set": sorted(keys)}
    checked = said(place, "config check", file)
    assert checked == {"file": str(file), "set": ["gateway.port"]}


def test_a_drizzle_config_is_read_into_our_settings(place: Place, said: Said) -> None:
    file = place.root / "drizzle.config.ts"
    file.write_text(
        "export default { schema: './s.ts', out: './drizzle', dbCredentials: { url: 'a.db' } };"
    )
    assert said(place, "config import", file) == {
        "schema": str(place.root / "s.ts"),
        "migrations.folder": str(place.root / "drizzle"),
        "database.path": str(place.root / "a.db"),
    }


def test_the_doctor_says_what_it_looked_at(shipped: Place, said: Said) -> None:
    shipped.migrate()
    said(shipped, "server add", "ghost", "--", "no-such-command-anywhere")
    findings = said(shipped, "doctor", code=3)["findings"]
    assert [finding["check"] for finding in findings] == [
        "python", "sqlite", "folder", "filesystem", "room", "lock", "database", "backups",
        "copies", "secrets", "clock", "port", "service", "sandbox", "upstreams", "replica", "clients",
    ]  # fmt: skip
    fine = {finding["check"]: finding for finding in findings}
    assert fine["database"] == {
        "check": "database",
        "state": "ok",
        "message": f"current, {SHIPPED} migrations applied.",
        "hint": "",
    }
    assert fine["upstreams"] == {
        "check": "upstreams",
        "state": "problem",
        "message": "ghost: the command 'no-such-command-anywhere' is not found.",
        "hint": Like("Install it.*"),
    }
