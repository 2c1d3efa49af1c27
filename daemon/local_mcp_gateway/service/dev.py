"""Dev mode inside the worker: a saved migration is applied while the gateway runs.

One at a time: changes that come while one is applied are seen in the next look, since what counts is
the folder's content, not the watcher's messages. So saves in quick succession are one, and our own
write to the journal, which is in the look taken afterwards, does not wake us again.

The guard does the work, with writers paused: a backup, a rehearsal, all or nothing. When it refuses,
the gateway serves the old schema and the error stays in `problem` until it is mended.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from local_mcp_gateway.guard.hot_apply import hot_apply
from local_mcp_gateway.service.policy import guard_policy
from local_mcp_gateway.service.refusal import as_told, fields_of
from local_mcp_gateway.service.stable import Look, look, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database.serving import Database
    from local_mcp_gateway.errors import GatewayError
    from local_mcp_gateway.log import Emit

QUIET_MS = 20
"""The watcher hands its changes over after this long without another one."""
WAKE_MS = 100
"""The watcher's thread cannot be cancelled: this is how long a stop may wait for it."""


class HotApply:
    """Watches the migrations folder of one running gateway."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        emit: Emit,
        applied: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._database = database
        self._emit = emit
        self._applied = applied
        self._folder = settings.migrations_folder
        self._seen: Look = look(self._folder)
        self.problem: GatewayError | None = None
        """Why the folder as it is now cannot be applied; None when all is well."""

    async def watch(self) -> None:
        """Apply what is saved, until cancelled."""
        from watchfiles import awatch

        self._emit("dev.watching", folders=[str(self._folder)])
        async for _ in awatch(self._folder, step=QUIET_MS, debounce=200, rust_timeout=WAKE_MS):
            while (now := await settled(self._folder)) != self._seen:
                self._seen = now
                await self._apply()

    async def _apply(self) -> None:
        try:
            async with self._database.paused():
                start = time.perf_counter()
                report = await anyio.to_thread.run_sync(
                    partial(
                        hot_apply,
                        self._settings.database_path,
                        self._folder,
                        policy=guard_policy(self._settings, journal_new_files=True),
                        emit=self._emit,
                    )
                )
                paused_ms = round((time.perf_counter() - start) * 1000, 3)
        except Exception as error:  # noqa: BLE001  a bug, too, leaves the gateway on the old schema
            self.problem = as_told(error)
            self._emit("migration.hot_refused", **fields_of(self.problem))
            return
        finally:
            # Our own write to the journal is part of the folder now, and no reason to wake again.
            self._seen = look(self._folder)
        mended, self.problem = self.problem, None
        for step in report.applied:
            self._emit(
                "migration.hot_applied",
                tag=step.tag,
                statements=step.statements,
                duration_ms=step.duration_ms,
                paused_ms=paused_ms,
                backup=str(report.backup.path) if report.backup else None,
            )
        if mended and not report.applied:
            self._emit("migration.mended", message="The migrations folder fits the database again.")
        if report.applied:
            await self._applied()


async def saves_of(file: Path) -> AsyncIterator[None]:
    """Yield after each save of one file (absolute); an editor's rename over it counts as one."""
    from watchfiles import awatch

    name = file.name
    async for changes in awatch(
        file.parent,
        watch_filter=lambda _, path: path.rpartition("/")[2] == name,
        step=QUIET_MS,
        debounce=200,
        rust_timeout=WAKE_MS,
        recursive=False,
    ):
        if changes:
            yield
