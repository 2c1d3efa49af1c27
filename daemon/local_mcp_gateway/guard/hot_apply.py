"""Apply what is pending while this process serves the database: in dev on a save, and on `reload`.

The same story as a start, told again with the lock already held and the file known to be sound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.database.faults import explained
from local_mcp_gateway.guard.attempt import Attempt, no_progress
from local_mcp_gateway.guard.guard import start
from local_mcp_gateway.log import ignore

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from local_mcp_gateway.guard.policy import GuardPolicy
    from local_mcp_gateway.guard.report import GuardReport
    from local_mcp_gateway.log import Emit


def hot_apply(
    database: Path,
    migrations: Path,
    *,
    policy: GuardPolicy,
    emit: Emit = ignore,
    progress: Callable[[str, int, int], None] = no_progress,
    stop: threading.Event | None = None,
) -> GuardReport:
    """Back up, rehearse, apply and verify what is pending; nothing pending is a report too.

    The caller holds the database's lock (`guarded`) and has paused its own writers; readers may go
    on and see the old schema until COMMIT. Runs in a worker thread. Raises as `guarded` does, with
    the database as it was.
    """
    with explained(database):
        return start(Attempt(database, migrations, policy, emit, progress, stop, serving=True))
