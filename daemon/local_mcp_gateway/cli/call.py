"""`call`: one tool of a profile, to try it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.cli.asking import answer_to, as_json_option, complete_pairs
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.command()
@click.argument("tool")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--profile", help="Profile to call it in.  [default: the only one, or `default`]")
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
    """Call one tool and print what it answers; a VALUE that is JSON is passed as such."""
    given = _object(document) if document else {}
    given |= {key: _value(text) for key, text in complete_pairs(arguments, "argument").items()}
    result = answer_to(
        invocation, "call", timeout_s=600, tool=tool, profile=profile, arguments=given
    )
    if as_json:
        render.print_json(result)
    else:
        for part in result.get("content", ()):
            click.echo(part["text"] if part.get("type") == "text" else json.dumps(part))
    return Exit.UNEXPECTED if result.get("isError") else Exit.OK


def _object(document: str) -> dict[str, Any]:
    value = _value(document)
    if not isinstance(value, dict):
        raise UsageProblem(f"--arguments {document!r} is no JSON object.")
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")  # NaN and Infinity are Python's
