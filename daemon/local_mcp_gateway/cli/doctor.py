"""`doctor` checks the installation, `health` the gateway; `completion` prints a shell's completion script."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.client import serving_problem, serving_status, version_problem
from local_mcp_gateway.errors import Exit
from local_mcp_gateway.service import examine
from local_mcp_gateway.service.admin import OwnAddress, connected

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "red")}
_INDENT = " " * 14


@click.command()
@ui.as_json_option
@click.pass_obj
def doctor(invocation: Invocation, *, as_json: bool) -> int:
    """Check machine, database, backups, service and servers; exit 3 when there is a problem."""
    findings = []
    status = serving_status(invocation.database)
    servers = status["servers"] if status else {}
    clients = connected(Path.home(), OwnAddress.of(invocation.settings))
    serving = serving_problem(status) or version_problem(status)
    replica = status.get("replica") if status else None
    found = examine(invocation.settings, serving, servers, tuple(dict.fromkeys(clients)), replica)
    for finding in found:
        findings.append(finding)
        if not as_json:
            mark, colour = _MARKS[finding.state]
            text = ui.sentence(finding.message, indent=_INDENT).removeprefix(_INDENT)
            click.echo(f"{click.style(mark, fg=colour)} {finding.check:<11} {text}")
            if finding.hint:
                ui.tell(finding.hint, mark="→ ", indent=_INDENT)
    if as_json:
        ui.print_json({"findings": [finding.as_json() for finding in findings]})
    return Exit.DIFFERS if any(finding.state == "problem" for finding in findings) else Exit.OK


@click.command()
@click.pass_obj
def health(invocation: Invocation) -> int:
    """Tell whether the running gateway is ready; exit 3 if it is not. For health checks of containers.

    It asks over the control socket, so it needs neither a token nor the certificate of https.
    """
    status = serving_status(invocation.database)
    if status is None:
        ui.tell(f"No gateway answers for {invocation.database}.", err=True)
        return Exit.DIFFERS
    if problem := serving_problem(status):
        ui.tell(f"{problem.message} {problem.hint}", err=True)
        return Exit.DIFFERS
    ui.tell(f"Ready at {status['url']}.")
    return Exit.OK


_HELP = """Print the completion script of a shell.

\b
bash:  eval "$(local-mcp-gateway completion bash)"  in ~/.bashrc
zsh:   eval "$(local-mcp-gateway completion zsh)"   in ~/.zshrc
fish:  local-mcp-gateway completion fish | source   in config.fish
"""


@click.command(help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
def completion(*, shell: str) -> int:
    """Print the completion script that click writes for the shell."""
    from click.shell_completion import get_completion_class

    from local_mcp_gateway.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None, "the choice is closed"
    script = kind(cli, {}, "local-mcp-gateway", "_LOCAL_MCP_GATEWAY_COMPLETE")
    # click's script for fish cuts a description at its first comma.
    click.echo(script.source().replace('string split ","', 'string split -m 1 ","'))
    return Exit.OK
