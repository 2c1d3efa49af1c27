"""The `server` group, and its commands that list, show, approve and remove upstream MCP servers."""

from __future__ import annotations

import json
from difflib import unified_diff
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.client import (
    answer_to,
    confirm,
    remove_after,
    serving_status,
    warn_of_another_version,
)
from local_mcp_gateway.cli.lazy_group import LazyGroup, Target
from local_mcp_gateway.errors import Exit, UsageProblem
from local_mcp_gateway.formats import second

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.cli.context import Invocation

COMMANDS = {
    "add": Target("add_server:add", "Add a server: a command, or a URL."),
    "list": Target("server:list_", "List every server, its state and its profiles."),
    "show": Target("server:show", "Show one server, and what waits for an approval."),
    "edit": Target("add_server:edit", "Change what is given, keep the rest."),
    "remove": Target("server:remove", "Remove a server everywhere."),
    "test": Target("add_server:test", "Connect to a server and say what it offers."),
    "import": Target("import_servers:import_", "Add the servers of another client's file."),
    "approve": Target("server:approve", "Approve new and changed tools, as shown."),
    "login": Target("login:login", "Sign in to a server, in a browser."),
    "logout": Target("login:logout", "Forget the tokens of a server."),
}
_SHOWN: Final = {
    "name": "name", "kind": "kind", "active": "active", "cwd": "cwd", "share": "share",
    "max_clients": "clients", "idle_stop_s": "idle", "timeout_s": "timeout", "proxy": "proxy",
    "ca": "ca",
}  # fmt: skip
"""What `server show` prints of a server where it is set, and under which word."""
REASON = 40
"""Longest reason shown in the list, in characters; `server show` prints all of it."""


@click.group(cls=LazyGroup, table=COMMANDS)
def server() -> None:
    """Add, show, try and remove the upstream MCP servers."""


@click.command("list")
@ui.watch_option
@ui.as_json_option
@click.pass_obj
def list_(invocation: Invocation, *, watch: bool, as_json: bool) -> int:
    """List every server and the profiles that it is in."""
    if watch:
        return ui.shown_until_stopped(partial(_list, invocation, as_json=as_json))
    return _list(invocation, as_json=as_json)


def _list(invocation: Invocation, *, as_json: bool) -> int:
    servers: list[dict[str, Any]] = answer_to(invocation, "server.list")
    warn_of_another_version(serving_status(invocation.database))
    return ui.print_list(
        servers,
        ("NAME", "KIND", "STATE", "TOOLS", "PROFILES", "WHERE"),
        lambda item: (
            item["name"],
            item["kind"],
            _state(item),
            _tools(item["live"]),
            ", ".join(item["profiles"]) or None,
            ("sandbox: " if item["sandbox"] else "") + ui.command_or_url(item),
        ),
        none="There is no server yet: `server add NAME -- COMMAND ARGS…`.",
        as_json=as_json,
    )


@click.command()
@click.argument("name", shell_complete=complete.servers)
@click.option("--secrets", is_flag=True, help="Show the secrets too.")
@ui.as_json_option
@click.pass_obj
def show(invocation: Invocation, *, name: str, secrets: bool, as_json: bool) -> int:
    """Show one server.

    The values of environment and headers, and what looks like a secret in its arguments or URL, only with
    --secrets.
    """
    found = answer_to(invocation, "server.show", name=name, secrets=secrets)
    if as_json:
        ui.print_json(found)
        return Exit.OK
    for key, value in _rows(found):
        ui.tell(value, mark=f"{key:<8} ")
    for tool in found["altered"]:
        show_change(tool)
    return Exit.OK


@click.command()
@click.argument("name", shell_complete=complete.servers)
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
@click.pass_obj
def remove(invocation: Invocation, *, name: str, yes: bool, as_json: bool) -> int:
    """Remove a server everywhere, with its cached catalog."""
    question = f"Remove server {name} from every profile, with its tokens and tool settings?"
    return remove_after(question, invocation, "server", name, yes=yes, as_json=as_json)


@click.command()
@click.argument("name", shell_complete=complete.servers)
@click.argument("tools", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
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
    ui.tell(f"{'altered' if before else 'new    '}  {_visible(tool['tool'])}")
    for line in list(unified_diff(before, after, lineterm="", n=1))[2:]:
        ui.tell(line, mark="         ")


def _lines(tool: dict[str, Any] | None) -> list[str]:
    """Return a tool as lines to compare; characters that a terminal hides (and a model reads) are escaped."""
    if tool is None:
        return []
    text = json.dumps(tool, indent=2, sort_keys=True, ensure_ascii=False)
    return [_visible(line) for line in text.split("\n")]


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)


def _state(server: dict[str, Any]) -> str | None:
    """Return a server's state, with the reason when it is down; None when no gateway runs."""
    if not server["active"]:
        return "off"
    live = server["live"]
    if live is None:
        needed = server["sign_in"] is not None and server["sign_in"]["needed"]
        return "needs sign-in" if needed else None
    if live["state"] == "needs_sign_in":
        return "needs sign-in"
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
    for key, word in _SHOWN.items():
        if (value := found[key]) is not None:
            shown = ("yes" if value else "no") if isinstance(value, bool) else value
            yield word, f"{shown} s" if key.endswith("_s") else shown
    if found["trust_annotations"]:
        yield "trusted", "what its tools say about themselves (readOnlyHint)"
    if found["insecure"]:
        yield "insecure", "its certificate is not checked"
    if (sandbox := found["sandbox"]) is not None:
        may = [f"writes {path}" for path in sandbox["write"]] or ["writes nothing"]
        yield "sandbox", ", ".join([*may, "network" if sandbox["network"] else "no network"])
    yield "where", ui.command_or_url(found)
    if (signed_in := found["sign_in"]) is not None:
        state = "needed" if signed_in["needed"] else "signed in"
        yield "sign-in", " at ".join(filter(None, (state, signed_in["issuer"])))
    for key in ("env", "headers"):
        yield from ((key, f"{item}={value}") for item, value in found[key].items())
    yield from (("headers", f"{name}, from the client") for name in found["client_headers"])
    live = dict(found["live"] or {})
    if again := live.pop("retry_at", None):
        live = {"state": f"{live.pop('state')}, tried again at {second(again)} UTC", **live}
    for key, value in live.items():
        shown = value if isinstance(value, list) else [value]
        yield from ((key, line) for line in shown if line is not None)
