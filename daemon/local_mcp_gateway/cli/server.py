"""`server …`: add, show, edit, test and remove upstream MCP servers."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import (
    answer_to,
    as_json_option,
    complete_pairs,
    confirm,
    pairs,
    serving_status,
    warn_of_another_version,
)
from local_mcp_gateway.cli.import_servers import import_
from local_mcp_gateway.cli.lazy_group import Group
from local_mcp_gateway.cli.login import login, logout
from local_mcp_gateway.cli.server_options import (
    client_of_options,
    client_options,
    network_of,
    network_options,
    sandbox_of,
    sandbox_options,
    sharing_options,
)
from local_mcp_gateway.cli.tools import approve, show_change
from local_mcp_gateway.errors import Exit, GatewayError, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.cli.context import Invocation


_SHOWN = (
    *("name", "kind", "active", "cwd", "share", "max_clients", "idle_stop_s", "timeout_s"),
    *("proxy", "ca"),
)
PATIENCE_S = 120
"""How long a server is tried."""
REASON = 40
"""Longest reason shown in the list, in characters; `server show` prints all of it."""


@click.group(cls=Group)
def server() -> None:
    """Add, show, try and remove the upstream MCP servers."""


for _command in (approve, login, logout):
    server.add_command(_command)
server.add_command(import_)


@server.command()
@click.argument("name")
@click.option(
    "--profile",
    shell_complete=complete.profiles,
    help="Add it to this profile, created if missing [default: what /mcp serves].",
)
@click.option(
    "--env",
    "env",
    multiple=True,
    metavar="K=V",
    help="Environment variable of the command; its value is sealed.",
)
@click.option("--cwd", type=click.Path(path_type=Path), help="Folder that the command runs in.")
@click.option("--url", help="Address of a server over HTTP, instead of a command.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="K=V",
    help="Header sent with each request; its value is sealed.",
)
@click.option("--sse", is_flag=True, help="The URL speaks the older HTTP+SSE transport.")
@sharing_options
@network_options
@sandbox_options
@client_options
@as_json_option
@click.option(
    "--test/--no-test",
    "tried",
    default=None,
    help="Try it at once, and say what it offers  [default: on a terminal].",
)
@click.argument("command", metavar="[URL | COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def add(
    invocation: Invocation,
    /,
    *,
    name: str,
    profile: str | None,
    env: tuple[str, ...],
    cwd: Path | None,
    url: str | None,
    headers: tuple[str, ...],
    sse: bool,
    share: str | None,
    max_clients: int | None,
    idle_stop_s: int | None,
    as_json: bool,
    tried: bool | None,
    command: tuple[str, ...],
    **network: Any,
) -> int:
    """Add a server: `server add NAME [OPTIONS] -- COMMAND ARGS…`, or `server add NAME URL`."""
    client, sandbox = client_of_options(network), sandbox_of(network)
    if not url and len(command) == 1 and command[0].startswith(("http://", "https://")):
        url, command = command[0], ()
    if bool(command) == bool(url):
        raise UsageProblem(
            f"The server {name!r} needs a command or a URL, and not both.",
            hint="`server add NAME -- COMMAND ARGS…` or `server add NAME URL`.",
        )
    added = answer_to(
        invocation,
        "server.add",
        name=name,
        profile=profile,
        kind=None if not url else "sse" if sse else "http",
        command=command[0] if command else None,
        args=list(command[1:]),
        env=complete_pairs(env, "--env"),
        cwd=str(cwd.absolute()) if cwd else None,
        url=url,
        headers=complete_pairs(headers, "--header", separators="=:"),
        share=share,
        max_clients=max_clients,
        idle_stop_s=idle_stop_s,
        client=client,
        sandbox=sandbox or None,
        **network_of(network),
    )
    where = f" in profile {profile}" if profile else ", served at /mcp"
    sentence = f"Added server {name}{where}."
    if "." in name:
        shown = name.replace(".", "_")
        sentence += (
            f" Where its name stands before a tool's, it is {shown}: model APIs refuse dots."
        )
    ui.print_result(added, sentence, as_json=as_json)
    if not as_json and (sys.stdout.isatty() if tried is None else tried):
        _try(invocation, name)
    return Exit.OK


def _try(invocation: Invocation, name: str) -> None:
    """Say what a new server offers, or why it does not work; it stays added, and Ctrl+C skips this."""
    click.echo(
        "Trying it; a first start may have to install something. Ctrl+C skips this.", err=True
    )
    try:
        found = answer_to(invocation, "server.test", patience_s=PATIENCE_S, name=name)
    except GatewayError as problem:
        click.secho(ui.sentence(problem.message, err=True), fg="yellow", err=True)
        click.echo(ui.sentence(problem.hint, mark="→ ", err=True), err=True)
    except KeyboardInterrupt:
        click.echo(f"Not tried. `server test {name}` does it.", err=True)
    else:
        click.echo("\n".join(_found(found)))


@server.command("list")
@ui.watch_option
@as_json_option
@click.pass_obj
def list_(invocation: Invocation, *, watch: bool, as_json: bool) -> int:
    """List every server and the profiles that it is in."""
    if watch:
        return ui.shown_until_stopped(partial(_list, invocation, as_json=as_json))
    return _list(invocation, as_json=as_json)


def _list(invocation: Invocation, *, as_json: bool) -> int:
    servers: list[dict[str, Any]] = answer_to(invocation, "server.list")
    warn_of_another_version(serving_status(invocation.database))
    if as_json:
        ui.print_json(servers)
    elif not servers:
        click.echo("There is no server yet: `server add NAME -- COMMAND ARGS…`.")
    else:
        ui.print_table(
            ("NAME", "KIND", "STATE", "TOOLS", "PROFILES", "WHERE"),
            [
                (
                    item["name"],
                    item["kind"],
                    _state(item),
                    _tools(item["live"]),
                    ", ".join(item["profiles"]) or None,
                    ("sandbox: " if item["sandbox"] else "") + ui.command_or_url(item),
                )
                for item in servers
            ],
        )
    return Exit.OK


@server.command()
@click.argument("name", shell_complete=complete.servers)
@click.option("--secrets", is_flag=True, help="Show the secrets too.")
@as_json_option
@click.pass_obj
def show(invocation: Invocation, *, name: str, secrets: bool, as_json: bool) -> int:
    """Show one server.

    The values of environment and headers, and what looks like a secret in its arguments or URL, only with
    --secrets.
    """
    found = answer_to(invocation, "server.show", name=name, secrets=secrets)
    if as_json:
        ui.print_json(found)
        return Exit.OK
    for key, value in _rows(found):
        click.echo(f"{key:<8} {value}")
    for tool in found["altered"]:
        show_change(tool)
    return Exit.OK


@server.command()
@click.argument("name", shell_complete=complete.servers)
@click.option("--rename", metavar="NEW", help="Give it another name.")
@click.option("--env", multiple=True, metavar="K[=V]", help="Set a variable; without =V remove it.")
@click.option("--cwd", type=click.Path(path_type=Path), help="Folder that the command runs in.")
@click.option("--url", help="Another address.")
@click.option("--header", "headers", multiple=True, metavar="K[=V]", help="Set or remove a header.")
@click.option("--on/--off", "active", default=None, help="Serve it, or leave it out everywhere.")
@sharing_options
@network_options
@sandbox_options
@client_options
@as_json_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def edit(
    invocation: Invocation,
    /,
    *,
    name: str,
    rename: str | None,
    env: tuple[str, ...],
    cwd: Path | None,
    url: str | None,
    headers: tuple[str, ...],
    active: bool | None,
    share: str | None,
    max_clients: int | None,
    idle_stop_s: int | None,
    as_json: bool,
    command: tuple[str, ...],
    **network: Any,
) -> int:
    """Change what is given and keep the rest; a running gateway applies it at once."""
    sandbox = sandbox_of(network)
    changes: dict[str, Any] = {
        "rename": rename,
        "env": pairs(env, "--env"),
        "headers": pairs(headers, "--header", separators="=:"),
        "cwd": str(cwd.absolute()) if cwd else None,
        "url": url,
        "active": active,
        "share": share,
        "max_clients": max_clients,
        "idle_stop_s": idle_stop_s,
        "client": client_of_options(network),
        **network_of(network),
        "command": command[0] if command else None,
        "args": list(command[1:]) if command else None,
    }
    changes = {key: value for key, value in changes.items() if value is not None and value != {}}
    if sandbox is not None:
        changes["sandbox"] = sandbox or None
    if not changes:
        raise UsageProblem(
            f"Give at least one change to {name!r}.", hint="See `server edit --help`."
        )
    return ui.print_result(
        answer_to(invocation, "server.edit", name=name, **changes),
        f"Changed server {rename or name}.",
        as_json=as_json,
    )


@server.command()
@click.argument("name", shell_complete=complete.servers)
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def remove(invocation: Invocation, *, name: str, yes: bool, as_json: bool) -> int:
    """Remove a server everywhere, with its cached catalog."""
    confirm(f"Remove server {name} from every profile, with its tokens and tool settings?", yes=yes)
    done = answer_to(invocation, "server.remove", name=name)
    return ui.print_result(done, f"Removed server {name}.", as_json=as_json)


@server.command()
@click.argument("name", shell_complete=complete.servers)
@as_json_option
@click.pass_obj
def test(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Connect to a server, fetch its lists and disconnect; exit 1 when that fails."""
    found = answer_to(invocation, "server.test", patience_s=PATIENCE_S, name=name)
    return ui.print_result(found, "\n".join(_found(found)), as_json=as_json)


def _found(found: dict[str, Any]) -> list[str]:
    """Return what a test found, as lines."""
    name = found["name"]
    who = found["answered_as"] or name
    took = formats.duration(found["duration_ms"])
    can = ", ".join(found["capabilities"]) or "nothing"
    tools = formats.counted(found["tools"], "tool")
    sentence = f"{name} works: {who}, MCP {found['protocol']}, offers {can}, {tools} ({took})."
    return [sentence, *found["notes"]]


def _state(server: dict[str, Any]) -> str | None:
    """Return a server's state, with the reason when it is down; None when no gateway runs."""
    if not server["active"]:
        return "off"
    live = server["live"]
    if live is None:
        needed = server["sign_in"] is not None and server["sign_in"]["needed"]
        return "needs sign-in" if needed else None
    if live["state"] == "needs_sign_in":
        return "needs sign-in"
    reason = str(live["reason"] or "")
    reason = reason if len(reason) <= REASON else f"{reason[: REASON - 1]}…"
    return f"{live['state']}: {reason}" if reason else str(live["state"])


def _tools(live: dict[str, Any] | None) -> str | None:
    """Return how many tools are known, and how many of them wait for approval."""
    if live is None or live["tools"] is None:
        return None
    return f"{live['tools']}, {len(live['held'])} held" if live["held"] else str(live["tools"])


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what `server show` prints of a server, and of its state where a gateway runs."""
    yield from ((key, found[key]) for key in _SHOWN if found[key] is not None)
    if found["trust_annotations"]:
        yield "trusted", "what its tools say of themselves (readOnlyHint)"
    if found["insecure"]:
        yield "insecure", "its certificate is not checked"
    if (sandbox := found["sandbox"]) is not None:
        may = [f"writes {path}" for path in sandbox["write"]] or ["writes nothing"]
        yield "sandbox", ", ".join([*may, "network" if sandbox["network"] else "no network"])
    yield "where", ui.command_or_url(found)
    if (signed_in := found["sign_in"]) is not None:
        state = "needed" if signed_in["needed"] else "signed in"
        yield "sign-in", " at ".join(filter(None, (state, signed_in["issuer"])))
    for key in ("env", "headers"):
        yield from ((key, f"{item}={value}") for item, value in found[key].items())
    yield from (("headers", f"{name}, from the client") for name in found["client_headers"])
    for key, value in (found["live"] or {}).items():
        shown = value if isinstance(value, list) else [value]
        yield from ((key, line) for line in shown if line is not None)
