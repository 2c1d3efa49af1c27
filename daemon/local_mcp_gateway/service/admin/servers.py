"""The `server` verbs: add, list, edit, remove, import and approve, in the daemon and offline.

Arguments and results are JSON values, because a command may send them over the control socket. Values of
environment and headers are sealed before they are stored, and shown as `[redacted]` unless the caller
asks for secrets.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import HIDDEN, redact_arguments, redact_url
from local_mcp_gateway.service.admin.client_files import read_entries
from local_mcp_gateway.service.admin.sign_in import save_own_client, sign_ins_as_json
from local_mcp_gateway.service.secrets import seal_new, seal_values
from local_mcp_gateway.store import (
    CatalogKind,
    Member,
    ProfileDefinition,
    Sandbox,
    ServerDefinition,
    ServerKind,
    Share,
    ToolSetting,
    cache,
    queries,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.service.admin.own_address import OwnAddress
    from local_mcp_gateway.service.secrets import Keyring


async def altered_tools(database: ConnectionPool, server_id: str) -> list[dict[str, Any]]:
    """Return each tool of a server that differs from its approved definition: before (null if new) and after."""
    return [
        {"tool": name, "approved": _read(before), "offered": parse_json(after)}
        for name, (before, after) in (await _altered(database, server_id)).items()
    ]


def _read(approved: str | None) -> Any:
    with suppress(ValueError):  # edited by hand: treat the catalog as unknown
        return parse_json(approved or "null")
    return None


async def approve_tools(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Approve tools as the server offers them now: the given ones, or all.

    `tools` maps a name to the definition that the person reviewed. Refuses a tool that has changed since,
    or that needs no approval.
    """
    name = arguments["name"]
    server = await queries.get_server(database, name)
    altered = await _altered(database, server.id)
    seen: dict[str, Any] = arguments["tools"]
    for tool, looked_at in seen.items():
        if tool not in altered:
            raise UsageProblem(
                f"The tool {tool!r} of server {name!r} is not waiting for an approval.",
                hint=f"See `server show {name}`.",
            )
        if parse_json(altered[tool][1]) != looked_at:
            raise UsageProblem(
                f"The tool {tool!r} of server {name!r} has changed once more.",
                hint=f"Look at it again: `server approve {name} {tool}`.",
            )
    approved = [(server.id, tool, altered[tool][1]) for tool in seen]
    await cache.save_catalogs(database, (), approved)
    return {"approved": list(seen)}


async def _altered(database: ConnectionPool, server_id: str) -> dict[str, tuple[str | None, str]]:
    from local_mcp_gateway.gateway import differs, remembered

    approved = (await cache.load_approved(database)).get(server_id, {})
    offered = await cache.get_catalog(database, server_id, CatalogKind.TOOLS)
    return {
        item.key: (approved.get(item.key), item.raw.decode())
        for item in remembered(CatalogKind.TOOLS, offered)
        if item.key not in approved or differs(approved[item.key].encode(), item.raw)
    }


async def add_server(
    database: ConnectionPool, arguments: dict[str, Any], keyring: Keyring, own: OwnAddress
) -> object:
    """Store a server and append it to a profile, which is created if missing."""
    profile, client = arguments.pop("profile", None), arguments.pop("client", None)
    given = server_from(arguments)
    own.require_other(given)
    (server,) = await seal_new(database, keyring, [given])
    added = await queries.add_server(database, server)
    if client:
        await save_own_client(database, keyring, added, client)
    if profile:
        await _join(database, profile, (added.name,))
    return server_as_json(added)


async def list_servers(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return every server with its profiles."""
    del arguments
    definitions = await queries.load_definitions(database)
    for _, problem in definitions.unreadable:
        raise problem
    sign_ins = await sign_ins_as_json(database, definitions.servers)
    return [
        {
            **server_as_json(server),
            "sign_in": sign_ins.get(server.name),
            "profiles": [
                profile.name
                for profile in definitions.profiles
                if any(member.server == server.name for member in profile.members)
            ],
        }
        for server in definitions.servers
    ]


async def show_server(
    database: ConnectionPool, arguments: dict[str, Any], keyring: Keyring
) -> object:
    """Return one server."""
    server = await queries.get_server(database, arguments["name"])
    if secrets := bool(arguments.get("secrets")):
        server = await anyio.to_thread.run_sync(keyring.open, server)
    shown = server_as_json(server, secrets=secrets)
    signed_in = (await sign_ins_as_json(database, (server,))).get(server.name)
    return {**shown, "sign_in": signed_in, "altered": await altered_tools(database, server.id)}


async def edit_server(
    database: ConnectionPool, arguments: dict[str, Any], keyring: Keyring, own: OwnAddress
) -> object:
    """Change the given fields. `env` and `headers` are merged; a null value removes an entry."""
    name, client = arguments.pop("name"), arguments.pop("client", None)
    old = await queries.get_server(database, name)
    new = _edited(old, await seal_values(database, keyring, old, arguments))
    if (new.url, new.command, new.args) != (old.url, old.command, old.args):
        own.require_other(new)
    await queries.update_server(database, name, new)
    changed = await queries.get_server(database, new.name)
    if client:
        await save_own_client(database, keyring, changed, client)
    return server_as_json(changed)


async def remove_server(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Remove one server from everywhere."""
    await queries.remove_server(database, arguments["name"])
    return {"removed": arguments["name"]}


async def import_servers(
    database: ConnectionPool, arguments: dict[str, Any], keyring: Keyring, own: OwnAddress
) -> object:
    """Store every new server of a client's file; tell what became of each.

    Such a document often lists this gateway itself: it is skipped, not refused. A sandbox is for those that are
    commands. With `dry_run` nothing is stored.
    """
    sandbox = _sandbox(arguments.get("sandbox"))
    entries = read_entries(arguments["document"])
    listed = [entry.server for entry in entries if entry.server is not None]
    found = [server for server in listed if not own.is_behind(server)]
    present = {server.name: server for server in await queries.list_servers(database)}
    new = [
        replace(server, sandbox=sandbox) if server.kind is ServerKind.STDIO else server
        for server in found
        if server.name not in present
    ]
    known = [server for server in found if server.name in present]
    if not arguments.get("dry_run"):
        for server in await seal_new(database, keyring, new):
            await queries.add_server(database, server)
        if arguments.get("profile") and found:
            await _join(database, arguments["profile"], tuple(server.name for server in found))
            hidden = {entry.server.name: entry.hidden_tools for entry in entries if entry.server}
            for server in new:
                for tool in hidden[server.name]:
                    setting = ToolSetting(server.name, tool, enabled=False)
                    await queries.set_tool(database, arguments["profile"], setting)
    return {
        "added": [server.name for server in new],
        "kept": [server.name for server in known],
        "differs": [s.name for s in known if s.program != present[s.name].program],
        "this_gateway": [server.name for server in listed if own.is_behind(server)],
        "refused": {entry.name: entry.reason for entry in entries if entry.reason},
        "notes": {e.server.name: list(e.notes) for e in entries if e.server and e.notes},
        "profile": arguments.get("profile"),
    }


def server_from(values: Mapping[str, Any]) -> ServerDefinition:
    """Return the definition given on the command line or in a document."""
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
        share=Share(values.get("share") or Share.AUTO),
        max_clients=values.get("max_clients"),
        idle_stop_s=values.get("idle_stop_s"),
        timeout_s=values.get("timeout_s"),
        proxy=values.get("proxy"),
        ca=values.get("ca"),
        insecure=bool(values.get("insecure")),
        client_headers=tuple(values.get("client_headers") or ()),
        trust_annotations=bool(values.get("trust_annotations")),
        sandbox=_sandbox(values.get("sandbox")),
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
        "args": list(server.args) if secrets else redact_arguments(server.args),
        "env": shown(server.env),
        "cwd": server.cwd,
        "url": server.url if secrets else server.url and redact_url(server.url),
        "headers": shown(server.headers),
        "share": server.share.value,
        "max_clients": server.max_clients,
        "idle_stop_s": server.idle_stop_s,
        "timeout_s": server.timeout_s,
        "proxy": server.proxy if secrets else server.proxy and redact_url(server.proxy),
        "ca": server.ca,
        "insecure": server.insecure,
        "client_headers": list(server.client_headers),
        "trust_annotations": server.trust_annotations,
        "sandbox": None if server.sandbox is None else _shown(server.sandbox),
    }


def _sandbox(given: Mapping[str, Any] | None) -> Sandbox | None:
    """Return the sandbox that is given; the machine has to be able to make one."""
    if given is None:
        return None
    from local_mcp_gateway.gateway import NoSandbox, sandbox_gaps

    try:
        sandbox_gaps()
    except NoSandbox as problem:
        raise UsageProblem(
            f"There can be no sandbox on this machine: {problem}.",
            hint="Leave out --sandbox, or run the command in a container.",
        ) from None
    for path in given["write"]:
        if not Path(path).is_absolute():
            raise UsageProblem(
                f"{path!r} is not a full path.", hint="A sandbox names the folders by full paths."
            )
        if not Path(path).exists():
            raise UsageProblem(
                f"{path!r} does not exist, so a sandbox cannot let it be written.",
                hint="Make the folder first.",
            )
    return Sandbox(tuple(given["write"]), given["network"])


def _shown(sandbox: Sandbox) -> dict[str, object]:
    return {"write": list(sandbox.write), "network": sandbox.network}


async def _join(database: ConnectionPool, profile: str, servers: tuple[str, ...]) -> None:
    """Append servers to a profile, which is created if missing."""
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
        share=Share(changes.get("share") or old.share),
        max_clients=changes.get("max_clients", old.max_clients),
        idle_stop_s=changes.get("idle_stop_s", old.idle_stop_s),
        timeout_s=changes.get("timeout_s", old.timeout_s),
        proxy=changes.get("proxy", old.proxy),
        ca=changes.get("ca", old.ca),
        insecure=bool(changes.get("insecure", old.insecure)),
        client_headers=tuple(changes.get("client_headers", old.client_headers)),
        trust_annotations=bool(changes.get("trust_annotations", old.trust_annotations)),
        sandbox=_sandbox(changes["sandbox"]) if "sandbox" in changes else old.sandbox,
        env=_merged(old.env, changes.get("env", {})),
        headers=_merged(old.headers, changes.get("headers", {})),
    )
    if changes.get("url"):
        kind = ServerKind(changes.get("kind") or (old.kind if old.url else ServerKind.HTTP))
        return replace(
            new,
            kind=kind,
            url=changes["url"],
            command=None,
            args=(),
            env={},
            cwd=None,
            sandbox=None,
        )
    if changes.get("command") or "args" in changes:
        command = changes.get("command") or old.command
        args = tuple(changes.get("args", ()))
        local = replace(new, proxy=None, ca=None, insecure=False, client_headers=())
        return replace(
            local, kind=ServerKind.STDIO, command=command, args=args, url=None, headers={}
        )
    return new


def _merged(old: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in {**old, **changes}.items() if value is not None}
