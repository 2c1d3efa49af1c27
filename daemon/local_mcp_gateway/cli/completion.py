"""`completion`: the lines that teach a shell our commands and options."""

from __future__ import annotations

import click

from local_mcp_gateway.errors import Exit

_HELP = """Print the completion script of a shell.

\b
bash:  eval "$(local-mcp-gateway completion bash)"   in ~/.bashrc
zsh:   eval "$(local-mcp-gateway completion zsh)"    in ~/.zshrc, after compinit
fish:  local-mcp-gateway completion fish > ~/.config/fish/completions/local-mcp-gateway.fish
"""


@click.command(help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(*, shell: str) -> int:
    """Print what the shell reads, as click writes it."""
    from click.shell_completion import get_completion_class

    from local_mcp_gateway.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None, "the choice is closed"
    script = kind(cli, {}, "local-mcp-gateway", "_LOCAL_MCP_GATEWAY_COMPLETE")
    click.echo(script.source())
    return Exit.OK
