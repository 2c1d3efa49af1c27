"""Watch and stop processes, which need not be ours."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import anyio

from tests.harness import poll


def alive(pid: int) -> bool:
    try:
        return _state(Path(f"/proc/{pid}")) != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    """Return once a process, which need not be our child, has ended."""
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        with anyio.fail_after(30):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def rss_mib(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


async def stop(pid: int) -> None:
    """Send SIGSTOP, and return once no thread of the process runs any more.

    The kernel hands the signal to one thread; until that one is on, the others may go on working.
    """
    os.kill(pid, signal.SIGSTOP)

    def stands() -> bool:
        with suppress(FileNotFoundError):  # it has ended
            return all(_state(task) not in "RSD" for task in Path(f"/proc/{pid}/task").iterdir())
        return True

    await asyncio.to_thread(poll, stands)


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[0]
