"""`logs` prints what the gateway logged; `audit` who did what."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.client import answer_to
from local_mcp_gateway.cli.streams import lost
from local_mcp_gateway.errors import Exit, UsageProblem
from local_mcp_gateway.service.history import logs as history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local_mcp_gateway.cli.context import Invocation


LEVELS = click.Choice(["debug", "info", "warning", "error"])
SOURCES = click.Choice(["auto", "journal", "file"])


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Keep showing new events.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="How many of the last events to show.",
)
@click.option("--level", type=LEVELS, default="debug", help="Least level to show.")
@click.option("--event", default="*", metavar="GLOB", help="Only these events: 'guard.*'.")
@click.option(
    "--since", metavar="TIME", help="Only events since then: 10m, 2h, 1d or 2026-01-31T12:00."
)
@click.option(
    "--from",
    "source",
    type=SOURCES,
    default="auto",
    help="Where to read.  [default: the journal if it has our events, else the file]",
)
@click.option("--calls", is_flag=True, help="Show the log of calls in the database instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, for jq.")
@click.pass_obj
def logs(
    invocation: Invocation,
    *,
    follow: bool,
    lines: int,
    level: str,
    event: str,
    since: str | None,
    source: str,
    calls: bool,
    as_json: bool,
) -> int:
    """Show what the gateway logged, oldest first.

    With --calls: each request of a client with its sizes, and with its payloads where `log.payloads` is on.
    """
    if calls and follow:
        raise UsageProblem(
            "--calls and --follow cannot be given together.",
            hint="`logs --follow --event call.finished` does.",
        )
    after = history.parse_since(since, datetime.now(UTC)) if since else None
    wanted = history.EventFilter(level, event, after)
    journal = source == "journal" or (source == "auto" and history.has_journal())
    show = _printer(as_json=as_json)
    events: Iterator[history.LoggedEvent | None]
    if calls:
        events = history.read_calls(invocation.database)
    elif journal:
        events = history.read_journal(follow=follow)
    else:
        events = history.read_file(invocation.database, follow=follow)
    past = takewhile(lambda line: line is not None, events)
    shown = deque((line for line in past if line and wanted.matches(line)), maxlen=lines)
    for line in shown:
        show(line)
    if not shown and not follow and lines:
        what = "Nothing" if wanted == history.EventFilter() and not calls else "No such event"
        where = "journal" if journal else f"log of {invocation.database}"
        ui.tell(f"{what} is in the {where}.", err=True)
    with suppress(KeyboardInterrupt):
        for coming in events:
            if coming and wanted.matches(coming):
                show(coming)
                if lost(sys.stdout):
                    break
    return Exit.OK


def _printer(*, as_json: bool) -> Callable[[history.LoggedEvent], None]:
    from local_mcp_gateway.log import AT, LEVEL, configure

    log = configure("json" if as_json else "console", "debug", sys.stdout)

    def show(line: history.LoggedEvent) -> None:
        log(line.event, **{**line.fields, AT: line.at.timestamp(), LEVEL: line.level})

    return show


@click.command()
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=100, show_default=True,
              help="How many of the newest entries to show.")  # fmt: skip
@click.option("--since", metavar="TIME", help="Only since then: 10m, 2h, 1d, or a date.")
@click.option(
    "--who", metavar="NAME", help="Only of this token, or of command, rest, pages, anybody."
)
@click.option("--action", metavar="PATTERN", help="Only these: `tools/call`, `server.*`.")
@ui.as_json_option
@click.pass_obj
def audit(
    invocation: Invocation,
    *,
    lines: int,
    since: str | None,
    who: str | None,
    action: str | None,
    as_json: bool,
) -> int:
    """Show who did what, oldest first: calls by token and client, and what was changed by which way in."""
    after = history.parse_since(since, datetime.now(UTC)) if since else None
    found = answer_to(
        invocation,
        "audit.list",
        limit=lines,
        since_ms=int(after.timestamp() * 1000) if after else 0,
        who=who,
        action=action,
    )
    if as_json:
        ui.print_json(found)
    elif not found:
        ui.tell("Nothing of that is in the audit.", err=True)
    else:
        ui.print_table(
            ("AT (UTC)", "WHO", "ACTION", "OBJECT", "OUTCOME", "DETAIL"),
            [
                (
                    formats.second(entry["at"]),
                    ", ".join(filter(None, (entry["who"], entry["client"]))),
                    *(entry[column] for column in ("action", "object", "outcome", "detail")),
                )
                for entry in found
            ],
            whole=0,
        )
    return Exit.OK
