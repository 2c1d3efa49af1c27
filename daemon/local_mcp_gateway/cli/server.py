"""`server …`: add, show, edit, test, import, approve and remove upstream MCP servers."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.client import answer_to, as_json_option, complete_pairs, confirm, pairs
from local_mcp_gateway.errors import Exit, GatewayError, UsageProblem
from local_mcp_gateway.regular_file import read_given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local_mcp_gateway.cli.context import Invocation


@click.command()
@click.argument("name")
@click.argument("tools", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def approve(
    invocation: Invocation, *, name: str, tools: tuple[str, ...], yes: bool, as_json: bool
) -> int:
    """Show how tools differ from their approved definitions and approve them: all, or the given ones.

    Until then clients do not see an altered tool (`altered_tools = "hold"`) or a new one
    (`new_tools = "hold"`).
    """
    altered = answer_to(invocation, "server.show", name=name)["altered"]
    waiting = {tool["tool"]: tool for tool in altered}
    for missing in [tool for tool in tools if tool not in waiting]:
        raise UsageProblem(
            f"The tool {missing!r} of server {name!r} is not waiting for an approval.",
            hint=f"See `server show {name}`.",
        )
    chosen = {tool: waiting[tool] for tool in tools or waiting}
    if not as_json:
        for tool in chosen.values():
            show_change(tool)
    if chosen:
        confirm(f"Approve {', '.join(chosen)} of server {name} as shown?", yes=yes)
    offered = {tool: change["offered"] for tool, change in chosen.items()}
    done = answer_to(invocation, "server.approve", name=name, tools=offered)
    text = f"Approved {', '.join(chosen)}." if chosen else "No tool is waiting for an approval."
    if as_json:
        ui.print_json(done)
    else:
        click.echo(text)
    return Exit.OK


def show_change(tool: dict[str, Any]) -> None:
    """Print the difference between a tool's approved and current definition."""
    before, after = _lines(tool["approved"]), _lines(tool["offered"])
    click.echo(f"{'altered' if before else 'new    '}  {_visible(tool['tool'])}")
    for line in list(unified_diff(before, after, lineterm="", n=1))[2:]:
        click.echo(f"         {line}")


def _lines(tool: dict[str, Any] | None) -> list[str]:
    """Return a tool as lines to compare; characters that a terminal hides (and a model reads) are escaped."""
    if tool is None:
        return []
    text = json.dumps(tool, indent=2, sort_keys=True, ensure_ascii=False)
    return [_visible(line) for line in text.split("\n")]


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


Command = TypeVar("Command", bound="Callable[..., Any]")


def _sharing_options(command: Command) -> Command:
    """Add the options that say how clients share a server."""
    command = click.option(
        "--idle-stop",
        "idle_stop_s",
        type=click.IntRange(min=0),
        metavar="SECONDS",
        help="Stop it after so long without a call; 0 never [default: upstream.idle_stop_s].",
    )(command)
    command = click.option(
        "--max-clients",
        type=click.IntRange(min=1),
        help="How many clients may have a connection of their own at once [default: 32].",
    )(command)
    return click.option(
        "--share",
        type=click.Choice(["auto", "never", "always"]),
        help="Whether clients share one connection: auto [default] separates them once the server asks"
        " a client something or opens a session.",
    )(command)


def _network_options(command: Command) -> Command:
    """Add the options that say how a server is reached."""
    options = (
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
            help="File or folder of certificates to trust, beside the system's.",
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
    )
    for option in reversed(options):
        command = option(command)
    return command


def _network(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the options of `_network_options` say; warn of what they give up."""
    if options["insecure"]:
        warning = "The certificate of this server is not checked: its answers can be forged."
        click.secho(f"warning: {warning}", fg="red", bold=True, err=True)
    ca = options["ca"]
    return {
        **options,
        "ca": str(ca.absolute()) if ca else None,
        "client_headers": list(options["client_headers"]) or None,
    }


_SHOWN = (
    *("name", "kind", "active", "cwd", "share", "max_clients", "idle_stop_s", "timeout_s"),
    *("proxy", "ca"),
)
REASON = 40
"""Longest reason shown in the list, in characters; `server show` prints all of it."""


@click.group()
def server() -> None:
    """Add, show, try and remove the upstream MCP servers."""


server.add_command(approve)


@server.command()
@click.argument("name")
@click.option(
    "--profile",
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
@_sharing_options
@_network_options
@as_json_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
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
    command: tuple[str, ...],
    **network: Any,
) -> int:
    """Add a server: `server add NAME [OPTIONS] -- COMMAND ARGS…`, or with `--url URL`."""
    if bool(command) == bool(url):
        raise UsageProblem(
            f"The server {name!r} needs a command or a URL, and not both.",
            hint="`server add NAME -- COMMAND ARGS…` or `server add NAME --url URL`.",
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
        **_network(network),
    )
    where = f" in profile {profile}" if profile else ", served at /mcp"
    sentence = f"Added server {name}{where}."
    if "." in name:
        shown = name.replace(".", "_")
        sentence += (
            f" Where its name stands before a tool's, it is {shown}: model APIs refuse dots."
        )
    return _say(added, sentence, as_json=as_json)


@server.command("list")
@as_json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> int:
    """List every server and the profiles that it is in."""
    servers: list[dict[str, Any]] = answer_to(invocation, "server.list")
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
                    _where(item),
                )
                for item in servers
            ],
        )
    return Exit.OK


@server.command()
@click.argument("name")
@click.option("--secrets", is_flag=True, help="Show the values of environment and headers.")
@as_json_option
@click.pass_obj
def show(invocation: Invocation, *, name: str, secrets: bool, as_json: bool) -> int:
    """Show one server; values of environment and headers only with --secrets."""
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
@click.argument("name")
@click.option("--rename", metavar="NEW", help="Give it another name.")
@click.option("--env", multiple=True, metavar="K[=V]", help="Set a variable; without =V remove it.")
@click.option("--cwd", type=click.Path(path_type=Path), help="Folder that the command runs in.")
@click.option("--url", help="Another address.")
@click.option("--header", "headers", multiple=True, metavar="K[=V]", help="Set or remove a header.")
@click.option("--on/--off", "active", default=None, help="Serve it, or leave it out everywhere.")
@_sharing_options
@_network_options
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
        **_network(network),
        "command": command[0] if command else None,
        "args": list(command[1:]) if command else None,
    }
    changes = {key: value for key, value in changes.items() if value is not None and value != {}}
    if not changes:
        raise UsageProblem(
            f"Give at least one change to {name!r}.", hint="See `server edit --help`."
        )
    return _say(
        answer_to(invocation, "server.edit", name=name, **changes),
        f"Changed server {rename or name}.",
        as_json=as_json,
    )


@server.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def remove(invocation: Invocation, *, name: str, yes: bool, as_json: bool) -> int:
    """Remove a server everywhere, with its cached catalog."""
    confirm(f"Remove server {name} from every profile, with its tokens and tool settings?", yes=yes)
    done = answer_to(invocation, "server.remove", name=name)
    return _say(done, f"Removed server {name}.", as_json=as_json)


def _document(file: Path) -> object:
    from local_mcp_gateway.service.admin import parse_client_file

    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else read_given(file)
        return parse_client_file(text, file.name)
    except OSError as error:
        raise UsageProblem(
            f"{file} cannot be read: {error.strerror}.", hint="Give a JSON file with `mcpServers`."
        ) from None
    except ValueError as error:
        kind = "TOML" if file.suffix == ".toml" else "JSON"
        raise UsageProblem(f"{file} is not valid {kind}: {error}.") from None


def _choose_file() -> Path:
    """Return the client's file that a person chooses of those on this machine."""
    from local_mcp_gateway.service.admin import files_of_clients, read_entries

    found: list[tuple[str, Path, int]] = []
    for client, file in files_of_clients(Path.home()):
        with suppress(GatewayError):  # of no use here, or without servers
            found.append((client, file, len(read_entries(_document(file)))))
    if not found:
        raise UsageProblem(
            "No client on this machine has MCP servers in its configuration file.",
            hint="Give a file: `server import FILE`.",
        )
    for number, (client, file, servers) in enumerate(found, 1):
        count = formats.counted(servers, "server")
        click.echo(f"  {number}  {client}: {ui.one_line(str(file))}  ({count})", err=True)
    if not sys.stdin.isatty():
        raise UsageProblem("Which file?", hint="Give one of these: `server import FILE`.")
    number = click.prompt("Number", type=click.IntRange(1, len(found)), err=True)
    return found[number - 1][1]


@server.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--profile", help="Add all of them to this profile [default: what /mcp serves].")
@click.option("--dry-run", is_flag=True, help="Show what would happen to each; store nothing.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@as_json_option
@click.pass_obj
def import_(
    invocation: Invocation,
    *,
    file: Path | None,
    profile: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Add the servers of a client's configuration file; `-` reads stdin.

    Reads the files of Claude, Cursor, VS Code, Windsurf, Zed, Cline, Codex, Gemini, opencode and others: JSON
    (comments are fine) or TOML. Without FILE it lists those on this machine. Their commands run here as
    soon as a client asks, so each is shown, on a terminal before it is added. Exit 3 if one is left out.
    """
    from local_mcp_gateway.service.admin import read_entries, server_as_json

    document = _document(file or _choose_file())
    where = {
        entry.server.name: _where(server_as_json(entry.server))
        for entry in read_entries(document)
        if entry.server is not None
    }
    if where and not yes and not dry_run and sys.stdin.isatty():
        for name, leads in where.items():
            click.echo(f"{ui.one_line(name)}  {leads}", err=True)
        confirm("Add these, and run their commands when a client asks?", yes=False)
    done = answer_to(
        invocation, "server.import", document=document, profile=profile, dry_run=dry_run
    )
    if as_json:
        ui.print_json(done)
    else:
        _show_imported(done, where)
    return Exit.DIFFERS if done["refused"] else Exit.OK


def _show_imported(done: dict[str, Any], where: dict[str, str]) -> None:
    for name in done["added"]:
        click.echo(f"added  {name}  {where[name]}")
        for note in done["notes"].get(name, ()):
            click.echo(ui.sentence(note, indent=" " * 7))
    for name in done["this_gateway"]:
        click.echo(f"left   {name}  (it is this gateway itself)")
    for name in done["kept"]:
        differs = ", with another command or URL: `server edit`" if name in done["differs"] else ""
        click.echo(f"kept   {name}  (a server of this name exists{differs})")
    for name, reason in done["refused"].items():
        click.secho(f"left   {ui.one_line(name)}  {reason}", fg="yellow", err=True)


@server.command()
@click.argument("name")
@as_json_option
@click.pass_obj
def test(invocation: Invocation, *, name: str, as_json: bool) -> int:
    """Connect to a server, fetch its lists and disconnect; exit 1 when that fails."""
    found = answer_to(invocation, "server.test", patience_s=120, name=name)
    who = found["answered_as"] or name
    took = formats.duration(found["duration_ms"])
    can = ", ".join(found["capabilities"]) or "nothing"
    tools = formats.counted(found["tools"], "tool")
    sentence = f"{name} works: {who}, MCP {found['protocol']}, offers {can}, {tools} ({took})."
    return _say(found, "\n".join((sentence, *found["notes"])), as_json=as_json)


def _say(value: object, sentence: str, *, as_json: bool) -> int:
    if as_json:
        ui.print_json(value)
    else:
        click.echo(sentence)
    return Exit.OK


def _state(server: dict[str, Any]) -> str | None:
    """Return a server's state, with the reason when it is down; None when no gateway runs."""
    if not server["active"]:
        return "off"
    live = server["live"]
    if live is None:
        return None
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
    if found["insecure"]:
        yield "insecure", "its certificate is not checked"
    yield "where", _where(found)
    for key in ("env", "headers"):
        yield from ((key, f"{item}={value}") for item, value in found[key].items())
    yield from (("headers", f"{name}, from the client") for name in found["client_headers"])
    for key, value in (found["live"] or {}).items():
        shown = value if isinstance(value, list) else [value]
        yield from ((key, line) for line in shown if line is not None)


def _where(server: dict[str, Any]) -> str:
    return ui.one_line(server["url"] or shlex.join([server["command"] or "", *server["args"]]))
