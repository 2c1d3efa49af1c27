"""Pages of the profiles: what each shows to a client, and the lines that connect one."""

from __future__ import annotations

from typing import Any, Final

from local_mcp_gateway.formats import counted
from local_mcp_gateway.studio.http import Response, address
from local_mcp_gateway.studio.visit import Page, Visit, refused_on


async def show_all(visit: Visit) -> Response:
    """List the profiles."""
    profiles = await visit.ask("profile.list")
    return await visit.page(
        "profiles.html",
        profiles=profiles,
        headline=f"{counted(len(profiles), 'profile')} for clients"
        if profiles
        else "No profiles yet",
        typed={name: values[-1] for name, values in visit.request.form.items()},
    )


@refused_on(show_all)
async def add(visit: Visit) -> Response:
    """Add a profile."""
    name = visit.request.given("name").strip()
    description = visit.request.given("description").strip() or None
    await visit.ask("profile.add", name=name, description=description)
    return visit.back(address("profiles", name), f"{name} is added. Choose its servers.")


async def show_one(visit: Visit) -> Response:
    """Show one profile: its servers in order, its tools, and how a client connects."""
    (name,) = visit.arguments
    profile = await visit.ask("profile.show", name=name)
    members = {member["name"] for member in profile["servers"]}
    others = [s["name"] for s in await visit.ask("server.list") if s["name"] not in members]
    url = f"{visit.powers.own}/mcp/{name}"
    return await visit.page(
        "profile.html",
        profile=profile,
        others=others,
        url=url,
        lines=list(visit.powers.client_entries(url)),
        changed=[tool for tool in profile["tools"] if _differs(tool)],
    )


def _differs(tool: dict[str, Any]) -> bool:
    return not tool["enabled"] or bool(tool["name"]) or bool(tool["description"])


@refused_on(show_one)
async def edit(visit: Visit) -> Response:
    """Change a profile: add, remove, move or switch one of its servers, rename or describe it."""
    (name,) = visit.arguments
    given = visit.request.given
    changes: dict[str, Any] = {"name": name}
    for verb in ("add", "remove", "enable", "disable"):
        if servers := [server for server in visit.request.form.get(verb, ()) if server]:
            changes[verb] = servers
    if (new := given("name").strip()) and new != name:
        changes["rename"] = new
    if given("description").strip():
        changes["description"] = given("description").strip()
    if given("prefix"):
        changes["prefix"] = given("prefix")
    if moved := given("up") or given("down"):
        changes["first"] = await _order_after(visit, name, moved, -1 if given("up") else 1)
    await visit.ask("profile.edit", **changes)
    return visit.back(address("profiles", changes.get("rename", name)), "The profile is changed.")


async def _order_after(visit: Visit, profile: str, moved: str, by: int) -> list[str]:
    """Return the servers of a profile in their order after one was moved by a place."""
    servers = (await visit.ask("profile.show", name=profile))["servers"]
    order = [server["name"] for server in servers]
    if moved in order:
        at = order.index(moved)
        order.insert(max(0, at + by), order.pop(at))
    return order


@refused_on(show_one)
async def remove(visit: Visit) -> Response:
    """Remove a profile, once its name was typed; its servers stay."""
    (name,) = visit.arguments
    visit.confirm(name, "removed")
    await visit.ask("profile.remove", name=name)
    return visit.back(address("profiles"), f"{name} is removed; its servers stay.")


@refused_on(show_one)
async def set_tool(visit: Visit) -> Response:
    """Hide, show, rename or describe one tool in one profile."""
    (name,) = visit.arguments
    given = visit.request.given
    changes: dict[str, Any] = {"name": name, "server": given("server"), "tool": given("tool")}
    if given("reset"):
        changes["reset"] = True
    if given("enabled"):
        changes["enabled"] = given("enabled") == "1"
    if given("rename").strip():
        changes["rename"] = given("rename").strip()
    if given("description").strip():
        changes["description"] = given("description").strip()
    await visit.ask("profile.tool", **changes)
    return visit.back(address("profiles", name), f"{given('tool')} is changed in this profile.")


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "profiles"): show_all,
    ("POST", "profiles"): add,
    ("GET", "profiles/*"): show_one,
    ("POST", "profiles/*/edit"): edit,
    ("POST", "profiles/*/tool"): set_tool,
    ("POST", "profiles/*/remove"): remove,
}
