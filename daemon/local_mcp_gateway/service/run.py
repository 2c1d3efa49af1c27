"""The composition root: one service from its first event to the release of the lock.

Lifetimes are nested; read `run` from the outside in: socket ⊃ guard (the lock) ⊃ database ⊃ gateway
⊃ HTTP ⊃ control socket. A signal ends the innermost wait, and leaving the blocks stops everything in the
right order: requests drained, children ended, database closed, clean stop recorded, lock released last.

The guard is blocking code that runs in a worker thread; a signal sets its stop event, and it rolls back.
Guard, gateway and database do not know each other; this module connects them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from local_mcp_gateway import __version__
from local_mcp_gateway.config import prepare_data_folder
from local_mcp_gateway.database import SQLITE_VERSION, read_holder
from local_mcp_gateway.errors import DatabasePathProblem, Exit, PortInUse
from local_mcp_gateway.log import BackgroundWriter, is_journal, log_to_file, tee
from local_mcp_gateway.service import runtime_paths
from local_mcp_gateway.service.exit_status import report_exit, root_cause
from local_mcp_gateway.service.history import StartRecord
from local_mcp_gateway.service.http import ServerCertificate, listening_socket
from local_mcp_gateway.service.options import check_gateway_tables, gateway_policy, planner
from local_mcp_gateway.service.process import (
    Signals,
    bounded_thread_starts,
    event_loop,
    keep_from_children,
    require_files,
)
from local_mcp_gateway.service.progress import StatusLine, report_progress
from local_mcp_gateway.service.replica import replicating
from local_mcp_gateway.service.systemd import Notifier

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from local_mcp_gateway.guard import GuardPolicy, GuardReport
    from local_mcp_gateway.log import Emit, Log
    from local_mcp_gateway.service.options import ServeOptions


def serve(serving: ServeOptions, log: Log) -> Exit:
    """Run the service until a signal ends it, and return the exit code. Main thread only.

    Errors become events here and nowhere else, so that stderr stays one stream of events.
    """
    # The data folder is 0700 and everything written into it 0600, SQLite's own files included.
    os.umask(0o077)
    keep_from_children()
    notifier = Notifier.from_environment()
    status = StatusLine(notifier)
    settings = serving.settings
    with suppress(DatabasePathProblem):  # reported when the guard asks for it
        prepare_data_folder(settings)
    outputs = [BackgroundWriter(log)]
    if runtime_paths.wants_log() or not is_journal(sys.stderr):
        file = log_to_file(
            runtime_paths.prepare_log_file(settings.database_path), settings.log.level
        )
        outputs.insert(0, BackgroundWriter(file))
    # Files come before stderr: what a person has seen is in the file.
    emit = tee(StartRecord(settings.database_path), *outputs)
    with Signals() as signals, bounded_thread_starts() as lift_bound:

        def started() -> None:
            for output in outputs:
                output.start()
            lift_bound()

        try:
            require_files()
            anyio.run(
                partial(run, serving, emit, notifier, status, signals, outputs, started),
                backend_options={"loop_factory": event_loop()},
            )
        except Exception as error:  # noqa: BLE001  the outermost handler of the service
            return report_exit(root_cause(error), emit, notifier)
    return Exit.OK


async def run(
    serving: ServeOptions,
    emit: Emit,
    notifier: Notifier,
    status: StatusLine,
    signals: Signals,
    outputs: Sequence[BackgroundWriter],
    started: Callable[[], None],
) -> None:
    """Start, serve until the stop, and shut down in the right order."""
    from local_mcp_gateway.service.app import RunningService  # not needed for a refusal

    signals.attach()
    settings, loop = serving.settings, asyncio.get_running_loop()
    tee(emit, status)(
        "service.starting",
        version=__version__,
        pid=os.getpid(),
        database=str(settings.database_path),
        migrations=str(settings.migrations_folder),
        dev=serving.dev,
        python=sys.version.split()[0],
        loop="asyncio" if isinstance(loop, asyncio.BaseEventLoop) else "uvloop",
        sqlite=SQLITE_VERSION,
    )
    files = settings.tls_files
    certificate = None if files is None else ServerCertificate(*files)
    listener = _listener(serving)
    try:
        async with _guarding(serving, emit, notifier, status, signals) as report:
            check_gateway_tables(settings.database_path, settings.migrations_folder)
            listener = listener or _bind(serving)
            service = RunningService(
                serving,
                emit,
                notifier,
                status,
                signals,
                started,
                partial(_set_level, outputs),
                certificate,
            )
            try:
                await service.serve(listener, report)
            finally:
                await anyio.to_thread.run_sync(_stop, outputs)
    finally:
        if listener is not None:
            listener.close()


def _set_level(outputs: Sequence[BackgroundWriter], level: str) -> None:
    for output in outputs:
        output.set_level(level)


def _stop(outputs: Sequence[BackgroundWriter]) -> None:
    for output in outputs:
        output.stop()


def _listener(serving: ServeOptions) -> socket.socket | None:
    """Return the listening socket; None if only the lock's holder can free the port (see listening_socket)."""
    if serving.socket_fd is not None:
        return listening_socket.adopt(serving.socket_fd)
    if activated := listening_socket.inherited():
        return activated
    try:
        return _bind(serving)
    except PortInUse:
        if read_holder(serving.settings.database_path) is None:
            raise
        return None


def _bind(serving: ServeOptions) -> socket.socket:
    gateway, database = serving.settings.gateway, serving.settings.database_path
    return listening_socket.bind(
        gateway.host, gateway.port, has_tokens=partial(_has_tokens, database)
    )


def _has_tokens(database: Path) -> bool:
    from local_mcp_gateway.service.admin import has_tokens  # only asked beyond loopback

    return has_tokens(database)


def _policy(serving: ServeOptions) -> GuardPolicy:
    policy = gateway_policy(serving.settings, dev=serving.dev, fresh=serving.fresh)
    return replicating(serving.settings, policy) if serving.replicates else policy


@asynccontextmanager
async def _guarding(
    serving: ServeOptions, emit: Emit, notifier: Notifier, status: StatusLine, signals: Signals
) -> AsyncIterator[GuardReport]:
    """Hold the guard, and with it the database's lock, around the block."""
    from local_mcp_gateway.guard import guarded

    settings = serving.settings
    prepare_data_folder(settings)
    async with report_progress(status, notifier, emit) as reporting:
        guard = guarded(
            settings.database_path,
            settings.migrations_folder,
            policy=_policy(serving),
            planner=planner(dev=serving.dev),
            lock_timeout_s=serving.lock_timeout_s,
            emit=reporting,
            progress=status.progress,
            stop=signals.stop,
        )
        report = await anyio.to_thread.run_sync(guard.__enter__)
    try:
        yield report
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(guard.__exit__, type(error), error, error.__traceback__)
        raise
    await anyio.to_thread.run_sync(guard.__exit__, None, None, None)
