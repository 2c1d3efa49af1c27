"""`server add`, `edit` and `test`: the options that say what a server is and how it is reached, and a first try."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to, complete_pairs, pairs
from local_mcp_gateway.cli.context import Invocation, with_options
from local_mcp_gateway.cli.policy import sandbox_of, sandbox_options
from local_mcp_gateway.errors import Exit, GatewayError, UsageProblem

PATIENCE_S = 120
"""How long a server is tried."""

sharing_options = with_options(
    click.option(
        "--share",
        type=click.Choice(["auto", "never", "always"]),
        help="Whether clients share one connection: auto [default] separates them once the server asks"
        " a client something or opens a session.",
    ),
    click.option(
        "--max-clients",
        type=click.IntRange(min=1),
        help="How many clients may have a connection of their own at once [default: 32].",
    ),
    click.option(
        "--idle-stop",
        "idle_stop_s",
        type=click.IntRange(min=0),
        metavar="SECONDS",
        help="Stop it after this long without a call; 0 never [default: upstream.idle_stop_s].",
    ),
)
"""The options that say how clients share a server."""


network_options = with_options(
    click.option(
        "--timeout",
        "timeout_s",
        type=click.IntRange(min=1),
        metavar="SECONDS",
        help="How long a call may take [default: upstream.call_timeout_s].",
    ),
    click.option(
        "--proxy",
        metavar="URL",
        help="HTTP proxy to its URL, or `none` [default: HTTP_PROXY, HTTPS_PROXY, NO_PROXY].",
    ),
    click.option(
        "--ca",
        type=click.Path(exists=True, path_type=Path),
        help="File or folder of certificates to trust, in addition to the system's.",
    ),
    click.option(
        "--insecure/--secure",
        default=None,
        help="Accept any certificate: anyone on the network path can read and change everything.",
    ),
    click.option(
        "--header-from-client",
        "client_headers",
        multiple=True,
        metavar="NAME",
        help="Header that each call copies from the client's request. Give all of them again.",
    ),
    click.option(
        "--trust-annotations/--distrust-annotations",
        "trust_annotations",
        default=None,
        help="Believe its tools when they say that they change nothing: read-only tokens and profiles"
        " then show them.",
    ),
)
"""The options that say how a server is reached."""


client_options = with_options(
    click.option(
        "--client-id",
        metavar="ID",
        help="Sign in as this client, which you have registered there [default: it registers itself].",
    ),
    click.option(
        "--client-secret",
        is_flag=True,
        help="The client has a secret: asked for, or read from stdin or LMG_CLIENT_SECRET. Sealed.",
    ),
    click.option(
        "--client-credentials",
        is_flag=True,
        help="Id and secret are enough; nobody signs in (a machine's client).",
    ),
)
"""The options that say as whom the gateway signs in."""


def client_of(options: dict[str, Any]) -> dict[str, Any] | None:
    """Take the options of `client_options` out of all, and return the client that they give.

    Its secret comes from the environment, a prompt or stdin.
    """
    client_id, secret = options.pop("client_id"), options.pop("client_secret")
    credentials = options.pop("client_credentials")
    if client_id is None:
        if secret or credentials:
            raise UsageProblem(
                "A client's secret belongs to a client id.", hint="Give it with --client-id."
            )
        return None
    given = None
    if secret or credentials:
        given = os.environ.get("LMG_CLIENT_SECRET")
        if given is None and sys.stdin.isatty():
            given = click.prompt("Client secret", hide_input=True, err=True)
        given = (given if given is not None else sys.stdin.readline()).strip()
        if not given:
            raise UsageProblem(
                "The client's secret is empty.",
                hint="Give it on stdin, or in the environment as LMG_CLIENT_SECRET.",
            )
    grant = "client_credentials" if credentials else None
    return {"client_id": client_id, "client_secret": given, "grant": grant}


def network_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the options of `network_options` say; warn of what they give up."""
    if options["insecure"]:
        warning = "The certificate of this server is not checked: its answers can be forged."
        ui.tell(warning, mark="warning: ", fg="red", bold=True, err=True)
    ca = options["ca"]
    return {
        **options,
        "ca": str(ca.absolute()) if ca else None,
        "client_headers": list(options["client_headers"]) or None,
    }


@click.command()
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
@ui.as_json_option
@click.option(
    "--test/--no-test",
    "tried",
    default=True,
    help="Try it at once, and say what it offers  [default: --test].",
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
    tried: bool,
    command: tuple[str, ...],
    **network: Any,
) -> int:
    """Add a server: `server add NAME [OPTIONS] -- COMMAND ARGS…`, or `server add NAME URL`."""
    client, sandbox = client_of(network), sandbox_of(network)
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
        sentence += f" In front of a tool's name it is written {shown}: model APIs refuse dots."
    if as_json:
        tested = _tried(invocation, name) if tried else None
        if isinstance(tested, GatewayError):
            tested = {"error": tested.as_json()}
        ui.print_json({**added, "test": tested})
        return Exit.OK
    ui.tell(sentence)
    if tried:
        _try(invocation, name)
    return Exit.OK


def _try(invocation: Invocation, name: str) -> None:
    """Say what a new server offers, or why it does not work; it stays added, and Ctrl+C skips this."""
    if sys.stderr.isatty():
        trying = "Trying it; a first start may have to install something. Ctrl+C skips this."
        ui.tell(trying, err=True)
    try:
        found = _tried(invocation, name)
    except KeyboardInterrupt:
        ui.tell(f"Not tried. `server test {name}` does it.", err=True)
        return
    if isinstance(found, GatewayError):
        ui.tell(found.message, fg="yellow", err=True)
        ui.tell(found.hint, mark="→ ", err=True)
    else:
        ui.print_sentences(_found(found))


def _tried(invocation: Invocation, name: str) -> dict[str, Any] | GatewayError:
    """Return what `server test` finds, or why it fails."""
    try:
        found: dict[str, Any] = answer_to(
            invocation, "server.test", patience_s=PATIENCE_S, name=name
        )
    except GatewayError as problem:
        return problem
    return found


@click.command()
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
@ui.as_json_option
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
        "client": client_of(network),
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


@click.command()
@click.argument("name", shell_complete=complete.servers)
@ui.as_json_option
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
