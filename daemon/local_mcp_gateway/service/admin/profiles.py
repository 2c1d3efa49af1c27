"""The `profile` verbs: which servers a client sees, in which order, and how their tools are shown."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store import (
    CatalogKind,
    Member,
    Policy,
    Prefix,
    ProfileDefinition,
    ToolSetting,
    cache,
    queries,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.database import ConnectionPool

TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


async def add_profile(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Store a profile."""
    profile = ProfileDefinition(
        name=arguments["name"],
        description=arguments.get("description"),
        prefix=Prefix(arguments.get("prefix") or Prefix.AUTO),
        members=tuple(Member(server) for server in arguments.get("servers", ())),
        policy=changed_policy(Policy(), arguments.get("policy")),
    )
    return profile_as_json(await queries.add_profile(database, profile))


async def list_profiles(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return every profile."""
    del arguments
    return [profile_as_json(profile) for profile in await queries.list_profiles(database)]


async def show_profile(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return one profile."""
    return profile_as_json(await queries.get_profile(database, arguments["name"]))


async def edit_profile(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Rename or describe a profile; add, remove and move its servers, switch them on and off."""
    old = await queries.get_profile(database, arguments["name"])
    out = set(arguments.get("remove", ()))
    off, on = set(arguments.get("disable", ())), set(arguments.get("enable", ()))
    first = tuple(arguments.get("first", ()))
    _require_members(old, out | off | on | set(first))
    members = [member for member in old.members if member.server not in out]
    names = [member.server for member in members]
    members += [Member(name) for name in arguments.get("add", ()) if name not in names]
    place = {name: at for at, name in enumerate(first)}
    members.sort(key=lambda member: place.get(member.server, len(first)))
    new = replace(
        old,
        name=arguments.get("rename") or old.name,
        description=arguments.get("description") or old.description,
        prefix=Prefix(arguments.get("prefix") or old.prefix),
        members=tuple(
            replace(
                member, active=member.server in on or (member.active and member.server not in off)
            )
            for member in members
        ),
        policy=changed_policy(old.policy, arguments.get("policy")),
    )
    await queries.update_profile(database, old.name, new)
    return profile_as_json(await queries.get_profile(database, new.name))


async def remove_profile(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Remove one profile; its servers stay."""
    await queries.remove_profile(database, arguments["name"])
    return {"removed": arguments["name"]}


async def set_tool(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Hide, rename or redescribe one tool in one profile, or `reset` it; what is not given stays."""
    name, server, tool = arguments["name"], arguments["server"], arguments["tool"]
    profile = await queries.get_profile(database, name)
    _require_members(profile, {server})
    await _require_tool(database, server, tool)
    if arguments.get("reset"):
        await queries.reset_tool(database, name, server, tool)
        return profile_as_json(await queries.get_profile(database, name))
    new_name = arguments.get("rename")
    if new_name is not None and not TOOL_NAME.fullmatch(new_name):
        raise UsageProblem(
            f"{new_name!r} cannot be the name of a tool.",
            hint="Use up to 128 letters, digits, dots, dashes and underscores.",
        )
    if new_name is not None:
        await _require_free(database, profile, new_name, server, tool)
    known = {(setting.server, setting.tool): setting for setting in profile.tools}
    old = known.get((server, tool), ToolSetting(server, tool))
    enabled, description = arguments.get("enabled"), arguments.get("description")
    new = replace(
        old,
        enabled=old.enabled if enabled is None else enabled,
        name=new_name or old.name,
        description=old.description if description is None else description,
    )
    await queries.set_tool(database, name, new)
    return profile_as_json(await queries.get_profile(database, name))


def profile_as_json(profile: ProfileDefinition) -> dict[str, object]:
    """Return a profile as `profile show --json` prints it."""
    return {
        "name": profile.name,
        "description": profile.description,
        "prefix": profile.prefix.value,
        "servers": [{"name": member.server, "active": member.active} for member in profile.members],
        "tools": [asdict(setting) for setting in profile.tools],
        "policy": policy_as_json(profile.policy),
    }


async def _require_tool(database: ConnectionPool, server: str, tool: str) -> None:
    """Refuse a tool that the server is known not to have; accept it while the catalog is unknown."""
    from local_mcp_gateway.gateway import remembered

    stored = await queries.get_server(database, server)
    body = await cache.get_catalog(database, stored.id, CatalogKind.TOOLS)
    names = [item.key for item in remembered(CatalogKind.TOOLS, body)]
    if names and tool not in names:
        near = get_close_matches(tool, names, n=1)
        raise UsageProblem(
            f"The server {server!r} has no tool {tool!r}.",
            hint=f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(names)}.",
        )


async def _require_free(
    database: ConnectionPool, profile: ProfileDefinition, name: str, server: str, tool: str
) -> None:
    """Refuse a name that another known tool of the profile already has."""
    from local_mcp_gateway.gateway import Route, remembered, routes_of

    kind = CatalogKind.TOOLS
    servers = {stored.id: stored.name for stored in await queries.list_servers(database)}
    known = {
        servers[entry.server_id]: {kind: remembered(kind, entry.body)}
        for entry in await cache.load_catalogs(database)
        if entry.kind is kind and entry.server_id in servers
    }
    shown = routes_of(profile, known)[kind].get(name)
    if shown is not None and shown != Route(server, tool):
        raise UsageProblem(
            f"Profile {profile.name!r} shows the tool {shown.key!r} of server {shown.server!r} as {name!r}.",
            hint="Choose another name, or rename or hide that tool first.",
        )


def _require_members(profile: ProfileDefinition, names: set[str]) -> None:
    for name in sorted(names - {member.server for member in profile.members}):
        raise UsageProblem(
            f"Profile {profile.name!r} has no server {name!r}.",
            hint=f"See `profile show {profile.name}`.",
        )


def changed_policy(old: Policy, changes: Mapping[str, Any] | None) -> Policy:
    """Return a policy with these members replaced; raises UsageProblem for one that cannot be."""
    given = dict(changes or {})
    for key in ("allowed", "denied"):
        if key in given:
            given[key] = tuple(given[key])
    return replace(old, **given).checked()


def policy_as_json(policy: Policy) -> dict[str, object]:
    """Return a policy as `profile show --json` and `token list --json` print it."""
    return {
        "allowed": list(policy.allowed),
        "denied": list(policy.denied),
        "read_only": policy.read_only,
        "calls_per_minute": policy.calls_per_minute,
        "calls_at_once": policy.calls_at_once,
    }
