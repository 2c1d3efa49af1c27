"""What the `server` commands do, inside the daemon and without one.

Arguments and results are JSON values, since a command may ask over the control socket. Values of
environment and headers are sealed before they are stored, and shown as `[redacted]` unless the caller
asks for them by name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.log.redact import HIDDEN
from local_mcp_gateway.service.admin.approving import altered_tools
from local_mcp_gateway.service.admin.mcp_servers import definitions_in
from local_mcp_gateway.service.secrets.sealing import seal_new, seal_values
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import Member, ProfileDefinition, ServerDefinition, ServerKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.database.pool import ConnectionPool
    from local_mcp_gateway.service.secrets.vault import Vault


async def add_server(database: ConnectionPool, arguments: dict[str, Any], vault: Vault) -> object:
    """Store a server, and put it last into a profile (which is made if it is not there)."""
    profile = arguments.pop("profile", None)
    (server,) = await seal_new(database, vault, [server_from(arguments)])
    added = await queries.add_server(database, server)
    if profile:
        await _join(database, profile, (added.name,))
    return server_as_json(added)


async def list_servers(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return every server, with the profiles that it is in."""
    del arguments
    definitions = await queries.load_definitions(database)
    for _, problem in definitions.unreadable:
        raise problem
    return [
        {
            **server_as_json(server),
            "profiles": [
                profile.name
                for profile in definitions.profiles
                if any(member.server == server.name for member in profile.members)
            ],
        }
        for server in definitions.servers
    ]


async def show_server(database: ConnectionPool, arguments: dict[str, Any], vault: Vault) -> object:
    """Return one server."""
    server = await queries.get_server(database, arguments["name"])
    if secrets := bool(arguments.get("secrets")):
        server = await anyio.to_thread.run_sync(vault.open, server)
    shown = server_as_json(server, secrets=secrets)
    return {**shown, "altered": await altered_tools(database, server.id)}


async def edit_server(database: ConnectionPool, arguments: dict[str, Any], vault: Vault) -> object:
    """Change what is given; `env` and `headers` are merged, a null value takes one out."""
    name = arguments.pop("name")
    old = await queries.get_server(database, name)
    new = _edited(old, await seal_values(database, vault, old, arguments))
    await queries.update_server(database, name, new)
    return server_as_json(await queries.get_server(database, new.name))


async def remove_server(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Remove one server from everywhere."""
    await queries.remove_server(database, arguments["name"])
    return {"removed": arguments["name"]}


async def import_servers(
    database: ConnectionPool, arguments: dict[str, Any], vault: Vault
) -> object:
    """Store every server of an `mcpServers` document that is not there yet; name what was left out."""
    found = definitions_in(arguments["document"])
    present = {server.name for server in await queries.list_servers(database)}
    new = [server for server in found if server.name not in present]
    for server in new:
        server.checked()
    for server in await seal_new(database, vault, new):
        await queries.add_server(database, server)
    if arguments.get("profile"):
        await _join(database, arguments["profile"], tuple(server.name for server in found))
    return {
        "added": [server.name for server in new],
        "kept": [server.name for server in found if server.name in present],
        "profile": arguments.get("profile"),
    }


def server_from(values: Mapping[str, Any]) -> ServerDefinition:
    """Return the definition that the command line or a document describes."""
    return ServerDefinition(
        name=values["name"],
        kind=ServerKind(values.get("kind") or ("http" if values.get("url") else "stdio")),
        command=values.get("command"),
        args=tuple(values.get("args") or ()),
        env=_merged({}, values.get("env") or {}),
        cwd=values.get("cwd"),
        url=values.get("url"),
        headers=_merged({}, values.get("headers") or {}),
        active=values.get("active", True),
    )


def server_as_json(server: ServerDefinition, *, secrets: bool = False) -> dict[str, object]:
    """Return a server as `server show --json` prints it."""

    def shown(values: Mapping[str, str]) -> dict[str, str]:
        return dict(values) if secrets else dict.fromkeys(values, HIDDEN)

    return {
        "name": server.name,
        "kind": server.kind.value,
        "active": server.active,
        "command": server.command,
        "args": list(server.args),
        "env": shown(server.env),
        "cwd": server.cwd,
        "url": server.url,
        "headers": shown(server.headers),
    }


async def _join(database: ConnectionPool, profile: str, servers: tuple[str, ...]) -> None:
    """Put servers last into a profile, which is made if it is not there."""
    present = {known.name: known for known in await queries.list_profiles(database)}
    if profile not in present:
        new = ProfileDefinition(name=profile, members=tuple(Member(name) for name in servers))
        await queries.add_profile(database, new)
        return
    old = present[profile]
    names = {member.server for member in old.members}
    added = tuple(Member(name) for name in servers if name not in names)
    await queries.update_profile(database, profile, replace(old, members=old.members + added))


def _edited(old: ServerDefinition, changes: Mapping[str, Any]) -> ServerDefinition:
    over_http = bool(changes.get("url") or (old.url and not changes.get("command")))
    for key in ("env", "cwd") if over_http else ("headers",):
        if changes.get(key):
            raise UsageProblem(
                f"The server {old.name!r} is {'a URL' if over_http else 'a command'} and has no {key}.",
                hint="A command has environment and folder, a URL has headers.",
            )
    new = replace(
        old,
        name=changes.get("rename") or old.name,
        cwd=changes.get("cwd") or old.cwd,
        active=changes.get("active", old.active),
        env=_merged(old.env, changes.get("env", {})),
        headers=_merged(old.headers, changes.get("headers", {})),
    )
    if changes.get("url"):
        kind = ServerKind(changes.get("kind") or (old.kind if old.url else ServerKind.HTTP))
        return replace(new, kind=kind, url=changes["url"], command=None, args=(), env={}, cwd=None)
    if changes.get("command") or "args" in changes:
        command = changes.get("command") or old.command
        args = tuple(changes.get("args", ()))
        return replace(new, kind=ServerKind.STDIO, command=command, args=args, url=None, headers={})
    return new


def _merged(old: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in {**old, **changes}.items() if value is not None}
