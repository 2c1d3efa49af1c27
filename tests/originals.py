"""Databases as the versions of the original local-mcp-gateway left them, with made-up people's rows."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.harness import REPOSITORY

STATES = ("A", "B", "C", "D", "E", "E2")
"""Its schemas, oldest first; E2 has E's, with the examples of its last versions."""
STEPS = (
    "001_initial_schema",
    "002_add_oauth_support",
    "003_add_monetization",
    "004_migrate_to_better_auth",
    "005_add_tool_customizations",
)
PRISMA = ("20260112154021_init", "20260116110819_add_gateway_settings")
PLAIN = [str(REPOSITORY / "tests" / "gateway" / "servers" / "plain.py")]
SECRETS = ("plain-api-key", "plain-env", "plain-access", "plain-refresh", "plain-client")
MS = 1_768_901_400_123
ISO = "2026-01-20T09:30:00.123+00:00"

_SERVER = "REFERENCES mcp_servers(id) ON DELETE CASCADE"
_PROFILE = "REFERENCES profiles(id) ON DELETE CASCADE"
_TIMES = "created_at {time} NOT NULL, updated_at {time} NOT NULL"
_TABLES = {
    "profiles": f"id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT, {_TIMES}",
    "mcp_servers": "id TEXT PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, config TEXT NOT NULL,"
    f" oauth_config TEXT, api_key_config TEXT, {_TIMES}",
    "profile_mcp_servers": f"{{link}}profile_id TEXT NOT NULL {_PROFILE}, mcp_server_id TEXT NOT NULL {_SERVER},"
    ' "order" INTEGER NOT NULL DEFAULT 0{active}{link_key}',
    "profile_mcp_server_tools": f"id TEXT PRIMARY KEY, {{tool_of}}, tool_name TEXT NOT NULL,"
    f" is_enabled INTEGER NOT NULL DEFAULT 1, custom_name TEXT, custom_description TEXT,"
    f" custom_input_schema TEXT, {_TIMES}",
    "oauth_tokens": f"id TEXT PRIMARY KEY, mcp_server_id TEXT NOT NULL {_SERVER}, access_token TEXT NOT NULL,"
    f" refresh_token TEXT, token_type TEXT NOT NULL, expires_at {{time}}, scope TEXT, {_TIMES}",
    "oauth_client_registrations": f"id TEXT PRIMARY KEY, mcp_server_id TEXT NOT NULL {_SERVER},"
    " authorization_server_url TEXT NOT NULL, client_id TEXT NOT NULL, client_secret TEXT,"
    f" registration_access_token TEXT, {_TIMES}",
    "debug_logs": f"id TEXT PRIMARY KEY, profile_id TEXT {_PROFILE},"
    " mcp_server_id TEXT REFERENCES mcp_servers(id) ON DELETE SET NULL, request_type TEXT NOT NULL,"
    " request_payload TEXT NOT NULL, response_payload TEXT, status TEXT NOT NULL, error_message TEXT,"
    " duration_ms INTEGER, created_at {time} NOT NULL",
    "migrations": "id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, executed_at {time} NOT NULL",
}
_LEDGER = (
    "id TEXT PRIMARY KEY, checksum TEXT NOT NULL, finished_at DATETIME, migration_name TEXT NOT NULL,"
    " logs TEXT, rolled_back_at DATETIME, started_at DATETIME NOT NULL, applied_steps_count INTEGER"
)
_SETTINGS = f"id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, {_TIMES}"
_OLD_TOOL = f"profile_id TEXT NOT NULL {_PROFILE}, mcp_server_id TEXT NOT NULL {_SERVER}"
_NEW_TOOL = (
    "profile_mcp_server_id TEXT NOT NULL REFERENCES profile_mcp_servers(id) ON DELETE CASCADE"
)

PROFILES = {"p1": "default", "p2": "work desk", "p3": "work/desk"}
SERVERS: dict[str, tuple[str, str, Any, Any, Any]] = {
    "s1": ("Notes", "external", {"command": sys.executable, "args": PLAIN, "env": {"KEY": SECRETS[1]}, "autoRestart": True}, None, None),
    "s2": ("Notes", "remote_http", {"url": "https://notes.example/mcp"}, {"apiKey": SECRETS[0], "headerName": "X-Key", "headerValue": "{apiKey}"}, "null"),
    "s3": ("Tickets", "remote_sse", {"url": "https://tickets.example/sse"}, None, {"authorizationServerUrl": "https://by-hand.example", "clientId": "by-hand", "clientSecret": SECRETS[4]}),
    "s4": ("Own module", "custom", {"modulePath": "./own"}, None, None),
    "s5": ("Twice", "streamable-http", json.dumps({"url": "https://twice.example/mcp"}), None, None),
    "s6": ("Broken", "remote_http", "{no json", None, None),
    "s7": ("Memory MCP", "external", {"command": "npx"}, None, None),
}  # fmt: skip
"""Name, type, configuration, API key and OAuth of each; `s7` only in E2, and in no profile."""


def make_original(state: str, file: Path) -> Path:
    """Make the file; the rows are the same in each state, as far as it has columns for them."""
    prisma = state in ("D", "E", "E2")
    linked = state not in ("A", "B")
    words = {
        "time": "DATETIME" if linked else "INTEGER",
        "link": "id TEXT PRIMARY KEY, " if linked else "",
        "link_key": "" if linked else ", PRIMARY KEY (profile_id, mcp_server_id)",
        "active": "" if state == "A" else ", is_active INTEGER NOT NULL DEFAULT 1",
        "tool_of": _NEW_TOOL if linked else _OLD_TOOL,
    }
    tables = dict(_TABLES)
    if state == "A":
        del tables["profile_mcp_server_tools"]
    if prisma:
        tables["_prisma_migrations"] = _LEDGER
    if state in ("E", "E2"):
        tables["gateway_settings"] = _SETTINGS
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        if not linked:
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("BEGIN")
        for name, columns in tables.items():
            for word, text in words.items():
                columns = columns.replace(f"{{{word}}}", text)  # noqa: PLW2901
            database.execute(f"CREATE TABLE {name} ({columns})")
        _fill(database, state, time=ISO if prisma else MS)
        database.execute("COMMIT")
    return file


def _fill(database: sqlite3.Connection, state: str, *, time: int | str) -> None:
    known = {
        table: {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        for (table,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    }

    def add(table: str, **values: object) -> None:
        values = {"id": values.get("tool_name"), "created_at": time, "updated_at": time, **values}
        row = {
            key: json.dumps(value) if isinstance(value, dict) else value
            for key, value in values.items()
            if key in known.get(table, ())
        }
        if row:
            marks = ", ".join("?" * len(row))
            columns = ", ".join(f'"{key}"' for key in row)
            database.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", (*row.values(),))

    for name in STEPS[: {"A": 2, "B": 5}.get(state, 0)]:
        add("migrations", id=name, name=name, executed_at=time)
    for name in PRISMA[: {"D": 1}.get(state, 2)]:
        add("_prisma_migrations", id=name, checksum="0" * 64, migration_name=name, started_at=time, finished_at=time)  # fmt: skip
    for key, name in PROFILES.items():
        add("profiles", id=key, name=name)
    for key, (name, kind, config, api_key, oauth) in SERVERS.items():
        if key != "s7" or state == "E2":
            add("mcp_servers", id=key, name=name, type=kind, config=json.dumps(config) if key == "s5" else config, api_key_config=api_key, oauth_config=oauth)  # fmt: skip
    for at, key in enumerate(("s3", "s1", "s2", "s4", "s6", "gone")):
        add("profile_mcp_servers", id=f"l{at}", profile_id="p2", mcp_server_id=key, order=at, is_active=int(key != "s2"))  # fmt: skip
    add("profile_mcp_servers", id="l9", profile_id="p1", mcp_server_id="s1", order=0, is_active=1)
    of = {"profile_mcp_server_id": "l1", "profile_id": "p2", "mcp_server_id": "s1"}
    add("profile_mcp_server_tools", tool_name="add", is_enabled=0, **of)
    add("profile_mcp_server_tools", tool_name="echo", custom_name="say", custom_description="Says it.", custom_input_schema="{}", **of)  # fmt: skip
    add("oauth_tokens", id="t1", mcp_server_id="s3", access_token=SECRETS[2], refresh_token=SECRETS[3], token_type="Bearer", expires_at=time, scope="read")  # fmt: skip
    add("oauth_client_registrations", id="r1", mcp_server_id="s3", authorization_server_url="https://login.example", client_id="registered", client_secret=SECRETS[4])  # fmt: skip
    for at, (status, error) in enumerate({"success": None, "error": "It failed.", "pending": None}.items()):  # fmt: skip
        add("debug_logs", id=f"g{at}", profile_id="p2", mcp_server_id="s1", request_type="tools/call", request_payload="{}", status=status, error_message=error, duration_ms=12)  # fmt: skip
    add("gateway_settings", id="g", key="default_gateway_profile", value="work desk")
