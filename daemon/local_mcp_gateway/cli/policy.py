"""The options that say what may be done: by clients (a policy), and by the command of a server (a sandbox)."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.context import with_options
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import counted

_pattern = partial(click.option, multiple=True, metavar="PATTERN")
_limit = partial(click.option, type=click.IntRange(min=0), metavar="N")

policy_options = with_options(
    _pattern(
        "--tools",
        "allowed",
        help="Only these tools: a name, `git_*` or `SERVER/*`. Give all again; `--tools *` is all.",
    ),
    _pattern("--deny", "denied", help="Not these tools. Give all again; `--deny -` is none."),
    click.option(
        "--read-only/--read-write",
        "read_only",
        default=None,
        help="Only tools that change nothing, of servers with --trust-annotations.",
    ),
    _limit("--per-minute", "calls_per_minute", help="How many calls in a minute; 0: any number."),
    _limit("--at-once", "calls_at_once", help="How many calls at once; 0: any number."),
)
"""The options of a policy; `policy_of` takes them out of a command's arguments again."""


def policy_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a policy that these options give."""
    given: dict[str, Any] = {}
    if options["allowed"]:
        given["allowed"] = [] if options["allowed"] == ("*",) else list(options["allowed"])
    if options["denied"]:
        given["denied"] = [] if options["denied"] == ("-",) else list(options["denied"])
    if options["read_only"] is not None:
        given["read_only"] = options["read_only"]
    for limit in ("calls_per_minute", "calls_at_once"):
        if options[limit] is not None:
            given[limit] = options[limit] or None
    return given


def policy_text(policy: dict[str, Any]) -> str:
    """Return a policy in words; empty where everything is allowed."""
    said = []
    if policy["read_only"]:
        said.append("read-only")
    if policy["allowed"]:
        said.append(f"only {', '.join(policy['allowed'])}")
    if policy["denied"]:
        said.append(f"not {', '.join(policy['denied'])}")
    if policy["calls_per_minute"]:
        said.append(f"{counted(policy['calls_per_minute'], 'call')} a minute")
    if policy["calls_at_once"]:
        said.append(f"{counted(policy['calls_at_once'], 'call')} at once")
    return "; ".join(said)


sandbox_options = with_options(
    click.option(
        "--sandbox/--no-sandbox",
        default=None,
        help="Let the command read most files, write none and reach no other program's socket.",
    ),
    click.option(
        "--writable",
        multiple=True,
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        help="Folder that it may write in its sandbox, such as ~/.npm for npx.",
    ),
    click.option(
        "--no-network", is_flag=True, help="No network in its sandbox, not even this machine's."
    ),
)
"""The options that say what the command may do."""


def sandbox_of(options: dict[str, Any]) -> dict[str, Any] | Literal[False] | None:
    """Take the options of `sandbox_options` out of all; None without any, False for no sandbox."""
    wanted = options.pop("sandbox")
    writable, no_network = options.pop("writable"), options.pop("no_network")
    if not wanted:
        if writable or no_network:
            raise UsageProblem(
                "--writable and --no-network belong to a sandbox.", hint="Add --sandbox."
            )
        return None if wanted is None else False
    from local_mcp_gateway.gateway import NoSandbox, sandbox_gaps

    with suppress(NoSandbox):  # that is refused where the server is stored
        for gap in sandbox_gaps():
            ui.tell(f"in the sandbox {gap}.", mark="note: ", fg="yellow", err=True)
    return {"write": [str(path.absolute()) for path in writable], "network": not no_network}
