"""A child process in its own process group, ended as a whole tree."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.call import UpstreamLost

if TYPE_CHECKING:
    from local_mcp_gateway.store.model import ServerDefinition

INHERITED: Final = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
)
EOF_GRACE_S: Final = 1.0
TERM_GRACE_S: Final = 2.0


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return what a child sees: the bare minimum of ours, and what is configured for it."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, **env}


async def spawn(definition: ServerDefinition) -> Process:
    """Start the child; its group has its own pid as id, so that `end` reaches grandchildren too."""
    assert definition.command is not None, "a stdio server has a command"
    try:
        return await asyncio.create_subprocess_exec(
            definition.command,
            *definition.args,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=child_environment(definition.env),
            cwd=definition.cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        missing = definition.cwd if error.filename == definition.cwd else definition.command
        raise UpstreamLost(f"{missing!r} does not exist", unsent=True) from None
    except OSError as error:
        raise UpstreamLost(
            f"{definition.command!r} cannot be started: {error.strerror}", unsent=True
        ) from None


async def exited(pid: int) -> None:
    """Return when the process has ended, whoever may still hold its pipes open."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def end(process: Process) -> None:
    """Close stdin, then TERM, then KILL the group, each after a grace; return when it is gone.

    The group is killed at the end in any case: a grandchild may outlive the child.
    """
    if process.stdin is not None:
        process.stdin.close()
    try:
        if process.returncode is None and not await _gone(process, EOF_GRACE_S):
            _signal(process.pid, signal.SIGTERM)
            await _gone(process, TERM_GRACE_S)
    finally:
        _signal(process.pid, signal.SIGKILL)
    await process.wait()


async def _gone(process: Process, patience_s: float) -> bool:
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        return False
    return True


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
