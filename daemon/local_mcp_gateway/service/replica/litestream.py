"""Litestream as a child process: its configuration, its start and stop, its socket, and what it restores.

What it says and leaves unsaid was measured with 0.5.17: its exit code is 0 after a stop that sent nothing, and
its metrics do not show that a replica falls behind. So what it has sent is always asked over its socket.

Who else checkpoints tears the replica. Litestream takes a WAL that began again for the next part of the one that
it has read, if the last frame that it knows is still in the file; what was committed between, and is in the
database only, is never sent. So nobody else checkpoints while it runs, and it starts with an empty WAL, in which
it finds no such frame and sends the whole database.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from subprocess import PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from local_mcp_gateway.backup import unsent_folder
from local_mcp_gateway.database import UNWATCHED
from local_mcp_gateway.errors import NoRoom, ReplicaProblem, UsageProblem
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.service.replica.store import INSTALL, holder
from local_mcp_gateway.service.runtime_paths import socket_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from typing import Any

    from local_mcp_gateway.database import Run
    from local_mcp_gateway.service.replica.store import Target

STOP_S: Final = 3
"""Seconds that Litestream itself may take for its last sync."""
ASK_S: Final = 3.0
"""Time limit of one request over its socket."""
LISTEN_POLL_S: Final = 0.02
LIST_S: Final = 60.0
FETCH_S: Final = 3600.0
LOOK_S: Final = 0.1
"""Interval of looking whether a command is asked to stop."""
WHOLE: Final = 9
"""Litestream's level of whole copies."""
_LAUNCH: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
os.getppid() == int(sys.argv[1]) or sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Asks the kernel for SIGTERM at the death of the gateway (PR_SET_PDEATHSIG), then becomes Litestream."""


_NOT_LITESTREAM: Final = re.compile(r"unknown command|^\w+: \[Errno \d+\]")
"""What an old one says, and what `_LAUNCH` says where the program cannot be run."""
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


@frozen
class Moments:
    """What a replica can bring back."""

    oldest: datetime
    newest: datetime
    bytes: int


def program() -> Path:
    """Return Litestream's program; raises ReplicaProblem where it is not installed."""
    found = which("litestream", path=sysconfig.get_path("scripts")) or which("litestream")
    if found is None:
        raise ReplicaProblem(
            "The replica needs Litestream, which is not installed.", hint=f"Install it: {INSTALL}"
        )
    return Path(found)


def _command(*arguments: str) -> tuple[str, ...]:
    """Return a command of Litestream that ends with this process; raises ReplicaProblem."""
    return (sys.executable, "-I", "-c", _LAUNCH, str(os.getpid()), str(program()), *arguments)


def _environment(target: Target) -> dict[str, str]:
    """Return the environment of Litestream, which does not start where AWS_CA_BUNDLE is set."""
    environment = {**os.environ, **target.variables()}
    bundle = environment.pop("AWS_CA_BUNDLE", "")
    if bundle and Path(bundle).is_file():
        environment.setdefault("SSL_CERT_FILE", bundle)
    return environment


def _configuration(database: Path, target: Target, listen_at: str = "") -> str:
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


def _write_private(file: Path, text: str) -> None:
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
            *_command("replicate", "-no-expand-env", "-config", str(self._file)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(self._target),
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
        _write_private(self._file, _configuration(self._database, self._target, self._socket.name))

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


@contextmanager
def _configured(database: Path, target: Target) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="local-mcp-gateway-") as folder:
        file = Path(folder) / "litestream.yml"
        _write_private(file, _configuration(database, target))
        yield str(file)


def _run(target: Target, *arguments: str, timeout_s: float, run: Run = UNWATCHED) -> bytes:
    """Run a command of Litestream and return its output; raises Interrupted, and ReplicaProblem with what it said."""
    with Popen(_command(*arguments), stdout=PIPE, stderr=PIPE, env=_environment(target)) as process:
        try:
            output, errors = _outcome(process, timeout_s, run)
        finally:
            process.kill()  # does nothing where it has ended
    if process.returncode != 0:
        said = errors.decode(errors="replace").strip().splitlines()
        reason = plain_words(said[-1]) if said else f"exit code {process.returncode}"
        if _NOT_LITESTREAM.search(reason):
            raise _unusable(reason)
        raise ReplicaProblem(f"The replica cannot be read: {reason}")
    return output


def _unusable(reason: str) -> ReplicaProblem:
    return ReplicaProblem(
        f"{program()} is not a Litestream that can be used here: {reason}",
        hint=f"Install it: {INSTALL}",
    )


def plain_words(error: str) -> str:
    """Return an error without what differs each time; of an S3 store only its own words."""
    found = _S3_ERROR.search(error)
    if found:
        return f"{found['words'].rstrip('.')} ({found['code']})."
    return error.removeprefix("Error: ")[:300]


def _outcome(process: Popen[bytes], timeout_s: float, run: Run) -> tuple[bytes, bytes]:
    until = time.monotonic() + timeout_s
    while True:
        with suppress(TimeoutExpired):
            return process.communicate(timeout=LOOK_S)
        run.progress("fetch", 0, 0)
        run.checkpoint("while the replica was asked")
        if time.monotonic() > until:
            raise ReplicaProblem(f"The replica did not answer within {timeout_s:g} s.")


@frozen
class Sent:
    """The files of a replica: the transactions of each, in hex, its level, size and time."""

    files: Sequence[Mapping[str, Any]]

    def newest(self, level: int | None = None) -> int:
        """Return the newest transaction in the files of a level, or of all; 0 if there is none."""
        found = (file for file in self.files if level is None or file["level"] == level)
        return max((int(file["max_txid"], 16) for file in found), default=0)

    def time_of(self, txid: int | None) -> datetime | None:
        """Return when the newest file that ends with a transaction was made, if there is one."""
        found = [file["timestamp"] for file in self.files if int(file["max_txid"], 16) == txid]
        return datetime.fromisoformat(max(found)) if found else None

    @property
    def moments(self) -> Moments | None:
        """Return what can be brought back, or None if nothing can."""
        whole = [file["timestamp"] for file in self.files if int(file["min_txid"], 16) == 1]
        if not whole:
            return None
        newest = max(file["timestamp"] for file in self.files)
        size = sum(file["size"] for file in self.files)
        return Moments(datetime.fromisoformat(min(whole)), datetime.fromisoformat(newest), size)


def sent_files(target: Target, run: Run = UNWATCHED) -> Sent:
    """Return the files of the replica; raises ReplicaProblem."""
    target.require_folder()
    with _configured(Path("/replica.db"), target) as config:
        output = _run(
            target,
            *("ltx", "-json", "-level", "all", "-no-expand-env", "-config", config, "/replica.db"),
            timeout_s=LIST_S,
            run=run,
        )
    try:
        return Sent(json.loads(output) or [])
    except ValueError:
        raise _unusable("what it lists is not JSON.") from None


def kept_transactions(database: Path) -> list[int]:
    """Return the transactions in Litestream's own files beside the database, in order."""
    files = unsent_folder(database).glob("ltx/0/*-*.ltx")
    return sorted(int(file.stem.split("-")[1], 16) for file in files)


def connect(target: Target, sent: Sent, database: Path) -> None:
    """Have the next Litestream send the whole database where its own files do not continue the replica's.

    Else it would look for the missing transactions forever, and send nothing: they are removed here five
    minutes after they were sent, and the replica may be at another URL now, emptied, or put back from a copy.
    Raises ReplicaProblem where the replica has lost the files that what is sent next would follow.
    """
    kept, received = kept_transactions(database), sent.newest(0)
    newest, unsent = kept[-1] if kept else 0, sum(number > received for number in kept)
    if newest >= sent.newest() and unsent == newest - received:
        return
    if sent.newest() > received:
        raise ReplicaProblem(
            f"{target.url} has lost its newest files: nothing can be sent after what is left.",
            hint="Use another URL, and keep this one while you need a moment that it has.",
        )
    with suppress(FileNotFoundError):
        shutil.rmtree(unsent_folder(database))


def send_copy(target: Target, database: Path, *, timeout_s: float) -> None:
    """Send what is new and a whole copy, while no other Litestream runs and the WAL is empty; raises ReplicaProblem.

    That it ends without an error does not say that everything was sent.
    """
    with _configured(database, target) as config:
        _run(
            target,
            *("replicate", "-once", "-force-snapshot", "-no-expand-env", "-config", config),
            timeout_s=timeout_s,
        )


def moments(target: Target) -> Moments | None:
    """Return what the replica can bring back, or None if nothing is there; raises ReplicaProblem."""
    return sent_files(target).moments


def parse_moment(text: str, now: datetime) -> datetime | None:
    """Return a moment that a person wrote, in local time unless it says otherwise; None for `latest`.

    Raises UsageProblem for what is not a time, and for the future: Litestream would take that for `latest`.
    """
    if text == "latest":
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageProblem(
            f"{text!r} is not a time.",
            hint="Write it like '2026-11-28 14:03' (local time), 2026-11-28T14:03:00Z, or latest.",
        ) from None
    if moment > now + timedelta(seconds=1):
        raise UsageProblem(
            f"{moment:%Y-%m-%d %H:%M:%S} UTC is in the future.",
            hint="Give a moment that has passed, or latest.",
        )
    return moment


def fetch(
    target: Target,
    output: Path,
    *,
    moment: datetime | None = None,
    txid: int | None = None,
    run: Run = UNWATCHED,
) -> datetime:
    """Write the database as it was at a moment (or after a transaction) to a file that is not there yet.

    Return the moment that it is of. Raises ReplicaProblem, NoRoom or Interrupted; then the file may be there
    in part, and is of no use.
    """
    sent = sent_files(target, run)
    there = sent.moments
    if there is None:
        raise ReplicaProblem(f"Nothing is at {target.url}.", hint="Check replica.url.")
    if moment is not None and moment < there.oldest:
        raise ReplicaProblem(
            f"{moment:%Y-%m-%d %H:%M:%S} UTC is before the first moment of the replica,"
            f" {there.oldest:%Y-%m-%d %H:%M:%S} UTC.",
            hint="Give a later moment; `replica status` shows how far back it goes.",
        )
    when = ("-timestamp", f"{moment:%Y-%m-%dT%H:%M:%S}Z") if moment is not None else ()
    which_one = ("-txid", f"{txid:016x}") if txid is not None else ()
    with _configured(Path("/replica.db"), target) as config:
        try:
            _run(
                target,
                *("restore", "-json", "-no-expand-env", "-config", config, *when, *which_one),
                *("-o", str(output), "/replica.db"),
                timeout_s=FETCH_S,
                run=run,
            )
        except ReplicaProblem as error:
            if os.strerror(errno.ENOSPC).lower() not in error.message.lower():
                error.hint = (
                    "Try again; if it stays, give an earlier moment with --at: `replica status` shows how far"
                    " back it goes."
                )
                raise
            raise NoRoom(
                f"Not enough room in {output.parent.parent} for the database of the replica."
            ) from None
    return moment or sent.time_of(txid) or there.newest
