"""Apply changed settings and pending migrations to the running service without losing a request."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from local_mcp_gateway.service.options import guard_policy, planner

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database.pool import ConnectionPool
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.service.options import ServeOptions
    from local_mcp_gateway.service.signals import StopEvent

LIVE = ("guard.", "backup.", "migrations.")
"""Settings that a reload puts in force at once. The others were handed out at the start: they are named
in `needs_restart`, since a setting that silently does nothing is worse than one that is refused."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload."""

    settings: Settings
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]
    applied: tuple[str, ...]
    paused_ms: float

    def as_fields(self) -> dict[str, object]:
        """Return the fields of `service.reloaded` and of `reload --json`."""
        return {
            "changed": list(self.changed),
            "needs_restart": list(self.needs_restart),
            "applied": list(self.applied),
            "paused_ms": self.paused_ms,
        }


async def reload(
    plan: ServeOptions,
    old: Settings,
    database: ConnectionPool,
    emit: Emit,
    progress: Callable[[str, int, int], None],
    stop: StopEvent,
) -> Reloaded:
    """Re-read the settings and apply what is pending; on an error everything stays as it was.

    Writers wait while the guard works, readers do not; no connection is closed.
    """
    from local_mcp_gateway.guard.guard import hot_apply

    new = plan.reread()
    changed = changed_keys(old, new)
    async with database.pause_writes():
        start = time.perf_counter()
        report = await anyio.to_thread.run_sync(
            partial(
                hot_apply,
                old.database_path,
                new.migrations_folder,
                policy=guard_policy(new, dev=plan.dev),
                planner=planner(dev=plan.dev),
                emit=emit,
                progress=progress,
                stop=stop,
            )
        )
        paused_ms = round((time.perf_counter() - start) * 1000, 3)
    return Reloaded(
        settings=new,
        changed=changed,
        needs_restart=tuple(key for key in changed if not key.startswith(LIVE)),
        applied=tuple(step.tag for step in report.applied),
        paused_ms=paused_ms,
    )


def changed_keys(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return `section.key` of every setting whose value differs."""
    before, after = asdict(old), asdict(new)
    return tuple(
        f"{section}.{key}"
        for section in before
        if section != "origins"
        for key in before[section]
        if before[section][key] != after[section][key]
    )
