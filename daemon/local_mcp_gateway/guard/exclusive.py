"""The database for one process alone: lock → clean up → check, and a clean stop at the end.

The lock file keeps other gateways and commands out to the end of the block. What a crash left is put
away under it, and the file is checked as far as the last stop was not a clean one.
"""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import clean_up, list_backups, newest_good
from local_mcp_gateway.bundled import bundled
from local_mcp_gateway.database.integrity import probe
from local_mcp_gateway.database.lock import DatabaseLock
from local_mcp_gateway.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local_mcp_gateway.database.lock import Holder
    from local_mcp_gateway.guard.context import GuardContext


@contextmanager
def exclusive(
    context: GuardContext, *, lock_timeout_s: float = 0.0, replaces: bool = False
) -> Iterator[bool]:
    """Hold the database's lock, with the file checked; yield whether the database is new.

    `replaces`: what is there is to be replaced, so it may be anything and is not checked. Raises
    LockHeld, naming the holder, NotADatabase, Damaged or DatabasePathProblem. After a block that ended
    without an exception the clean stop is recorded: the next start need not check the file.
    """
    lock = DatabaseLock(
        context.database,
        timeout_s=lock_timeout_s,
        on_wait=partial(_report_holder, context),
        stop=context.stop,
        replaces=replaces,
    )
    with ExitStack() as held:
        with context.phases.measured("lock"):
            held.enter_context(lock)
        context.emit("guard.locked", database=str(context.database), pid=os.getpid())
        with context.phases.measured("probe"):
            gone = clean_up(context.database, context.backup_folder)
        yield False if replaces else _check(context, gone)
        lock.record_clean_stop()


def _report_holder(context: GuardContext, holder: Holder | None) -> None:
    """Say once for whom this process waits."""
    facts = {"pid": holder.pid, "since": holder.since, "command": holder.command} if holder else {}
    context.emit("guard.waiting", database=str(context.database), **facts)


def _check(context: GuardContext, gone: tuple[Path, ...]) -> bool:
    with context.phases.measured("probe"):
        try:
            found = probe(
                context.database,
                quick_check_limit_s=context.policy.quick_check_limit_s,
                stop=context.stop,
                progress=lambda: context.progress("check", 0, 0),
            )
        except Damaged as error:
            raise Damaged(error.message, hint=_restore_command(context), **error.data) from None
    context.emit(
        "guard.checked",
        state=found.state,
        complete=found.complete,
        bytes=found.bytes,
        swept=len(gone),
        duration_ms=context.phases.ms("probe"),
    )
    return found.state == "new"


def _restore_command(context: GuardContext) -> str:
    """Return the exact command that restores the newest backup that still verifies."""
    listed = list_backups(context.database, context.backup_folder)
    good = newest_good(listed, stop=context.stop)
    if good is None:
        return f"There is no good backup in {context.backup_folder}; put a copy of your own in its place."
    words = ["local-mcp-gateway", "--database", str(context.database)]
    if context.migrations != bundled("migrations"):
        words += ["--migrations", str(context.migrations)]
    command = shlex.join([*words, "db", "restore", good.name])
    return f"Restore the newest good backup, of {good.created_at}: `{command}`."
