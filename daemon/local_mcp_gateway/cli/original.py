"""Take over a database of the original local-mcp-gateway: `db adopt --from`, and the offer of `serve`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.context import Invocation, guard_context
from local_mcp_gateway.cli.restore import refuse_while_held
from local_mcp_gateway.cli.ui import confirm_by_name
from local_mcp_gateway.errors import UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.database import Connection
    from local_mcp_gateway.store import TakenOver


def take_over(
    invocation: Invocation, *, logs: bool = False, yes: bool = False, lock_timeout: float = 0.0
) -> dict[str, Any]:
    """Take over the database, after a question that shows what becomes of it; return the result.

    Raises NotConfirmed, and what `take_over_guarded` raises; then nothing is changed.
    """
    from local_mcp_gateway.guard import take_over_guarded
    from local_mcp_gateway.service import gateway_policy
    from local_mcp_gateway.service.secrets import Keyring
    from local_mcp_gateway.store import take_over as bring_over

    def confirm(done: TakenOver) -> None:
        for line in done.sentences():
            ui.tell(ui.one_line(line), err=True)
        question = (
            f"{invocation.database} will be replaced by a new database with that, after a backup."
        )
        confirm_by_name(invocation.database.name, [question], yes=yes)

    refuse_while_held(invocation.database, lock_timeout)
    keyring = Keyring.of(invocation.settings, invocation.emitter())
    with guard_context(invocation) as context:
        done, backup = take_over_guarded(
            replace(context, policy=gateway_policy(invocation.settings, dev=False)),
            _require_original,
            partial(bring_over, key=lambda: keyring.sealing_key(()), logs=logs),
            confirm,
            lock_timeout_s=lock_timeout,
        )
    return {**done.as_json(), "backup": backup.name}


def _require_original(connection: Connection) -> None:
    """Raise UsageProblem for any other database, HistoryRefused for one that was left half done."""
    from local_mcp_gateway.migrate import find_original

    original = find_original(connection)
    if original is None:
        raise UsageProblem(
            "This is not a database of the original local-mcp-gateway.",
            hint="Give its file with --database; without --from, `db adopt` takes over others.",
        )
    original.require_whole()


def print_taken_over(result: dict[str, Any]) -> None:
    """Say what to do next: where the old secrets still are, and what the clients have to know."""
    backup = result["backup"]
    ui.tell("Its profiles and servers are here now: see `server list`, `profile list`.")
    ui.tell(
        f"The old database is the backup {backup}, and holds keys and tokens in plain. Once all is"
        f" well, `db backup prune --plain-secrets` removes it; `db restore {backup}` goes back."
    )
    if name := result["default_profile"]:
        text = f'For {name} to stay the default, set `[gateway] default_profile = "{name}"`.'
        ui.tell(text)


def offered(invocation: Invocation) -> bool:
    """Offer on a terminal to take over the database that a start refused; return whether it was done."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or not _is_whole_original(invocation):
        return False
    if not click.confirm(
        "Bring its profiles and servers over now? A backup is made first.", err=True
    ):
        return False
    print_taken_over(take_over(invocation, yes=True))
    return True


def _is_whole_original(invocation: Invocation) -> bool:
    from local_mcp_gateway.database import has_content, reading
    from local_mcp_gateway.migrate import find_original

    if not has_content(invocation.database):
        return False
    with reading(invocation.database) as reader:
        original = find_original(reader)
    return original is not None and original.broken is None
