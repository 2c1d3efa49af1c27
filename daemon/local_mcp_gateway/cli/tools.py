"""`tools` and `call`: list the tools that clients get, and call one."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to, complete_pairs
from local_mcp_gateway.cli.streams import print_data
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.command()
@click.argument("pattern", required=False)
@click.option("--profile", shell_complete=complete.profiles, help="Only of this profile.")
@click.option("--server", shell_complete=complete.servers, help="Only of this server.")
@ui.as_json_option
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
@ui.as_json_option
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
