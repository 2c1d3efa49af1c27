"""`tools` and `call`: list the tools that clients get, and call one."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import answer_to
from local_mcp_gateway.cli.streams import print_data
from local_mcp_gateway.errors import Exit, UsageProblem
from local_mcp_gateway.regular_file import read_given

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
    everything = answer_to(invocation, "tools", patience_s=120, profile=profile)
    if server is not None and server not in {tool["server"] for tool in everything}:
        answer_to(invocation, "server.show", name=server)  # refused if there is none
    wanted = f"*{pattern}*" if pattern and "*" not in pattern else pattern or "*"
    found = [
        tool
        for tool in everything
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
        which = f"has {pattern!r} in its name" if everything and pattern else "is shown to clients"
        ui.tell(f"No tool {which}.", err=True)
        if not everything:
            ui.tell("`server list` tells how each server is.", mark="→ ", err=True)
    return Exit.OK


def _first_sentence(text: object) -> str:
    first = str(text or "").strip().split("\n", 1)[0]
    return first.split(". ", 1)[0].removesuffix(".")


@click.command()
@click.argument("tool", shell_complete=complete.tools)
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE | @FILE]...")
@click.option(
    "--profile",
    shell_complete=complete.profiles,
    help="Profile to call it in.  [default: `default`, or the one that has it]",
)
@click.option(
    "--arguments", "document", metavar="JSON", help="All arguments as one JSON object, or @FILE."
)
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
    """Call one tool and print its result.

    A VALUE is what the tool's schema says: text, or JSON such as `5`, `true` or `["a"]`. @FILE holds all
    arguments as one JSON object; @- reads stdin.
    """
    given = _object(document) if document else {}
    texts: dict[str, str] = {}
    for text in arguments:
        key, has_value, value = text.partition("=")
        if text.startswith("@"):
            given |= _object(text)
        elif not key or not has_value:
            raise UsageProblem(
                f"The argument {text!r} has no {'value' if key else 'name'}.",
                hint="Write KEY=VALUE, or @FILE for a JSON object of all arguments.",
            )
        else:
            texts[key] = value
    given |= {key: _value(text) for key, text in texts.items()}
    result = answer_to(
        invocation, "call", patience_s=600, tool=tool, profile=profile, arguments=given, texts=texts
    )
    if as_json:
        ui.print_json(result)
    else:
        for part in result.get("content", ()):
            print_data(part["text"] if part.get("type") == "text" else json.dumps(part))
    return Exit.UNEXPECTED if result.get("isError") else Exit.OK


def _object(document: str) -> dict[str, Any]:
    """Return the arguments of a JSON document, or of the file that `@` names."""
    if not document.startswith("@"):
        value, where = _value(document), f"--arguments {document!r}"
    else:
        if document == "@":
            raise UsageProblem("@ names no file.", hint="Write @FILE, or @- for stdin.")
        file = document[1:]
        where = "stdin" if file == "-" else file
        try:
            raw = sys.stdin.buffer.read() if file == "-" else read_given(Path(file))
            value = _value(raw.decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageProblem(f"{where} cannot be read: {reason}.") from None
    if not isinstance(value, dict):
        raise UsageProblem(f"{where} is not a JSON object.")
    return value


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")  # NaN and Infinity are Python's, not JSON
