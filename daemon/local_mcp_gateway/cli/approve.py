"""`server approve`: tools that are new, or not described as they were when they were approved."""

from __future__ import annotations

import json
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.cli.asking import answer_to, as_json_option, confirm
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
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
    """Show how tools differ from what was approved, and approve them: all, or the given ones.

    With `altered_tools = "hold"`, clients do not see such a tool until then; with `new_tools = "hold"` neither one that is new.
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
    said = f"Approved {', '.join(chosen)}." if chosen else "No tool is waiting for an approval."
    if as_json:
        render.print_json(done)
    else:
        click.echo(said)
    return Exit.OK


def show_change(tool: dict[str, Any]) -> None:
    """Print what differs between a tool as it was approved and as it is offered now."""
    before, after = _lines(tool["approved"]), _lines(tool["offered"])
    click.echo(f"{'altered' if before else 'new    '}  {_visible(tool['tool'])}")
    for line in list(unified_diff(before, after, lineterm="", n=1))[2:]:
        click.echo(f"         {line}")


def _lines(tool: dict[str, Any] | None) -> list[str]:
    """Return a tool as lines to compare; what a terminal hides (and a model reads) is spelt out."""
    if tool is None:
        return []
    text = json.dumps(tool, indent=2, sort_keys=True, ensure_ascii=False)
    return [_visible(line) for line in text.split("\n")]


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)
