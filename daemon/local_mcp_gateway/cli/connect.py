"""`connect`: point an MCP client at this gateway, in the client's own configuration file."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to, confirm, serving_status
from local_mcp_gateway.cli.context import Invocation, not_empty
from local_mcp_gateway.cli.lazy_group import did_you_mean
from local_mcp_gateway.cli.token_file import given_token
from local_mcp_gateway.errors import Exit, UsageProblem
from local_mcp_gateway.service.admin import (
    CLIENTS,
    Client,
    OwnAddress,
    client_lines,
    file_of,
    plan_connect,
    plan_undo,
)

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.argument("client", required=False, shell_complete=complete.clients)
@click.option(
    "--profile",
    shell_complete=complete.profiles,
    help="Profile to serve it  [default: what /mcp serves].",
)
@click.option(
    "--name", default="local-gateway", show_default=True, callback=not_empty,
    help="Its name in the client.",
)  # fmt: skip
@click.option(
    "--file", type=click.Path(path_type=Path), help="Another file of the client, of a project perhaps."
)  # fmt: skip
@click.option(
    "--token-file", type=click.Path(path_type=Path),
    help="File with the client's token: it starts `stdio`, which reads the token there.",
)  # fmt: skip
@click.option("--undo", is_flag=True, help="Take the entry out again.")
@click.option("--dry-run", is_flag=True, help="Show the change; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
@click.pass_obj
def connect(
    invocation: Invocation,
    *,
    client: str | None,
    profile: str | None,
    name: str,
    file: Path | None,
    token_file: Path | None,
    undo: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Write this gateway into the file of a CLIENT; without one show the lines to paste.

    CLIENT is claude-code, claude-desktop, cursor, vscode, windsurf, zed, codex, gemini, cline, roo, lmstudio,
    copilot, amazon-q, kiro, goose, continue or opencode.

    The change is shown first. Other entries and comments stay as they are, and the file as it was is kept
    next to it: `--undo` puts it back.
    """
    url = address_of(invocation) + _path(invocation, profile)
    if client is None:
        if undo or file or dry_run or token_file:
            raise UsageProblem("Which client?", hint=f"Known are {', '.join(CLIENTS)}.")
        _show_lines(url, as_json=as_json)
        return Exit.OK
    chosen = _client(client)
    file = (file or file_of(chosen, Path.home())).absolute()
    if token_file is not None:
        given_token(token_file := token_file.absolute())  # refuse one that `stdio` would refuse
    change = (
        plan_undo(chosen, file, name) if undo else plan_connect(chosen, file, name, url, token_file)
    )
    changed = change.before != change.after
    if changed and not as_json:
        click.echo(f"{ui.one_line(str(change.file))}:")
        for line in change.diff():
            click.secho(f"  {line}", fg=_COLOURS.get(line[:1]))
    if changed and not dry_run:
        question = f"{'Remove' if change.after is None else 'Write'} this file of {chosen.title}?"
        confirm(question, yes=yes)
        change.write()
    kept = str(change.backup_file) if change.backup_file.exists() else None
    said: dict[str, Any] = {
        "client": client,
        "file": str(change.file),
        "url": None if undo else url,
        "changed": changed and not dry_run,
        "backup": kept,
    }
    if as_json:
        ui.print_json(said)
    elif not changed:
        state = f"has no entry {name!r}" if undo else f"points to {url} already"
        ui.tell(f"{chosen.title} {state}.")
    elif not dry_run:
        where = f" The file as it was: {kept}." if kept and not undo else ""
        done = "no longer has this entry" if undo else f"points to {url}"
        ui.tell(f"{chosen.title} {done}. {chosen.then}{ui.one_line(where)}")
    return Exit.OK


def _client(name: str) -> Client:
    if name in CLIENTS:
        return CLIENTS[name]
    near = [known for known in CLIENTS if known.startswith(name.lower())]
    suggested = did_you_mean(near or get_close_matches(name.lower(), CLIENTS))
    raise UsageProblem(
        f"There is no client `{name}`.{suggested}", hint=f"Known are {', '.join(CLIENTS)}."
    )


def address_of(invocation: Invocation) -> str:
    """Return the URL of the running gateway, without a path; else that of the settings."""
    status = serving_status(invocation.database)
    if status and "url" in status:
        return str(status["url"])
    return OwnAddress.of(invocation.settings).url


def _path(invocation: Invocation, profile: str | None) -> str:
    if profile is None:
        return "/mcp"
    answer_to(invocation, "profile.show", name=profile)
    return f"/mcp/{profile}"


def _show_lines(url: str, *, as_json: bool) -> None:
    if as_json:
        entries = {name: client.entry(url) for name, client in CLIENTS.items()}
        ui.print_json({"url": url, "clients": entries})
        return
    click.echo(url)
    for line in client_lines(url):
        click.echo(line)
