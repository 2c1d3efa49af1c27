"""What one guarded start knows: its inputs, whom it tells, and how long each phase took."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import Interrupted
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.guard.policy import GuardPolicy
from local_mcp_gateway.guard.report import Phases
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.functions import prepare

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.log import Emit


def no_progress(phase: str, done: int, total: int) -> None:
    """Show nothing."""


@frozen
class Attempt:
    """One try at bringing a database to its newest schema; the caller holds the database's lock."""

    database: Path
    migrations: Path
    policy: GuardPolicy = field(default_factory=GuardPolicy)
    emit: Emit = ignore
    progress: Callable[[str, int, int], None] = no_progress
    """`progress(phase, done, total)`: bytes of a `backup`, migrations of `rehearse TAG` and `apply TAG`
    (called before each); often."""
    stop: threading.Event | None = None
    phases: Phases = field(default_factory=Phases)
    serving: bool = False
    """This process has the database open: then only SQLite may open its file, because closing any
    other descriptor of it would drop the POSIX locks of those connections."""

    @property
    def backup_folder(self) -> Path:
        """Return where this database's backups are."""
        return self.policy.backup_folder or self.database.resolve().parent / "backups"

    def prepare(self, connection: Connection) -> None:
        """Register the SQL functions that migrations may call; raises ConfigProblem."""
        prepare(connection, self.policy.functions)

    def checkpoint(self) -> None:
        """Raise Interrupted when a signal asked to stop; called between phases, never after COMMIT."""
        if self.stop is not None and self.stop.is_set():
            raise Interrupted("Stopped by a signal before the migrations were committed.")
