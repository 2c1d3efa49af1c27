"""`replica …`: how far the copy off this machine is, whether it can be restored, and whose it is."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.context import Invocation, guard_context, stop_on_signals
from local_mcp_gateway.cli.lazy_group import Group
from local_mcp_gateway.cli.restore import lock_timeout_option, restore_moment, yes_option
from local_mcp_gateway.cli.ui import confirm_by_name, progress_bar
from local_mcp_gateway.errors import Exit, GatewayError, ReplicaTaken
from local_mcp_gateway.service.admin import NoDaemon, ask
from local_mcp_gateway.service.replica import (
    LAST_SYNC_S,
    LEASE_S,
    ReplicaStore,
    Target,
    clocks_differ,
    moments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@click.group(cls=Group)
def replica() -> None:
    """Look after the copy of the database off this machine (`[replica]`)."""


@replica.command()
@ui.as_json_option
@click.pass_obj
def status(invocation: Invocation, *, as_json: bool) -> int:
    """Show where it is, how far behind, and how far back it goes; exit 3 if it is behind or fails."""
    target = Target.of(invocation.settings)
    live = (_asked(invocation.database, "status") or {}).get("replica") or {}
    there, owner, problem = None, {}, None
    try:
        owner = ReplicaStore(target).read() or {}  # says within seconds what is wrong
        there = moments(target)
    except GatewayError as error:
        if not live:
            raise
        problem = error  # what the gateway knows is shown anyway
    shown = {
        "url": target.url,
        "state": live.get("state", "not running"),
        "behind_s": live.get("behind_s"),
        "behind_bytes": live.get("behind_bytes"),
        "transaction": live.get("transaction"),
        "problem": live.get("problem") or (problem and problem.message),
        "database": owner.get("path"),
        "host": owner.get("host"),
        "oldest": formats.iso(there.oldest) if there else live.get("oldest"),
        "newest": formats.iso(there.newest) if there else None,
        "bytes": there.bytes if there else 0,
        "keep_days": target.keep_days,
        "checked_at": owner.get("checked_at") or live.get("checked_at"),
    }
    if as_json:
        ui.print_json(shown)
    else:
        for line in _lines(shown):
            ui.tell(line)
        if hint := live.get("hint") or (problem and problem.hint):
            ui.tell(hint, mark="→ ")
    return Exit.DIFFERS if problem or shown["state"] in {"behind", "failed"} else Exit.OK


def _lines(shown: dict[str, Any]) -> Iterator[str]:
    yield f"Replica   {shown['url']}"
    if shown["database"]:
        yield f"Of        {shown['database']} on {shown['host']}"
    yield f"State     {shown['state']}"
    if shown["behind_s"]:
        unsent = shown["behind_bytes"]
        known = f", {formats.size(unsent)} not sent" if unsent is not None else ""
        yield f"Behind    {shown['behind_s']:g} s{known}"
    if shown["problem"]:
        yield f"Reason    {shown['problem']}"
    if shown["newest"] is None and shown["oldest"] is not None:
        yield f"Moments   from {shown['oldest']} on, kept for {shown['keep_days']} days"
    elif shown["oldest"] is None:
        yield "Moments   none: nothing is there yet"
    else:
        yield f"Moments   from {shown['oldest']} to {shown['newest']}, kept for {shown['keep_days']} days"
        yield f"Size      {formats.size(shown['bytes'])}"
    yield f"Checked   {shown['checked_at'] or 'never: `replica check` does it'}"


def _asked(database: Path, verb: str, arguments: dict[str, Any] | None = None) -> Any:
    """Return what the running gateway says of its replica, or None."""
    try:
        return ask(database, verb, arguments or {}, timeout_s=4 * LAST_SYNC_S)
    except (NoDaemon, GatewayError, OSError):
        return None


_ROWS = {
    "same": "every row is as in the database",
    "behind": "not everything is sent yet",
    "changing": "the database was written all the while, so its rows were not compared",
    "alone": "there is no database here to compare it with",
}


@replica.command()
@ui.as_json_option
@click.pass_obj
def check(invocation: Invocation, *, as_json: bool) -> int:
    """Restore the newest state next to the database, check it in full, and compare every row.

    Exit 3 if not everything is sent, 9 if it is damaged or is not the database.
    """
    from local_mcp_gateway.database import Run
    from local_mcp_gateway.service.replica import check as check_replica

    target, database = Target.of(invocation.settings), invocation.database
    invocation.prepare_folder()
    with stop_on_signals() as stop, progress_bar() as progress:
        run = Run(stop=stop, progress=progress)
        found = check_replica(target, database, lambda: _asked(database, "replica.sync"), run)
    checked_at = formats.iso()
    if not _asked(database, "replica.checked", {"at": checked_at}) and (
        identity := _identity(database)
    ):
        with suppress(GatewayError):  # it is another's, or cannot be written
            ReplicaStore(target).note_check(identity, database.resolve(), checked_at)
    if as_json:
        ui.print_json(
            {
                "url": target.url,
                "bytes": found.bytes,
                "applied": list(found.applied),
                "tables": found.tables,
                "rows": found.rows,
                "differences": list(found.differences),
            }
        )
    else:
        facts = (
            formats.size(found.bytes),
            formats.counted(found.tables, "table"),
            formats.counted(len(found.applied), "migration"),
        )
        ui.tell(f"{target.url} can be restored: {', '.join(facts)}; {_ROWS[found.rows]}.")
        for difference in found.differences:
            ui.tell(f"  {difference}")
    return Exit.DIFFERS if found.rows == "behind" else Exit.OK


def _identity(database: Path) -> str | None:
    from local_mcp_gateway.database import reading
    from local_mcp_gateway.migrate import Ledger

    with suppress(GatewayError), reading(database) as reader:
        return Ledger(reader).identity()
    return None


@replica.command()
@click.option("--at", default="latest", help="A moment, local time or ISO 8601; or latest.")
@yes_option
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def restore(invocation: Invocation, /, *, at: str, **how: Any) -> int:
    """Replace the database by its state at a moment; the same as `db restore --at`."""
    return restore_moment(invocation, at=at, url=None, **how)


@replica.command("take-over")
@yes_option
@ui.as_json_option
@click.pass_obj
def take_over(invocation: Invocation, *, yes: bool, as_json: bool) -> int:
    """Make the URL the replica of this database, whosever it was.

    Refused while another gateway replicates there. What is there stays until it is too old: moments before
    the take-over are those of the other database.
    """
    from local_mcp_gateway.guard import identify_guarded

    target, database = Target.of(invocation.settings), invocation.database
    store = ReplicaStore(target)
    owner = store.read(trusting=True)
    identity = _identity(database)
    if owner is None or owner["database"] != identity:
        whose = (
            f"the replica of {owner['path']} on {owner['host']}" if owner else "without an owner"
        )
        confirm_by_name(database.name, [f"{target.url} is {whose}."], yes=yes)
    if identity is None:
        with guard_context(invocation) as context:
            identity = identify_guarded(context)
    claim = partial(store.claim, identity, database.resolve(), used=True, by_force=True)
    try:
        claim()
    except ReplicaTaken as error:
        if owner is None or not clocks_differ(owner):
            raise
        watched = "Its clock or this one is wrong: watching it for a minute."
        ui.tell(f"{error.message} {watched}", err=True)
        with stop_on_signals() as stop:
            if stop.wait(LEASE_S + 1):
                raise
        claim()
    if as_json:
        ui.print_json({"url": target.url, "database": str(database)})
    else:
        ui.tell(f"{target.url} is the replica of {database} now.")
        ui.tell("A running gateway notices within a minute.")
    return Exit.OK
