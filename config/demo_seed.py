"""The demo seed: a profile `demo` with two real servers, one over stdio and one over HTTP.

Run by `db seed` and `db reset --seed`. Running it again changes nothing.
"""  # noqa: INP001  a seed is a file, not a module

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

SERVERS = (
    ("time", "stdio", sys.executable, ("-m", "mcp_server_time", "--local-timezone", "UTC"), None),
    ("notes", "http", None, (), "http://127.0.0.1:3002/mcp"),
)


def seed(connection: sqlite3.Connection) -> None:
    """Add what is not there yet; the caller's transaction makes it all or nothing."""
    now = time.time_ns() // 1_000_000
    connection.execute(
        "INSERT INTO profiles (id, name, description, created_at, updated_at)"
        " VALUES ('demo', 'demo', 'Two servers to try', ?, ?) ON CONFLICT (name) DO NOTHING",
        (now, now),
    )
    for position, (name, kind, command, args, url) in enumerate(SERVERS):
        connection.execute(
            "INSERT INTO mcp_servers (id, name, kind, command, args, url, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
            (f"demo-{name}", name, kind, command, json.dumps(args), url, now, now),
        )
        connection.execute(
            "INSERT INTO profile_mcp_servers (profile_id, mcp_server_id, position)"
            " SELECT p.id, s.id, ? FROM profiles p, mcp_servers s"
            " WHERE p.name = 'demo' AND s.name = ? ON CONFLICT DO NOTHING",
            (position, name),
        )
