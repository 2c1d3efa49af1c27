"""Read and write servers and profiles. Portable SQL; every write is one transaction."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.store.model import (
    KEPT_NAMES,
    POLICY_COLUMNS,
    Definitions,
    Member,
    Prefix,
    ProfileDefinition,
    Sandbox,
    ServerDefinition,
    ServerKind,
    Share,
    ToolSetting,
    check_name,
    columns_of_policy,
    policy_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local_mcp_gateway.database import ConnectionPool, Row, Transaction


Texts = TypeVar("Texts", list[Any], dict[str, Any])
_OF_PROGRAM = (
    *("mcp_server_catalog_cache", "approved_tools"),
    *("oauth_tokens", "oauth_client_registrations"),
)
"""Tables with what is known of a server as long as it is the same program or URL."""


def columns_of(server: ServerDefinition) -> tuple[object, ...]:
    """Return the columns of a server's row except id and times."""
    return (
        server.name,
        server.kind.value,
        server.command,
        json.dumps(server.args),
        json.dumps(dict(server.env)),
        server.cwd,
        server.url,
        json.dumps(dict(server.headers)),
        int(server.active),
        server.share.value,
        server.max_clients,
        server.idle_stop_s,
        server.timeout_s,
        server.proxy,
        server.ca,
        int(server.insecure),
        json.dumps(server.client_headers),
        int(server.trust_annotations),
        None if server.sandbox is None else json.dumps(asdict(server.sandbox)),
    )


def server_in(row: Row) -> ServerDefinition:
    """Return the server of a row. Raises UsageProblem if the row was edited into something invalid."""
    return ServerDefinition(
        id=row["id"],
        name=row["name"],
        kind=ServerKind(row["kind"]),
        command=row["command"],
        args=tuple(_texts(row, "args", list)),
        env=_texts(row, "env", dict),
        cwd=row["cwd"],
        url=row["url"],
        headers=_texts(row, "headers", dict),
        active=bool(row["active"]),
        share=Share(row["share"]),
        max_clients=row["max_clients"],
        idle_stop_s=row["idle_stop_s"],
        timeout_s=row["timeout_s"],
        proxy=row["proxy"],
        ca=row["ca"],
        insecure=bool(row["insecure"]),
        client_headers=tuple(_texts(row, "client_headers", list)),
        trust_annotations=bool(row["trust_annotations"]),
        sandbox=_sandbox(row),
    )


def _sandbox(row: Row) -> Sandbox | None:
    """Return the sandbox of a server; one that was edited into something else is an error, not none."""
    if row["sandbox"] is None:
        return None
    with suppress(ValueError, TypeError, KeyError):
        value = parse_json(row["sandbox"])
        write, network = value["write"], value["network"]
        paths = isinstance(write, list) and all(isinstance(path, str) for path in write)
        if paths and isinstance(network, bool):
            return Sandbox(tuple(write), network)
    raise UsageProblem(
        f"The server {row['name']!r} cannot be read: sandbox of its row in mcp_servers is not one.",
        hint=f"Correct the row, or remove it with `server remove {row['name']}`.",
    )


def _texts(row: Row, column: str, shape: type[Texts]) -> Texts:
    with suppress(ValueError, TypeError):  # not JSON, or not text
        value = parse_json(row[column])
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, shape) and all(isinstance(text, str) for text in inside):
            return value
    name = row["name"]
    what = {list: "list", dict: "object"}[shape]
    raise UsageProblem(
        f"The server {name!r} cannot be read: {column} of its row in mcp_servers is not a JSON {what} of texts.",
        hint=f"Correct the row, or remove it with `server remove {name}`.",
    )


def profile_in(row: Row, members: list[Row], tools: list[Row]) -> ProfileDefinition:
    """Return the profile of a row, selecting its members and tools from all."""
    return ProfileDefinition(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        prefix=Prefix(row["prefix"]),
        members=tuple(
            Member(member["name"], bool(member["active"]))
            for member in members
            if member["profile_id"] == row["id"]
        ),
        tools=tuple(
            ToolSetting(
                tool["name"],
                tool["tool_name"],
                bool(tool["enabled"]),
                tool["custom_name"],
                tool["custom_description"],
            )
            for tool in tools
            if tool["profile_id"] == row["id"]
        ),
        policy=policy_in(row),
    )


def new_id() -> str:
    """Return an unused id for a server or a profile."""
    return secrets.token_hex(8)


async def load_definitions(database: ConnectionPool) -> Definitions:
    """Return every server and every profile with its members, in order; report rows that are not valid servers."""
    servers, unreadable = [], []
    for row in await _server_rows(database):
        try:
            servers.append(server_in(row))
        except UsageProblem as problem:
            unreadable.append((row["name"], problem))
    return Definitions(tuple(servers), await list_profiles(database), tuple(unreadable))


async def list_servers(database: ConnectionPool) -> tuple[ServerDefinition, ...]:
    """Return every server, by name."""
    return tuple(server_in(row) for row in await _server_rows(database))


async def _server_rows(database: ConnectionPool) -> list[Row]:
    return await database.fetch_all("SELECT * FROM mcp_servers ORDER BY name")


async def get_server(database: ConnectionPool, name: str) -> ServerDefinition:
    """Return the server with that name."""
    row = await database.fetch_one("SELECT * FROM mcp_servers WHERE name = ?", (name,))
    if row is None:
        raise UsageProblem(f"There is no server {name!r}.", hint="See `server list`.")
    return server_in(row)


async def add_server(database: ConnectionPool, server: ServerDefinition) -> ServerDefinition:
    """Store a new server, keeping its id if it has one."""
    server.checked()
    now, identity = now_ms(), server.id or new_id()
    async with database.transaction() as writer:
        if await _exists(writer, "mcp_servers", server.name):
            raise UsageProblem(
                f"There is a server {server.name!r} already.",
                hint="Choose another name, or change it with `server edit`.",
            )
        await writer.execute(
            "INSERT INTO mcp_servers (id, name, kind, command, args, env, cwd, url, headers, active,"
            " share, max_clients, idle_stop_s, timeout_s, proxy, ca, insecure, client_headers,"
            " trust_annotations, sandbox, created_at, updated_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (identity, *columns_of(server), now, now),
        )
    return await get_server(database, server.name)


async def update_server(database: ConnectionPool, name: str, server: ServerDefinition) -> None:
    """Replace the server stored under `name`; it keeps its id and its places in profiles.

    If its program changes, its cached and approved lists are deleted, and so is its sign-in.
    """
    server.checked()
    old = await get_server(database, name)
    async with database.transaction() as writer:
        if server.name != name and await _exists(writer, "mcp_servers", server.name):
            raise UsageProblem(
                f"There is a server {server.name!r} already.", hint="Choose another name."
            )
        changed = await writer.execute(
            "UPDATE mcp_servers SET name = ?, kind = ?, command = ?, args = ?, env = ?, cwd = ?,"
            " url = ?, headers = ?, active = ?, share = ?, max_clients = ?, idle_stop_s = ?,"
            " timeout_s = ?, proxy = ?, ca = ?, insecure = ?, client_headers = ?,"
            " trust_annotations = ?, sandbox = ?, updated_at = ? WHERE name = ?",
            (*columns_of(server), now_ms(), name),
        )
        _require(changed, "server", name)
        if server.program != old.program:
            for table in _OF_PROGRAM:
                await writer.execute(f"DELETE FROM {table} WHERE mcp_server_id = ?", (old.id,))


async def set_values(database: ConnectionPool, server: ServerDefinition) -> None:
    """Replace stored values of environment and headers by equivalent ones, such as sealed ones."""
    async with database.transaction() as writer:
        await writer.execute(
            "UPDATE mcp_servers SET env = ?, headers = ? WHERE id = ?",
            (json.dumps(dict(server.env)), json.dumps(dict(server.headers)), server.id),
        )


async def remove_server(database: ConnectionPool, name: str) -> None:
    """Delete a server, its places in profiles, its cached catalog and its tokens."""
    async with database.transaction() as writer:
        changed = await writer.execute("DELETE FROM mcp_servers WHERE name = ?", (name,))
        _require(changed, "server", name)


async def list_profiles(database: ConnectionPool) -> tuple[ProfileDefinition, ...]:
    """Return every profile by name, with its members in order and its tool settings."""
    profiles = await database.fetch_all("SELECT * FROM profiles ORDER BY name")
    members = await database.fetch_all(
        "SELECT m.profile_id, s.name, m.active FROM profile_mcp_servers m"
        " JOIN mcp_servers s ON s.id = m.mcp_server_id ORDER BY m.profile_id, m.position, s.name"
    )
    tools = await database.fetch_all(
        "SELECT t.*, s.name FROM profile_mcp_server_tools t"
        " JOIN mcp_servers s ON s.id = t.mcp_server_id ORDER BY s.name, t.tool_name"
    )
    return tuple(profile_in(row, members, tools) for row in profiles)


async def get_profile(database: ConnectionPool, name: str) -> ProfileDefinition:
    """Return the profile with that name."""
    profiles = {profile.name: profile for profile in await list_profiles(database)}
    if name not in profiles:
        raise unknown_profile(name, profiles)
    return profiles[name]


def unknown_profile(name: str, known: Iterable[str]) -> UsageProblem:
    """Return the error for a profile that does not exist; it names those that do."""
    there = ", ".join(known)
    return UsageProblem(
        f"There is no profile {name!r}; there is {there}." if there
        else f"There is no profile {name!r}, and no other.",
        hint="Give another name." if there else "`profile add NAME SERVER…` makes one.",
    )  # fmt: skip


async def add_profile(database: ConnectionPool, profile: ProfileDefinition) -> ProfileDefinition:
    """Store a new profile with its members."""
    check_name("profile", profile.name)
    now, identity = now_ms(), new_id()
    async with database.transaction() as writer:
        if await _exists(writer, "profiles", profile.name):
            raise UsageProblem(
                f"There is a profile {profile.name!r} already.",
                hint="Choose another name, or change it with `profile edit`.",
            )
        await writer.execute(
            "INSERT INTO profiles (id, name, description, prefix, created_at, updated_at,"
            f" {POLICY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(identity, profile.name, profile.description, profile.prefix, now, now),
                *columns_of_policy(profile.policy.checked()),
            ),
        )
        await _set_members(writer, profile.name, profile.members)
    return await get_profile(database, profile.name)


async def update_profile(database: ConnectionPool, name: str, profile: ProfileDefinition) -> None:
    """Replace name, description, prefix policy and members; kept members keep their tool settings."""
    check_name("profile", profile.name)
    async with database.transaction() as writer:
        if profile.name != name and await _exists(writer, "profiles", profile.name):
            raise UsageProblem(
                f"There is a profile {profile.name!r} already.",
                hint="Choose another name, or change it with `profile edit`.",
            )
        changed = await writer.execute(
            "UPDATE profiles SET name = ?, description = ?, prefix = ?, updated_at = ?,"
            f" ({POLICY_COLUMNS}) = (?, ?, ?, ?, ?) WHERE name = ?",
            (
                *(profile.name, profile.description, profile.prefix, now_ms()),
                *(*columns_of_policy(profile.policy.checked()), name),
            ),
        )
        _require(changed, "profile", name)
        await _set_members(writer, profile.name, profile.members)


async def remove_profile(database: ConnectionPool, name: str) -> None:
    """Delete a profile and its cached names; its servers stay."""
    async with database.transaction() as writer:
        changed = await writer.execute("DELETE FROM profiles WHERE name = ?", (name,))
        _require(changed, "profile", name)
        await writer.execute(
            f"DELETE FROM gateway_settings WHERE key LIKE '{KEPT_NAMES}%'"
            f" AND key NOT IN (SELECT '{KEPT_NAMES}' || id FROM profiles)"
        )


async def set_tool(database: ConnectionPool, profile: str, setting: ToolSetting) -> None:
    """Hide, rename or redescribe one tool of one server in one profile."""
    shown = (setting.tool, int(setting.enabled), setting.name, setting.description)
    async with database.transaction() as writer:
        changed = await writer.execute(
            "INSERT INTO profile_mcp_server_tools (profile_id, mcp_server_id, tool_name, enabled,"
            " custom_name, custom_description, updated_at)"
            " SELECT m.profile_id, m.mcp_server_id, ?, ?, ?, ?, ? FROM profile_mcp_servers m"
            " JOIN profiles p ON p.id = m.profile_id JOIN mcp_servers s ON s.id = m.mcp_server_id"
            " WHERE p.name = ? AND s.name = ?"
            " ON CONFLICT (profile_id, mcp_server_id, tool_name) DO UPDATE SET"
            " enabled = excluded.enabled, custom_name = excluded.custom_name,"
            " custom_description = excluded.custom_description, updated_at = excluded.updated_at",
            (*shown, now_ms(), profile, setting.server),
        )
        if changed < 1:
            raise UsageProblem(
                f"Profile {profile!r} has no server {setting.server!r}.",
                hint=f"See `profile show {profile}`.",
            )


async def reset_tool(database: ConnectionPool, profile: str, server: str, tool: str) -> None:
    """Show one tool of one server unchanged again in one profile."""
    async with database.transaction() as writer:
        await writer.execute(
            "DELETE FROM profile_mcp_server_tools WHERE tool_name = ?"
            " AND profile_id = (SELECT id FROM profiles WHERE name = ?)"
            " AND mcp_server_id = (SELECT id FROM mcp_servers WHERE name = ?)",
            (tool, profile, server),
        )


async def _set_members(writer: Transaction, profile: str, members: tuple[Member, ...]) -> None:
    """Make `members` the profile's servers, in this order, without touching rows that stay."""
    marks = ", ".join("?" * len(members))
    await writer.execute(
        "DELETE FROM profile_mcp_servers WHERE profile_id = (SELECT id FROM profiles WHERE name = ?)"
        f" AND mcp_server_id NOT IN (SELECT id FROM mcp_servers WHERE name IN ({marks}))",
        (profile, *(member.server for member in members)),
    )
    for position, member in enumerate(members):
        changed = await writer.execute(
            "INSERT INTO profile_mcp_servers (profile_id, mcp_server_id, position, active)"
            " SELECT p.id, s.id, ?, ? FROM profiles p, mcp_servers s WHERE p.name = ? AND s.name = ?"
            " ON CONFLICT (profile_id, mcp_server_id) DO UPDATE SET"
            " position = excluded.position, active = excluded.active",
            (position, int(member.active), profile, member.server),
        )
        _require(changed, "server", member.server)


async def _exists(writer: Transaction, table: str, name: str) -> bool:
    found = await writer.fetch_one(f"SELECT 1 FROM {table} WHERE name = ?", (name,))
    return found is not None


def _require(changed: int, what: str, name: str) -> None:
    if changed < 1:
        raise UsageProblem(f"There is no {what} {name!r}.", hint=f"See `{what} list`.")
