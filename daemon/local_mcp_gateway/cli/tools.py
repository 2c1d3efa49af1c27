"""`tools`, `call` and `server approve`: list the tools that clients get, call one, approve what changed."""

from __future__ import annotations

import json
from difflib import unified_diff
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to, as_json_option, complete_pairs, confirm
from local_mcp_gateway.cli.streams import print_data
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.command()
@click.argument("pattern", required=False)
@click.option("--profile", shell_complete=complete.profiles, help="Only of this profile.")
@click.option("--server", shell_complete=complete.servers, help="Only of this server.")
@as_json_option
@click.pass_obj
def tools(
    invocation: Invocation,
    *,
    pattern: str | None,
    profile: str | None,
    server: str | None,
    as_json: bool,
) -> int:
    """List the tools that clients get, one a line; PATTERN is a part of a name, or has `*`.

    With --json also their descriptions and schemas.
    """
    found = answer_to(invocation, "tools", patience_s=120, profile=profile)
    wanted = f"*{pattern}*" if pattern and "*" not in pattern else pattern or "*"
    found = [
        tool
        for tool in found
        if fnmatch(tool["name"].lower(), wanted.lower()) and server in (None, tool["server"])
    ]
    if as_json:
        ui.print_json(found)
        return Exit.OK
    several = len({tool["profile"] for tool in found}) > 1
    rows = [
        (
            *((tool["profile"],) if several else ()),
            tool["name"],
            tool["server"],
            _first_sentence(tool["definition"].get("description")),
        )
        for tool in found
    ]
    if rows:
        ui.print_table((*(("PROFILE",) if several else ()), "TOOL", "SERVER", "WHAT"), rows)
    else:
        click.echo("No tool is shown there.", err=True)
    return Exit.OK


def _first_sentence(text: object) -> str:
    first = str(text or "").strip().split("\n", 1)[0]
    return first.split(". ", 1)[0].removesuffix(".")


@click.command()
@click.argument("tool", shell_complete=complete.tools)
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--profile",
    shell_complete=complete.profiles,
    help="Profile to call it in.  [default: `default`, or the one that has it]",
)
@click.option("--arguments", "document", metavar="JSON", help="All arguments as one JSON object.")
@as_json_option
@click.pass_obj
def call(
    invocation: Invocation,
    *,
    tool: str,
    arguments: tuple[str, ...],
    profile: str | None,
    document: str | None,
    as_json: bool,
) -> int:
    """Call one tool and print its result; a VALUE that is JSON is passed as such."""
    given = _object(document) if document else {}
    given |= {key: _value(text) for key, text in complete_pairs(arguments, "argument").items()}
    result = answer_to(
        invocation, "call", patience_s=600, tool=tool, profile=profile, arguments=given
    )
    if as_json:
        ui.print_json(result)
    else:
        for part in result.get("content", ()):
            print_data(part["text"] if part.get("type") == "text" else json.dumps(part))
    return Exit.UNEXPECTED if result.get("isError") else Exit.OK


def _object(document: str) -> dict[str, Any]:
    value = _value(document)
    if not isinstance(value, dict):
        raise UsageProblem(f"--arguments {document!r} is not a JSON object.")
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")  # NaN and Infinity are Python's, not JSON


@click.command()
@click.argument("name", shell_complete=complete.servers)
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
    return ui.print_result(done, text, as_json=as_json)


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
