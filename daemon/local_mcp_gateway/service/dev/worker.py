"""Dev mode inside the worker: a saved migration is applied while the gateway runs.

One at a time: changes that come while one is applied are seen in the next look, since what counts is
the folder's content, not the watcher's messages. So saves in quick succession are one, and our own
write to the journal, which is in the look taken afterwards, does not wake us again.

The guard does the work, with writers paused: a backup, a rehearsal, all or nothing. When it refuses,
the gateway serves the old schema and the error stays in `problem` until it is mended.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from local_mcp_gateway.errors import HistoryRefused, Interrupted
from local_mcp_gateway.guard.context import GuardContext
from local_mcp_gateway.guard.guard import hot_apply
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
from local_mcp_gateway.service.options import guard_policy, planner, require_gateway_tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database.pool import ConnectionPool
    from local_mcp_gateway.errors import GatewayError
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.service.signals import StopEvent


QUIET_MS = 5
MOST_MS = 200
"""The watcher hands its changes over after so long without another one, or after so long at all."""


@dataclass(frozen=True, slots=True)
class _Done:
    """What one look at the folder has led to."""

    steps: tuple[Step, ...]
    paused_ms: float
    backup: Backup | None = None
    rewound: bool = False
    unchanged: frozenset[str] = frozenset()


class HotApply:
    """Watches the migrations folder of one running gateway."""

    def __init__(
        self,
        settings: Settings,
        database: ConnectionPool,
        emit: Emit,
        applied: Callable[[], Awaitable[None]],
        stop: StopEvent,
    ) -> None:
        self._settings = settings
        self._database = database
        self._emit = emit
        self._applied = applied
        self._stop = stop
        self._folder = settings.migrations_folder
        self._policy = guard_policy(settings, dev=True)
        self._seen = NOTHING
        """Nothing yet: what was saved while the start went on is looked at too."""
        self._one_at_a_time = anyio.Lock()
        self.problem: GatewayError | None = None
        """Why the folder as it is now cannot be applied; None when all is well."""

    @property
    def _known(self) -> frozenset[str]:
        """Return the files whose absence is probably a save that is not finished."""
        return frozenset(name for name, _ in self._seen.files if name != JOURNAL)

    async def watch(self) -> None:
        """Apply what is saved, until cancelled."""
        from watchfiles import DefaultFilter

        watching = False
        watched = WatchSpec(
            self._folder.absolute(), DefaultFilter(), step_ms=QUIET_MS, debounce_ms=MOST_MS
        )
        async for changed in changes(watched, self._emit):
            # The first time, changed or not: only now is nothing missed any more.
            if not watching:
                self._emit("dev.watching", folders=[str(self._folder)])
            elif not changed:
                continue
            watching = True
            # What was refused may fit by now though its text is the same: the hint says to save it.
            again = bool(self.problem) and any(path.endswith(".sql") for _, path in changed)
            while (
                now := await wait_until_stable(self._folder, self._known)
            ) != self._seen or again:
                async with self._one_at_a_time:
                    self._seen = now
                    again = await self._apply(now)

    async def _apply(self, seen: FolderState) -> bool:
        """Apply the folder and tell it; return whether something was written into it meanwhile.

        Be it by us (the journal): of a text that is saved, and taken back at once, nobody knows which
        of the two was applied. It is looked for before anything is told: what follows that is news.
        """
        try:
            done = await self._bring_up()
        except Interrupted:
            return False  # there will be no other look; the next start applies it
        except Exception as error:  # noqa: BLE001  a bug, too, leaves the gateway on the old schema
            meanwhile = folder_state(self._folder) != seen
            self._tell_problem(error)
            return meanwhile
        meanwhile = folder_state(self._folder) != seen
        mended, self.problem = self.problem, None
        for step in done.steps:
            backup = str(done.backup.path) if done.backup else None
            fields = {**step.as_fields(), "paused_ms": done.paused_ms, "backup": backup}
            if step.tag in done.unchanged:
                fields[LEVEL] = "debug"  # the line of the rewind has named it
            self._emit("migration.hot_applied", **fields)
        if mended and not done.steps:
            self._emit("dev.recovered")
        if done.steps or done.rewound or mended:
            await self._read_again()
        return meanwhile

    def _tell_problem(self, error: Exception) -> None:
        self.problem = reported_error(error)
        # What has to be done is the same as at a start, but nothing has to be started.
        hint = self.problem.hint.replace("start again", "save")
        self._emit("migration.hot_refused", **{**fields_of(self.problem), "hint": hint})

    async def _read_again(self) -> None:
        """Let the gateway read its own tables again; where they are gone, it serves what it knows."""
        try:
            await anyio.to_thread.run_sync(
                require_gateway_tables, self._settings.database_path, self._folder
            )
            await self._applied()
        except Exception as error:  # noqa: BLE001  the next save may mend it
            self._tell_problem(error)

    async def _bring_up(self) -> _Done:
        """Apply the folder; where it no longer says what was applied, by a rewind."""
        try:
            return await self._hot_apply()
        except HistoryRefused:
            done = await self._rewind()
            if done is None:
                raise
            return done if done.steps else await self._hot_apply()

    async def _hot_apply(self) -> _Done:
        async with self._database.pause_writes():
            start = time.perf_counter()
            report = await anyio.to_thread.run_sync(
                partial(
                    hot_apply,
                    self._settings.database_path,
                    self._folder,
                    policy=self._policy,
                    planner=planner(dev=True),
                    emit=self._tell_details,
                    stop=self._stop,
                )
            )
            return _Done(report.applied, _ms_since(start), report.backup)

    def _tell_details(self, event: str, /, **fields: object) -> None:
        """Report what the guard does, but quietly: a save is one line on the console."""
        self._emit(event, **fields, **{LEVEL: "debug"})

    async def _rewind(self) -> _Done | None:
        """Take back what the folder no longer says; None when that would not mend it."""
        from local_mcp_gateway.guard.divergence import find_divergence
        from local_mcp_gateway.guard.rewind import rewind

        context = self._context()
        divergence = await anyio.to_thread.run_sync(
            partial(find_divergence, context, at_start=False)
        )
        if divergence is None:
            return None
        async with self._database.release_file():
            start = time.perf_counter()
            done = await anyio.to_thread.run_sync(rewind, context, divergence)
            paused_ms = _ms_since(start)
        self._emit("migration.rewound", **done.as_fields())
        return _Done(done.steps, paused_ms, rewound=True, unchanged=done.unchanged)

    def _context(self) -> GuardContext:
        return GuardContext(
            self._settings.database_path,
            self._folder,
            self._policy,
            emit=self._tell_details,
            stop=self._stop,
        )

    @property
    def watched(self) -> str:
        """Return the folder, as `db drop` compares it with its own."""
        return str(self._folder.resolve())

    async def drop(self, tag: str) -> dict[str, object]:
        """Take the newest migration back and its files out: one step to whoever watches or reloads."""
        from local_mcp_gateway.guard.rewind import drop_newest

        async with self._one_at_a_time, self._database.release_file():
            done, dropped = await anyio.to_thread.run_sync(drop_newest, self._context(), tag)
        if done:
            self._emit("migration.rewound", **done.as_fields())
            await self._read_again()
        return {
            "tag": dropped.tag,
            "files": [str(file) for file in dropped.files],
            "rewound_by": done.by if done else None,
            "lost": list(map(str, done.lost)) if done else [],
        }


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)


async def saves_of(files: tuple[Path, ...], emit: Emit) -> AsyncIterator[None]:
    """Yield once they are watched, and after each save of one of the files (absolute, in one folder)."""
    names = {file.name for file in files}
    watched = WatchSpec(
        files[0].parent,
        lambda _, path: path.rpartition("/")[2] in names,
        recursive=False,
        step_ms=QUIET_MS,
        debounce_ms=MOST_MS,
    )
    watching = False
    async for changed in changes(watched, emit):
        if changed or not watching:
            watching = True
            yield


def greet(url: str, profiles: tuple[str, ...]) -> None:
    """Print the address of every profile and the lines for the usual clients, on stdout."""
    sys.stdout.write(client_lines(url, profiles))
    sys.stdout.flush()


def client_lines(url: str, profiles: tuple[str, ...]) -> str:
    """Return the text; `url` is without a path."""
    paths = {f"/mcp/{profile}": f"profile {profile}" for profile in profiles}
    first = f"{url}{next(iter(paths), '/mcp')}"
    entry = {"mcpServers": {"local-gateway": {"type": "http", "url": first}}}
    lines = [
        "",
        "  Local MCP Gateway is up. Press Ctrl+C to stop.",
        "",
        *(f"    {url + path:<44} {what}" for path, what in paths.items()),
        *([] if paths else ["    There is no profile yet: `server add NAME -- COMMAND ARGS…`."]),
        "",
        "  Claude Code:",
        f"    claude mcp add --transport http local-gateway {first}",
        "  Cursor, VS Code and other clients, in their mcpServers file:",
        f"    {json.dumps(entry)}",
        "",
    ]
    return "\n".join(lines) + "\n"
