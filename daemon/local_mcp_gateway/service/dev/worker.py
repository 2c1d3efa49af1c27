"""Dev mode inside the worker: apply a saved migration while the gateway runs.

Changes are applied one round at a time. Each round compares the folder's content, not the watcher's
events: saves in quick succession become one round. The worker's own write to the journal is followed by one
more, which applies what was saved meanwhile, mostly nothing.

The guard does the work while writers are paused: backup, rehearsal, all or nothing. When it refuses, the
gateway keeps serving the old schema, and `problem` holds the error until it is fixed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from local_mcp_gateway.database import no_progress
from local_mcp_gateway.errors import HistoryRefused, Interrupted
from local_mcp_gateway.guard import GuardContext, hot_apply
from local_mcp_gateway.log import LEVEL
from local_mcp_gateway.service.exit_status import fields_of, reported_error
from local_mcp_gateway.service.file_watcher import (
    JOURNAL,
    NOTHING,
    FolderState,
    WatchSpec,
    changes,
    folder_state,
    wait_until_stable,
)
from local_mcp_gateway.service.options import (
    check_gateway_tables,
    gateway_policy,
    planner,
    touches_gateway_tables,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path
    from typing import Any

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database import ConnectionPool, Progress, StopEvent
    from local_mcp_gateway.errors import GatewayError
    from local_mcp_gateway.guard import GuardPolicy
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.migrate import Step
    from local_mcp_gateway.service.file_watcher import Changes


QUIET_MS = 5
MOST_MS = 200
"""The watcher's debounce: the longest time, and the quiet time, before it reports changes."""


@dataclass(frozen=True, slots=True)
class _Done:
    """The result of one round."""

    steps: tuple[Step, ...]
    paused_ms: float
    backup: Backup | None = None
    rewound: bool = False
    unchanged: frozenset[str] = frozenset()


class HotApply:
    """Apply the migrations folder of one running gateway whenever it changes."""

    def __init__(
        self,
        settings: Settings,
        database: ConnectionPool,
        emit: Emit,
        applied: Callable[[], Awaitable[None]],
        stop: StopEvent,
    ) -> None:
        self._database = database
        self._emit = emit
        self._applied = applied
        self._stop = stop
        self._path = settings.database_path
        self._folder = settings.migrations_folder
        self._policy: GuardPolicy
        self.use(settings)
        self._planner = planner(dev=True)
        self._seen = NOTHING
        """Nothing yet, so that saves during the start are applied too."""
        self._one_at_a_time = anyio.Lock()
        self.problem: GatewayError | None = None
        """Why the current folder cannot be applied; None if it can."""

    def use(self, settings: Settings) -> None:
        """Apply later saves with the policy of these settings."""
        self._policy = gateway_policy(settings, dev=True)

    @property
    def _known(self) -> frozenset[str]:
        """Return the files whose absence probably means an unfinished save."""
        return frozenset(name for name, *_ in self._seen.files if name != JOURNAL)

    async def watch(self) -> None:
        """Apply each save until cancelled."""
        from watchfiles import DefaultFilter

        watching = False
        watched = WatchSpec(
            self._folder.absolute(), DefaultFilter(), step_ms=QUIET_MS, debounce_ms=MOST_MS
        )
        async for changed in changes(watched, self._emit):
            # The first round runs in any case: from now on no save is missed.
            if not watching:
                self._emit("dev.watching", folders=[str(self._folder)])
            watching = True
            # A refused text may be acceptable by now: the hint says to save it again.
            again = bool(self.problem) and any(path.endswith(".sql") for _, path in changed)
            while (
                now := await wait_until_stable(self._folder, self._known)
            ) != self._seen or again:
                async with self._one_at_a_time:
                    self._seen = now
                    again = await self._apply(now)

    async def _apply(self, seen: FolderState) -> bool:
        """Apply the folder and report it; return whether something was written into it meanwhile.

        The writer may be this worker (the journal). A text that is saved and reverted at once may or may not
        have been applied, so the folder is read before anything is reported: later changes start a new round.
        """
        try:
            done = await self._bring_up()
        except Interrupted:
            return False  # no later round follows; the next start applies it
        except Exception as error:  # noqa: BLE001  a bug, too, leaves the gateway on the old schema
            meanwhile = folder_state(self._folder) != seen
            self._emit("migration.hot_refused", **self._noted(error))
            return meanwhile
        meanwhile = folder_state(self._folder) != seen
        recovered, self.problem = self.problem, None
        for step in done.steps:
            backup = str(done.backup.path) if done.backup else None
            fields = {**step.as_fields(), "paused_ms": done.paused_ms, "backup": backup}
            if step.tag in done.unchanged:
                fields[LEVEL] = "debug"  # reported with the rewind already
            self._emit("migration.hot_applied", **fields)
        if recovered and not done.steps:
            self._emit("dev.recovered")
        if done.rewound or recovered or any(map(touches_gateway_tables, done.steps)):
            await self._read_again()
        return meanwhile

    def _noted(self, error: Exception) -> dict[str, object]:
        """Keep the problem; return the fields of its event."""
        self.problem = reported_error(error)
        # What has to be done is the same as at a start, but nothing has to be started.
        hint = self.problem.hint.replace("start again", "save")
        excerpt = {k: v for k, v in self.problem.data.items() if k == "excerpt"}
        return {**fields_of(self.problem), "hint": hint, **excerpt}

    async def _read_again(self) -> None:
        """Reload the gateway's definitions after a commit; if its tables are gone, it serves what it has."""
        try:
            await anyio.to_thread.run_sync(check_gateway_tables, self._path, self._folder)
            await self._applied()
        except Exception as error:  # noqa: BLE001  the next save may fix it
            self._emit("service.reload_incomplete", **self._noted(error))

    async def _bring_up(self) -> _Done:
        """Apply the folder; if it no longer matches what was applied, rewind first."""
        try:
            return await self._hot_apply()
        except HistoryRefused:
            done = await self._rewind()
            if done is None:
                raise
            return done if done.steps else await self._hot_apply()

    async def _hot_apply(self) -> _Done:
        async with self._database.pause_writes(), self._database.others_out():
            start = time.perf_counter()
            report = await anyio.to_thread.run_sync(
                partial(
                    hot_apply,
                    self._path,
                    self._folder,
                    policy=self._policy,
                    planner=self._planner,
                    emit=self._emit_details,
                    stop=self._stop,
                )
            )
            return _Done(report.applied, _ms_since(start), report.backup)

    def _emit_details(self, event: str, /, **fields: object) -> None:
        """Report the guard's events quietly: a save is one line on the console."""
        self._emit(event, **fields, **{LEVEL: "debug"})

    async def _rewind(self) -> _Done | None:
        """Revert what the folder no longer contains; None if that would not help."""
        from local_mcp_gateway.guard import find_divergence, rewind_to_folder

        context = self._context()
        divergence = await anyio.to_thread.run_sync(
            partial(find_divergence, context, at_start=False)
        )
        if divergence is None:
            return None
        async with self._database.release_file():
            start = time.perf_counter()
            done = await anyio.to_thread.run_sync(rewind_to_folder, context, divergence)
            paused_ms = _ms_since(start)
        self._emit("migration.rewound", **done.as_fields())
        return _Done(done.steps, paused_ms, rewound=True, unchanged=done.unchanged)

    def _context(self) -> GuardContext:
        return GuardContext(
            self._path,
            self._folder,
            self._policy,
            emit=self._emit_details,
            stop=self._stop,
        )

    async def answer(
        self, verb: str, arguments: Mapping[str, Any], progress: Progress = no_progress
    ) -> object:
        """Run one verb: the folder's path, why it cannot be applied, or take the newest migration back."""
        if verb == "dev.drop":
            return await self.drop(arguments["tag"], progress)
        if verb == "dev.watched":
            return str(self._folder.resolve())
        if self.problem is None:
            return None
        return {**self.problem.as_json(), "excerpt": self.problem.data.get("excerpt")}

    async def drop(self, tag: str, progress: Progress = no_progress) -> dict[str, object]:
        """Revert the newest migration and remove its files, in one step for watchers and reloads."""
        from local_mcp_gateway.guard import drop_newest

        context = replace(self._context(), progress=progress)
        async with self._one_at_a_time, self._database.release_file():
            done, files = await anyio.to_thread.run_sync(drop_newest, context, tag)
        if done:
            self._emit("migration.rewound", **done.as_fields())
            await self._read_again()
        return {
            "tag": tag,
            "files": [str(file) for file in files],
            "rewound_by": done.by if done else None,
            "lost": list(map(str, done.lost)) if done else [],
        }


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)


def saves_of(files: tuple[Path, ...], emit: Emit) -> AsyncIterator[Changes]:
    """Return what yields once when watching has begun, then after each save of one of the files (absolute, one folder)."""
    names = {file.name for file in files}
    watched = WatchSpec(
        files[0].parent,
        lambda _, path: path.rpartition("/")[2] in names,
        recursive=False,
        step_ms=QUIET_MS,
        debounce_ms=MOST_MS,
    )
    return changes(watched, emit)
