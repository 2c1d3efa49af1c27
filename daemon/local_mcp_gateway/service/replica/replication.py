"""Keep Litestream running while the gateway serves, and know how far behind the replica is.

Whatever goes wrong with the replica, the gateway keeps serving; the log, `replica status`, `doctor` and `/metrics`
say it. Litestream takes a replaced file for the old one, and then sends what never was. So it runs only while
this process holds the database's lock, which every command that replaces the file needs; `paused` stops it
where this process itself replaces the file; and where somebody else does, it is killed.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from local_mcp_gateway.backup import Job, require_free, unhurried, unsent_folder
from local_mcp_gateway.database import Run, database_bytes
from local_mcp_gateway.errors import GatewayError, Interrupted
from local_mcp_gateway.formats import iso
from local_mcp_gateway.guard import GuardContext, identify
from local_mcp_gateway.service.exit_status import fields_of, reported_error, root_cause
from local_mcp_gateway.service.options import guard_policy
from local_mcp_gateway.service.replica.litestream import Litestream
from local_mcp_gateway.service.replica.pin import pin
from local_mcp_gateway.service.replica.sent import (
    FETCH_S,
    connect,
    moments,
    send_copy,
    sent_files,
)
from local_mcp_gateway.service.replica.store import LEASE_S, ReplicaStore, Target
from local_mcp_gateway.service.runtime_paths import runtime_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.service.replica.litestream import Progress

EVERY_S: Final = 1.0
"""Interval of asking how far the replica is, while something is written."""
LOOK_EVERY_S: Final = 0.25
"""Interval of looking whether the path still names the file: Litestream sends once a second."""
CLOCK_STEP_NS: Final = 50_000_000
"""More than a step of the clock that gives files their times."""
BEHIND_S: Final = 10.0
"""Lag that is reported."""
LAST_SYNC_S: Final = 3.0
"""Longest wait, at a stop, for what is not sent yet."""
LOOK_BACK_S: Final = 3600.0
"""Interval of asking how far back the replica goes."""
BACKOFF_S: Final = (1.0, 60.0)

Result = TypeVar("Result")


class Replication:
    """Keeps one Litestream running for one database. All methods run on the event loop."""

    def __init__(self, settings: Settings, pool: ConnectionPool, identity: str, emit: Emit) -> None:
        """Store the arguments; raises ConfigProblem if `replica.url` cannot be used."""
        self._database, self._identity = settings.database_path.resolve(), identity
        self._pool, self._settings = pool, settings
        self._target, self._emit = Target.of(settings), emit
        self._store: ReplicaStore | None = None
        self._seen: dict[str, float] = {}
        self._turn = anyio.Lock()
        """Held while Litestream runs, and by whoever replaces the file."""
        self._run = anyio.CancelScope()
        self._pauses = 0
        self._stop = threading.Event()
        """Stops what asks the store in a thread, which cannot be cancelled."""
        self._running: Litestream | None = None
        self._problem: GatewayError | None = None
        self._progress: Progress | None = None
        self._unsent_since: float | None = None
        """What was written since then may not be sent, by `time.monotonic`; begins when it is first asked."""
        self._sent_log: tuple[int, ...] | None = None
        """The WAL as it was then (`_log`): the same now, and nothing was written since."""
        self._was_level = False
        """Whether everything was sent at any time."""
        self._told_behind = False
        self._renewed_at = 0.0
        self._oldest: datetime | None = None
        self._beginning_lost = False
        """Whether nothing can be restored until another whole copy is there, though what is sent continues."""
        self._checked_at: str | None = None

    @classmethod
    @asynccontextmanager
    async def of(
        cls, settings: Settings, pool: ConnectionPool, emit: Emit
    ) -> AsyncIterator[Replication]:
        """Replicate the open database for the block, under the identity that it has or gets now.

        At the end of the block what is new is sent, and what could not be sent is said.
        """
        context = GuardContext(
            settings.database_path, settings.migrations_folder, guard_policy(settings), serving=True
        )
        async with pool.pause_writes():
            identity = await anyio.to_thread.run_sync(identify, context)
        replication = cls(settings, pool, identity, emit)
        pool.others_out = replication.paused
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(replication._keep_running)
            try:
                yield replication
            finally:
                with anyio.CancelScope(shield=True):
                    await replication._send_last()
                    async with replication.paused():
                        await replication._release()
                tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Have no Litestream for the block, which may replace the file; start it again after it."""
        self._pauses += 1
        self._stop.set()
        self._run.cancel()
        try:
            async with self._turn:
                yield
        finally:
            self._pauses -= 1

    async def sync(self, timeout_s: float = LAST_SYNC_S) -> int | None:
        """Send what is new; return the transaction that the replica has now, or None if it is behind."""
        running = self._running
        progress = await running.sync(timeout_s) if running else None
        if progress is None or not progress.level:
            return None
        return progress.replicated

    async def note_check(self, at: str) -> bool:
        """Note next to the replica when it was checked; tell whether that could be done."""
        if self._running is None:
            return False
        await self._renew(time.monotonic(), at)
        return self._checked_at == at

    async def pin(self, context: GuardContext, tag: str) -> int | None:
        """Send everything before a migration, as `pin` does, with Litestream stopped meanwhile."""
        async with self.paused():
            return await anyio.to_thread.run_sync(pin, self._settings, context, tag)

    def status(self) -> dict[str, Any]:
        """Return what `replica status` and `/metrics` show.

        `behind_s`: what was committed longer ago is in the replica; None until it first had everything.
        """
        since, progress, running = self._unsent_since, self._progress, self._running
        now = time.monotonic()
        if self._has_all():
            since = now
        behind_s = None if since is None else math.ceil((now - since) * 10) / 10
        if self._problem is not None:
            state = "failed"
        elif behind_s is not None and behind_s > BEHIND_S:
            state = "behind"
        else:
            state = "level" if self._was_level else "starting"
        problem = self._problem.message if self._problem else None
        if problem is None and running is not None and state == "behind":
            problem = running.last_error or None
        return {
            "url": self._target.url,
            "state": state,
            "behind_s": behind_s if self._was_level else None,
            "behind_bytes": running.unsent_bytes(progress) if running and progress else None,
            "transaction": progress.replicated if progress else None,
            "oldest": iso(self._oldest, "seconds") if self._oldest else None,
            "checked_at": self._checked_at,
            "problem": problem,
            "hint": self._problem.hint if self._problem else None,
        }

    async def _keep_running(self) -> None:
        pause_s = BACKOFF_S[0]
        while True:
            began = time.monotonic()
            async with self._turn:
                with anyio.CancelScope() as self._run:
                    if self._pauses:  # asked for before there was a run to cancel
                        self._run.cancel()
                    else:
                        self._stop.clear()
                    await self._run_once()
            if self._run.cancelled_caught:
                continue  # paused: the lock was waited for, and is free again
            pause_s = BACKOFF_S[0] if time.monotonic() - began > BACKOFF_S[1] else pause_s
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, BACKOFF_S[1])

    async def _run_once(self) -> None:
        """Run one Litestream until it ends, and report how; never raises."""
        try:
            self._require_file()
            used = await anyio.to_thread.run_sync(self._claim)
            litestream = Litestream(self._database, self._target, runtime_folder(self._database))
            await litestream.end_survivor()
            if self._beginning_lost:
                async with self._pool.leave_checkpoints():
                    await anyio.to_thread.run_sync(self._send_copy)  # waited for: it reads the file
            async with self._pool.leave_checkpoints(), litestream.running():
                self._running, self._problem = litestream, None
                self._emit(
                    "replica.started", url=self._target.url, continued=used, pid=litestream.pid
                )
                code = await self._accompany(litestream)
            self._emit("replica.lost", exit_code=code, reason=litestream.last_error or None)
        except Interrupted:
            pass  # paused, or at the end
        except Exception as error:  # noqa: BLE001  a fault of any kind here is the replica's, and the gateway serves on
            problem = reported_error(root_cause(error))
            if self._problem is None or self._problem.message != problem.message:
                self._emit("replica.failed", **fields_of(problem))
            self._problem = problem
        finally:
            self._running = None

    async def _accompany(self, litestream: Litestream) -> int:
        """Follow a running Litestream; return its exit code when it has ended by itself."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, litestream)
            tasks.start_soon(self._watch_file, litestream)
            tasks.start_soon(self._watch_folder, litestream)
            tasks.start_soon(self._look_back)
            code = await litestream.ended()
            tasks.cancel_scope.cancel()
        return code

    def _require_file(self) -> None:
        """Raise DatabaseGone unless the path still names the file that this gateway serves."""
        if (gone := self._pool.gone()) is not None:
            raise gone

    def _claim(self) -> bool:
        """Take the lease; return whether the replica was there before. Runs in a worker thread.

        Raises ReplicaTaken, ReplicaProblem, or NoRoom for the whole copy that Litestream makes at first.
        """
        run = Run(stop=self._stop)
        store, sent = ReplicaStore(self._target, self._seen), sent_files(self._target, run)
        used = bool(sent.files)
        # What this process replicated to is its own though its object was removed; a folder that lost it, with all
        # that was in it perhaps, may be the place of a disk that is away.
        others = used if self._store is None else store.on_disk
        claim = partial(store.claim, self._identity, self._database, used=others)
        self._checked_at = unhurried(claim, run)
        self._store, self._renewed_at = store, time.monotonic()
        connect(self._target, sent, self._database)
        if not unsent_folder(self._database).exists():
            require_free(
                self._database.parent, database_bytes(self._database), what="Litestream's own copy"
            )
        self._oldest = sent.moments.oldest if sent.moments else None
        self._beginning_lost = used and sent.moments is None
        return used

    def _send_copy(self) -> None:
        run = Run(stop=self._stop)
        send_copy(self._target, self._database, timeout_s=FETCH_S, run=run)

    async def _watch_file(self, litestream: Litestream) -> None:
        while True:
            try:
                self._require_file()
            except GatewayError:
                litestream.kill()
                raise
            await anyio.sleep(LOOK_EVERY_S)

    async def _watch_folder(self, litestream: Litestream) -> None:
        """End Litestream where the folder of the replica is gone, with its disk perhaps: it would make it again."""
        store, loop = self._store, asyncio.get_running_loop()
        assert store is not None, "the lease was taken"
        if not store.on_disk:
            return
        seen, stop = asyncio.Event(), threading.Event()

        def look() -> bool:
            try:
                return store.lost_folder(stop)
            finally:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(seen.set)

        looking = Job(look)
        try:
            await seen.wait()
        finally:
            stop.set()
        if looking.outcome():
            litestream.kill()
            raise store.gone()

    async def _look_back(self) -> None:
        """Ask for the oldest moment that can come back: soon after the first is there, then every hour."""
        while True:
            await anyio.sleep(LEASE_S / 3 if self._oldest is None else LOOK_BACK_S)
            with suppress(GatewayError):
                there = await self._ask(partial(moments, self._target))
                self._oldest = there.oldest if there else None

    def _log(self) -> tuple[int, ...] | None:
        """Return what changes with each commit: the WAL's size and time.

        None just after a commit: the clock of files has steps, and the next one may get the same time.
        """
        try:
            found = os.stat(f"{self._database}-wal")  # noqa: PTH116  every second, and for each `status`
        except OSError:
            return None
        settled = time.time_ns() - found.st_mtime_ns > CLOCK_STEP_NS
        return (found.st_ino, found.st_size, found.st_mtime_ns) if settled else None

    def _has_all(self) -> bool:
        """Tell whether nothing was written since the replica had everything; asks nobody."""
        return self._sent_log is not None and self._sent_log == self._log()

    async def _follow(self, litestream: Litestream) -> None:
        """Ask how far the replica is, and renew the lease, until cancelled."""
        while True:
            asked_at, log = time.monotonic(), self._log()
            if self._has_all() or await self._sync(litestream):
                self._caught_up(asked_at, log)
            elif self._unsent_since is None:
                self._unsent_since = asked_at
            elif not self._told_behind and asked_at - self._unsent_since > BEHIND_S:
                self._told_behind = True
                behind_s = round(asked_at - self._unsent_since, 1)
                self._emit(
                    "replica.behind", behind_s=behind_s, reason=litestream.last_error or None
                )
            if asked_at - self._renewed_at > LEASE_S / 3:
                await self._renew(asked_at)
            await anyio.sleep(EVERY_S)

    async def _sync(self, litestream: Litestream) -> bool:
        """Send what is new; tell whether all is sent."""
        progress = await litestream.sync()
        self._progress = progress or self._progress
        return progress is not None and progress.level

    def _caught_up(self, at: float, log: tuple[int, ...] | None) -> None:
        if self._told_behind and self._unsent_since is not None:
            self._emit("replica.caught_up", behind_s=round(at - self._unsent_since, 1))
        self._told_behind, self._was_level, self._unsent_since = False, True, at
        self._sent_log = log

    async def _renew(self, now: float, checked_at: str | None = None) -> None:
        """Renew the lease; stop for another holder, not for a store that does not answer."""
        assert self._store is not None, "the lease was taken"
        try:
            renew = partial(self._store.renew, self._identity, self._database, checked_at)
            self._checked_at = await self._ask(renew)
            self._renewed_at = now
        except GatewayError as error:
            if error.code == "replica_taken":
                raise

    async def _send_last(self) -> None:
        """Send what is new before the stop, and say whether all of it was sent: Litestream does not."""
        running = self._running
        if running is None:
            return
        progress = await running.sync(LAST_SYNC_S)
        level = progress is not None and progress.level
        running.gives_up = not level
        self._emit(
            "replica.stopped" if level else "replica.left_behind",
            transaction=progress.replicated if progress else None,
            unsent_bytes=running.unsent_bytes(progress) if progress else None,
        )

    async def _release(self) -> None:
        """End the lease; what cannot be said to the store ends by itself."""
        store = self._store
        if store is None:
            return
        with suppress(GatewayError):  # of which one is that it took too long
            await self._ask(partial(store.release, self._identity, self._database))

    async def _ask(self, work: Callable[[], Result]) -> Result:
        """Ask the store in a thread that neither a stop nor the end of the process waits for, but two seconds."""
        run = Run(stop=self._stop)
        return await anyio.to_thread.run_sync(unhurried, work, run, abandon_on_cancel=True)
