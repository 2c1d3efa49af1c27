"""`profile …`: define which servers a client sees, and in which order."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to, changed_by, remove_after
from local_mcp_gateway.cli.connect import address_of
from local_mcp_gateway.cli.context import Invocation, overriding, write_setting
from local_mcp_gateway.cli.lazy_group import Group
from local_mcp_gateway.cli.policy import policy_of, policy_options, policy_text
from local_mcp_gateway.errors import Exit, UsageProblem
from local_mcp_gateway.service.admin import client_lines

_servers_option = partial(
    click.option, multiple=True, metavar="SERVER", shell_complete=complete.servers
)
PREFIXES = click.Choice(["auto", "always", "never"])


@click.group(cls=Group)
def profile() -> None:
    """Group servers for a client: each profile is served at /mcp/NAME."""


@profile.command()
@click.argument("name")
@click.argument("servers", nargs=-1, shell_complete=complete.servers)
@click.option("--description", help="What it is for.")
@click.option(
    "--prefix", type=PREFIXES, help="Server name before tool names; auto: only when two clash."
)
@policy_options
@ui.as_json_option
@click.pass_obj
def add(
    invocation: Invocation,
    /,
    *,
    name: str,
    servers: tuple[str, ...],
    description: str | None,
    prefix: str | None,
    as_json: bool,
    **policy: Any,
) -> int:
    """Add a profile with these servers, in this order."""
    added = answer_to(
        invocation, "profile.add",
        name=name, servers=list(servers), description=description, prefix=prefix,
        policy=policy_of(policy),
    )  # fmt: skip
    return _show(added, as_json=as_json)


@profile.command("list")
@ui.as_json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> int:
    """List every profile and its servers."""
    return ui.print_list(
        answer_to(invocation, "profile.list"),
        ("NAME", "SERVERS", "DESCRIPTION"),
        lambda item: (item["name"], ", ".join(_names(item)) or None, item["description"]),
        none="There is no profile yet: `profile add NAME SERVER…`.",
        as_json=as_json,
    )


@profile.command()
@click.argument("name", shell_complete=complete.profiles)
@ui.as_json_option
@click.pass_obj
def show(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Show one profile, and the lines that connect a client to it."""
    found = answer_to(invocation, "profile.show", name=name)
    _show(found, as_json=as_json)
    if not as_json:
        click.echo()
        for line in client_lines(f"{address_of(invocation)}/mcp/{name}"):
            click.echo(line)
    return Exit.OK


@profile.command()
@click.argument("name", shell_complete=complete.profiles)
@click.option("--rename", metavar="NEW", help="Give it another name; its address changes too.")
@click.option("--description", help="What it is for.")
@click.option("--prefix", type=PREFIXES, help="Server name before tool names.")
@_servers_option("--add", "added", help="Put a server last.")
@_servers_option("--remove", "removed", help="Take a server out.")
@_servers_option("--enable", help="Serve this member again.")
@_servers_option("--disable", help="Keep this member, do not serve it.")
@_servers_option("--first", help="Move a member to the front; repeated, in this order.")
@policy_options
@ui.as_json_option
@click.pass_obj
def edit(
    invocation: Invocation,
    /,
    *,
    name: str,
    rename: str | None,
    description: str | None,
    prefix: str | None,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    enable: tuple[str, ...],
    disable: tuple[str, ...],
    first: tuple[str, ...],
    as_json: bool,
    **policy: Any,
) -> int:
    """Change what is given and keep the rest; a running gateway applies it at once."""
    changes: dict[str, Any] = {
        "rename": rename, "description": description, "prefix": prefix, "add": added, "remove": removed,
        "enable": enable, "disable": disable, "first": first, "policy": policy_of(policy),
    }  # fmt: skip
    changed = changed_by(invocation, "profile.edit", name, changes)
    return _show(changed, as_json=as_json)


@profile.command()
@click.argument("name", shell_complete=complete.profiles)
@click.argument("server", shell_complete=complete.servers)
@click.argument("tool")
@click.option("--show/--hide", "enabled", default=None, help="Show it to clients, or not.")
@click.option("--rename", metavar="NEW", help="Show it under another name.")
@click.option("--description", help="Show this description instead of the server's own.")
@click.option("--reset", is_flag=True, help="Show it as it is again.")
@ui.as_json_option
@click.pass_obj
def tool(
    invocation: Invocation,
    *,
    name: str,
    server: str,
    tool: str,
    enabled: bool | None,
    rename: str | None,
    description: str | None,
    reset: bool,
    as_json: bool,
) -> int:
    """Hide, rename or redescribe one TOOL of a SERVER, in this profile only."""
    if reset == any(value is not None for value in (enabled, rename, description)):
        raise UsageProblem(
            f"Give what to change about {tool!r}, or --reset, but not both.",
            hint="`--hide`, `--show`, `--rename NEW`, `--description TEXT` or `--reset`.",
        )
    changed = answer_to(
        invocation, "profile.tool",
        name=name, server=server, tool=tool,
        enabled=enabled, rename=rename, description=description, reset=reset,
    )  # fmt: skip
    return _show(changed, as_json=as_json)


@profile.command()
@click.argument("name", shell_complete=complete.profiles)
@ui.as_json_option
@click.pass_obj
def use(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Serve this profile at /mcp from now on: it becomes `gateway.default_profile`, also in a running gateway."""
    from local_mcp_gateway.service.admin import NoDaemon, ask

    answer_to(invocation, "profile.show", name=name)
    key = "gateway.default_profile"
    file = write_setting(invocation, key, name)
    stronger = overriding(replace(invocation), key)
    try:
        live = key in ask(invocation.database, "settings.read", {}, timeout_s=60)["changed"]
    except NoDaemon:
        live = False
    said = {"name": name, "file": str(file), "overridden_by": stronger, "live": live}
    if as_json:
        ui.print_json(said)
        return Exit.OK
    ui.tell(f"/mcp is profile {name}{' from now on' if live else ''}: {file} says so.")
    if stronger:
        ui.tell(f"{stronger} sets it too, and wins.", fg="yellow", err=True)
    return Exit.OK


@profile.command()
@click.argument("name", shell_complete=complete.profiles)
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
@click.pass_obj
def remove(invocation: Invocation, *, name: str, yes: bool, as_json: bool) -> int:
    """Remove a profile; its servers stay."""
    question = f"Remove profile {name}, with its tool settings?"
    return remove_after(question, invocation, "profile", name, yes=yes, as_json=as_json)


def _show(profile: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        ui.print_json(profile)
        return Exit.OK
    about = f": {profile['description']}" if profile["description"] else ""
    ui.tell(f"{profile['name']}{about}  (prefix {profile['prefix']})")
    if policy := policy_text(profile["policy"]):
        ui.tell(f"  policy: {policy}")
    for name in _names(profile):
        ui.tell(f"  {name}")
    for tool in profile["tools"]:
        renamed = f" as {tool['name']}" if tool["name"] else ""
        described = f": {tool['description']}" if tool["description"] is not None else ""
        hidden = "" if tool["enabled"] else " (hidden)"
        ui.tell(f"{tool['server']}  {tool['tool']}{renamed}{hidden}{described}", mark="    ")
    return Exit.OK


def _names(profile: dict[str, Any]) -> list[str]:
    return [
        server["name"] + ("" if server["active"] else " (off)") for server in profile["servers"]
    ]
