"""Litestream as a child process: its configuration, its start and stop, and its socket.

What it says and leaves unsaid was measured with 0.5.17: its exit code is 0 after a stop that sent nothing, and
its metrics do not show that a replica falls behind. So what it has sent is always asked over its socket.

Who else checkpoints tears the replica. Litestream takes a WAL that began again for the next part of the one that
it has read, if the last frame that it knows is still in the file; what was committed between, and is in the
database only, is never sent. So nobody else checkpoints while it runs, and it starts with an empty WAL, in which
it finds no such frame and sends the whole database.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from local_mcp_gateway.backup import unsent_folder
from local_mcp_gateway.errors import ReplicaProblem
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.service.replica.store import INSTALL, holder
from local_mcp_gateway.service.runtime_paths import socket_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from local_mcp_gateway.service.replica.store import Target

STOP_S: Final = 3
"""Seconds that Litestream itself may take for its last sync."""
ASK_S: Final = 3.0
"""Time limit of one request over its socket."""
LISTEN_POLL_S: Final = 0.02
_LAUNCH: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel for SIGTERM at the death of the gateway (PR_SET_PDEATHSIG), then becomes Litestream."""


_S3_ERROR: Final = re.compile(r"HostID: [^,]*, (api error )?(?P<code>\w+): (?P<words>.+)")


@frozen
class Progress:
    """Transaction numbers of Litestream: of the database, and of what the replica has."""

    txid: int
    replicated: int

    @property
    def level(self) -> bool:
        """Tell whether everything is sent."""
        return self.replicated >= self.txid


def program() -> Path:
    """Return Litestream's program; raises ReplicaProblem where it is not installed."""
    found = which("litestream", path=sysconfig.get_path("scripts")) or which("litestream")
    if found is None:
        raise ReplicaProblem(
            "The replica needs Litestream, which is not installed.", hint=f"Install it: {INSTALL}"
        )
    return Path(found)


def command_of(*arguments: str) -> tuple[str, ...]:
    """Return a command of Litestream that ends with this process; raises ReplicaProblem."""
    return (sys.executable, "-I", "-c", _LAUNCH, str(os.getpid()), str(program()), *arguments)


def environment_of(target: Target) -> dict[str, str]:
    """Return the environment of Litestream, which does not start where AWS_CA_BUNDLE is set."""
    environment = {**os.environ, **target.variables()}
    bundle = environment.pop("AWS_CA_BUNDLE", "")
    if bundle and Path(bundle).is_file():
        environment.setdefault("SSL_CERT_FILE", bundle)
    return environment


def configuration_of(database: Path, target: Target, listen_at: str = "") -> str:
    """Return Litestream's configuration; JSON is YAML."""
    return json.dumps(
        {
            "socket": {"enabled": bool(listen_at), "path": listen_at, "permissions": 0o600},
            "snapshot": {"interval": "24h", "retention": f"{target.keep_days * 24}h"},
            "shutdown-sync-timeout": f"{STOP_S}s",
            "logging": {"type": "json", "level": "info", "stderr": True},
            "dbs": [{"path": str(database), "replica": target.for_litestream()}],
        },
        indent=2,
    )


def write_private(file: Path, text: str) -> None:
    """Write a file that nobody else may read."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as written:
        os.fchmod(descriptor, 0o600)
        written.write(text)


class Litestream:
    """One running Litestream for one database. Used on the event loop."""

    def __init__(self, database: Path, target: Target, folder: Path) -> None:
        self._database = database
        name = f"litestream-{holder(database)}"
        self._socket, self._file = folder / f"{name}.sock", folder / f"{name}.yml"
        self._target = target
        self._process: asyncio.subprocess.Process
        self._handle: int
        """The process, for signals: those of asyncio may take its exit code from the watcher that waits for it."""
        self.last_error = ""
        self.gives_up = False
        """Whether its end does not wait for another last sync: the one before sent not everything in time."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Litestream]:
        """Run it for the block; nobody else makes a checkpoint meanwhile, and the WAL is empty."""
        await anyio.to_thread.run_sync(self._configure)
        self._process = await asyncio.create_subprocess_exec(
            *command_of("replicate", "-no-expand-env", "-config", str(self._file)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment_of(self._target),
            cwd=self._socket.parent,  # a longer path would not fit into the address of a socket
            start_new_session=True,
        )
        self._handle = os.pidfd_open(self._process.pid)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_log)
            try:
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self._end()
                os.close(self._handle)
                self._file.unlink(missing_ok=True)
                self._socket.unlink(missing_ok=True)

    def _configure(self) -> None:
        write_private(self._file, configuration_of(self._database, self._target, self._socket.name))

    async def _end(self) -> None:
        if not self.gives_up:
            self._signal(signal.SIGTERM)
            with anyio.move_on_after(STOP_S + 2):
                await self._process.wait()
                return
        self.kill()
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once, with nothing more sent: the file or the folder is not what it was."""
        self._signal(signal.SIGKILL)

    async def ended(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        return await self._process.wait()

    async def _read_log(self) -> None:
        assert self._process.stderr is not None, "it is a pipe"
        async for line in self._process.stderr:
            with suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") in {"ERROR", "error"}:
                    self.last_error = plain_words(str(entry.get("error") or entry.get("msg")))

    async def sync(self, timeout_s: float = ASK_S) -> Progress | None:
        """Send what is new; return how far it came, or None if that is not known within the time."""
        with anyio.move_on_after(timeout_s):
            await self._listening()
        return await self._sync(timeout_s) or await self._sync(ASK_S, wait=False)

    async def _listening(self) -> None:
        """Wait until it has opened its socket, or has ended: right after its start it has not."""
        while self._process.returncode is None:
            with suppress(OSError), socket_address(self._socket) as address:
                async with await anyio.connect_unix(address):
                    return
            await anyio.sleep(LISTEN_POLL_S)

    async def _sync(self, timeout_s: float, *, wait: bool = True) -> Progress | None:
        body = {"path": str(self._database), "wait": wait, "timeout": max(1, round(timeout_s))}
        found = await self._ask("POST", "/sync", timeout_s + 0.5, body)
        if found is None or "replicated_txid" not in found:
            return None
        return Progress(int(found["txid"]), int(found["replicated_txid"]))

    async def _ask(
        self, method: str, path: str, timeout_s: float, body: object = None
    ) -> dict[str, Any] | None:
        """Return what it answers over its socket, or None if it does not."""
        import aiohttp

        limit = aiohttp.ClientTimeout(total=timeout_s)
        with (
            suppress(aiohttp.ClientError, OSError, ValueError, TimeoutError),
            socket_address(self._socket) as address,
        ):
            connector = aiohttp.UnixConnector(address)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=limit) as client,
                client.request(method, f"http://litestream{path}", json=body) as reply,
            ):
                found: dict[str, Any] = await reply.json(content_type=None)
                return found if reply.status == 200 and isinstance(found, dict) else None
        return None

    async def end_survivor(self) -> None:
        """End the Litestream of a gateway that died, if it lives on: it holds the file."""
        for pid in await anyio.to_thread.run_sync(_processes_with, str(self._file)):
            with suppress(ProcessLookupError):
                end = os.pidfd_open(pid)
                try:
                    os.kill(pid, signal.SIGTERM)
                    await _readable(end, STOP_S + 2)
                    os.kill(pid, signal.SIGKILL)
                    await _readable(end, ASK_S)
                finally:
                    os.close(end)
        self._socket.unlink(missing_ok=True)

    def unsent_bytes(self, progress: Progress) -> int:
        """Return the size of Litestream's local files that the replica does not have."""
        folder = unsent_folder(self._database) / "ltx" / "0"
        found = 0
        with suppress(OSError):
            for file in folder.iterdir():
                with suppress(OSError, ValueError):
                    if int(file.stem.split("-")[1], 16) > progress.replicated:
                        found += file.stat().st_size
        return found


def _processes_with(argument: str) -> list[int]:
    """Return the processes that were started with this argument."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if argument.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


async def _readable(descriptor: int, timeout_s: float) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        with anyio.move_on_after(timeout_s):
            await event.wait()
    finally:
        loop.remove_reader(descriptor)


def plain_words(error: str) -> str:
    """Return an error without what differs each time; of an S3 store only its own words."""
    found = _S3_ERROR.search(error)
    if found:
        return f"{found['words'].rstrip('.')} ({found['code']})."
    return error.removeprefix("Error: ")[:300]
