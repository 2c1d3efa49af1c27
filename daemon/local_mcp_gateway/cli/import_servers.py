"""`server import`: add the servers of another client's configuration file."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to, confirm
from local_mcp_gateway.cli.policy import sandbox_of, sandbox_options
from local_mcp_gateway.errors import Exit, GatewayError, UsageProblem
from local_mcp_gateway.regular_file import read_given

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation
    from local_mcp_gateway.service.admin import RegistryServer


def _document(file: Path, registry_url: str = "") -> object:
    """Return what a file says, or the registry of a server that has its name."""
    from local_mcp_gateway.service.admin import (
        ask_registry,
        is_registry_id,
        parse_client_file,
        status_in_registry,
    )

    if is_registry_id(str(file)) and not file.exists():
        answer = ask_registry(registry_url, str(file))
        if status := status_in_registry(answer):
            ui.tell(
                f"the registry calls {file} {ui.one_line(status)}.",
                mark="note: ",
                fg="yellow",
                err=True,
            )
        return answer
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else read_given(file)
        return parse_client_file(text, file.name)
    except OSError as error:
        raise UsageProblem(
            f"{file} cannot be read: {error.strerror}.", hint="Give a JSON file with `mcpServers`."
        ) from None
    except ValueError as error:
        kind = {".toml": "TOML", ".yaml": "YAML", ".yml": "YAML"}.get(file.suffix, "JSON")
        raise UsageProblem(
            f"{file} is not valid {kind}: {error}.", hint="Correct the file, then import it again."
        ) from None


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
        where = ui.one_line(f"~/{file.relative_to(Path.home())}")
        count = formats.counted(servers, "server")
        ui.tell(f"{client}: {where}  ({count})", mark=f"{number:>3}  ", err=True)
    if not sys.stdin.isatty():
        raise UsageProblem("Which file?", hint="Give one of these: `server import FILE`.")
    number = click.prompt("Number", type=click.IntRange(1, len(found)), err=True)
    return found[number - 1][1]


def _ask(registered: RegistryServer) -> dict[str, str]:
    """Ask on a terminal for the values that a registry's file declares; none given is looked up later."""
    values: dict[str, str] = {}
    if not sys.stdin.isatty():
        return values
    for asked in registered.asked:
        about = f": {ui.one_line(asked.description)}" if asked.description else ""
        value = click.prompt(
            f"{asked.name}{about}", default=asked.default or "", hide_input=asked.secret,
            show_default=bool(asked.default), err=True,
        )  # fmt: skip
        if value and value != asked.default:
            values[asked.name] = value
    return values


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option(
    "--profile",
    shell_complete=complete.profiles,
    help="Add all of them to this profile [default: what /mcp serves].",
)
@sandbox_options
@click.option("--dry-run", is_flag=True, help="Show what would happen to each; store nothing.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@ui.as_json_option
@click.pass_obj
def import_(
    invocation: Invocation,
    /,
    *,
    file: Path | None,
    profile: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **boxed: Any,
) -> int:
    """Add the servers of a client's configuration file, a `server.json` or a registry; `-` reads stdin.

    Reads the files of Claude, Cursor, VS Code, Windsurf, Zed, Cline, Codex, Gemini, opencode and others: JSON
    (comments are fine), TOML or YAML; and the `server.json` of the MCP registry, whose values are asked for on a
    terminal. A name such as `io.github.someone/server`, maybe with `@VERSION`, is asked for at
    `upstream.registry_url`. Without FILE it lists those on this machine. Their commands run here as soon as a
    client asks, so each is shown, on a terminal before it is added. --sandbox is for all that are commands.
    Exit 3 if one is left out.
    """
    from local_mcp_gateway.service.admin import read_entries, read_registry_file, server_as_json

    sandbox = sandbox_of(boxed) or None
    document = _document(file or _choose_file(), invocation.settings.upstream.registry_url)
    if (registered := read_registry_file(document)) is not None and not dry_run:
        document = {"mcpServers": {registered.name: registered.answered(_ask(registered))}}
    where = {
        entry.server.name: ui.command_or_url(server_as_json(entry.server))
        for entry in read_entries(document)
        if entry.server is not None
    }
    if where and not yes and not dry_run and sys.stdin.isatty():
        for name, leads in where.items():
            ui.tell(f"{ui.one_line(name)}  {leads}", err=True)
        confirm("Add these, and run their commands when a client asks?", yes=False)
    done = answer_to(
        invocation,
        "server.import",
        document=document,
        profile=profile,
        dry_run=dry_run,
        sandbox=sandbox,
    )
    if as_json:
        ui.print_json(done)
    else:
        _show_imported(done, where, added="would add  " if dry_run else "added  ")
        if done["added"] and not dry_run:
            says = "`server list` tells how each is, `tools` what clients get"
            ui.tell(f"In the profile {done['profile']}: {says}.")
    return Exit.DIFFERS if done["refused"] else Exit.OK


def _show_imported(done: dict[str, Any], where: dict[str, str], *, added: str) -> None:
    left, kept = ("left".ljust(len(added)), "kept".ljust(len(added)))
    for name in done["added"]:
        ui.tell(f"{name}  {where[name]}", mark=added)
        for note in done["notes"].get(name, ()):
            ui.tell(note, indent=" " * len(added))
    for name in done["this_gateway"]:
        ui.tell(f"{name}  (it is this gateway itself)", mark=left)
    for name in done["kept"]:
        differs = ", with another command or URL: `server edit`" if name in done["differs"] else ""
        ui.tell(f"{name}  (a server of this name exists{differs})", mark=kept)
    for name, reason in done["refused"].items():
        ui.tell(f"{ui.one_line(name)}  {reason}", mark=left, fg="yellow", err=True)
