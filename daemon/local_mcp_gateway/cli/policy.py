"""The options that say what may be done: of `profile add`, `profile edit` and `token create`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from local_mcp_gateway.cli.context import with_options
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
