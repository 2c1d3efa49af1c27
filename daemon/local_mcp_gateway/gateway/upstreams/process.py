"""Run a child process in its own process group and end the whole tree, even if the gateway is killed.

Output is processed in the event-loop iteration in which it arrives: a stream and a reader task would
cost two more iterations for each response.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from threading import Thread
from typing import TYPE_CHECKING, Final, cast

from local_mcp_gateway.gateway.upstreams.connection import FairShare, UpstreamDisconnected

if TYPE_CHECKING:
    from local_mcp_gateway.store import ServerDefinition


INHERITED: Final = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
)
"""What a child gets of our environment: the bare minimum, and how this machine reaches others."""
END_BYTES: Final = 4096
"""How much of each end of a line beyond the limit is kept."""
BUSY_TICKS: Final = 10
BUSY_BYTES: Final = 65_536
EOF_GRACE_S: Final = 1.0
TERM_GRACE_S: Final = 2.0
OPEN_FILES: Final = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The open-file limits, as inherited; children get them back, since some use select(2)."""


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return a child's environment: the bare minimum of ours, and what is configured for it."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, **env}


@dataclass(frozen=True, slots=True)
class LineEnds:
    """The kept ends of a line beyond the limit. They overlap in a line that is not much longer."""

    head: bytes
    tail: bytes


class LineReader:
    """Splits chunks into lines. A line beyond the limit is dropped, except for its two ends.

    `overflowed` holds the ends of each such line that the last `feed` completed.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.overflowed: list[LineEnds] = []
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self._bytes = 0
        self._head: bytes | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that this chunk completes, without their line ends."""
        self.overflowed = []
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            if not self._parts and len(part) <= self._limit:
                yield part.removesuffix(b"\r")
                continue
            self._keep(part)
            head, line = self._head, b"".join(self._parts)
            self._parts, self._bytes, self._head = [], 0, None
            if head is None:
                yield line.removesuffix(b"\r")
            else:
                self.overflowed.append(LineEnds(head, line[-END_BYTES:]))
        if rest:
            self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self._bytes += len(part)
        if self._head is not None:
            self._parts = [b"".join(self._parts)[-END_BYTES:]]
        elif self._bytes > self._limit:
            whole = b"".join(self._parts)
            self._head, self._parts = whole[:END_BYTES], [whole[-END_BYTES:]]


@dataclass(frozen=True, slots=True)
class Output:
    """Callbacks for one output of a child. Both run on the event loop and never wait.

    `received` processes data in steps: other tasks may run between two of them.
    """

    received: Callable[[bytes], Iterator[None]]
    ended: Callable[[], None]


class _Stdin(asyncio.BaseProtocol):
    """The writing end of a child's stdin."""

    def __init__(self, closed: Callable[[], None]) -> None:
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.lost = asyncio.Event()
        self._closed = closed

    def pause_writing(self) -> None:
        """Record that the pipe and the buffer are full."""
        self.has_room.clear()

    def resume_writing(self) -> None:
        """Record that there is room again."""
        self.has_room.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Report that the child no longer reads."""
        self.lost.set()
        self.has_room.set()
        self._closed()


class _OutputReader(asyncio.Protocol):
    """The reading end of an output of a child."""

    _transport: asyncio.ReadTransport

    def __init__(self, output: Output) -> None:
        self.lost = asyncio.Event()
        self._output = output

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the pipe, to pause it."""
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Process a chunk; what does not fit into one turn pauses the pipe."""
        if not self._takes_all(self._output.received(data)):
            self._transport.pause_reading()

    def _takes_all(self, steps: Iterator[None]) -> bool:
        """Process as much as fits into one turn; schedule the rest."""
        turn = FairShare()
        for _ in steps:
            if rest_s := turn.rest_s():
                asyncio.get_running_loop().call_later(rest_s, self._go_on, steps)
                return False
        return True

    def _go_on(self, steps: Iterator[None]) -> None:
        if self._takes_all(steps) and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Report that the output has ended."""
        self.lost.set()
        self._output.ended()


class ChildProcess:
    """A running child and its pipes: its output goes to two `Output`s, `write` feeds its stdin.

    It is started with `subprocess` and reaped through its descriptor, so that neither needs a thread and
    both are the same on any event loop.
    """

    def __init__(self, process: Popen[bytes]) -> None:
        self.pid = process.pid
        self.exited = asyncio.Event()
        """Set when it has exited and its exit code is known, whether or not its pipes are closed."""
        self._process = process
        self._pipes: list[tuple[asyncio.BaseTransport, _Stdin | _OutputReader]] = []
        _watch_exit(process, self.exited)

    async def connect(
        self, stdout: Output, stderr: Output, stdin_closed: Callable[[], None]
    ) -> None:
        """Connect its pipes to the event loop."""
        loop, process = asyncio.get_running_loop(), self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._stdin, self._writing = await loop.connect_write_pipe(
            lambda: _Stdin(stdin_closed), process.stdin
        )
        self._pipes.append((self._stdin, self._writing))
        for output, pipe in ((stdout, process.stdout), (stderr, process.stderr)):
            self._pipes.append(await loop.connect_read_pipe(partial(_OutputReader, output), pipe))

    @property
    def returncode(self) -> int | None:
        """Return its exit code, or the negative number of the signal; None while it runs."""
        return self._process.returncode

    # --- its stdin ------------------------------------------------------------------------------

    @property
    def reads(self) -> bool:
        """Whether its stdin is open."""
        return not self._stdin.is_closing()

    @property
    def is_full(self) -> bool:
        """Whether so much is unread that the next writer should wait for `room`."""
        return not self._writing.has_room.is_set()

    async def room(self) -> None:
        """Return once it has read most of what was written, or no longer reads."""
        await self._writing.has_room.wait()

    def write(self, data: bytes) -> None:
        """Write to its stdin; what the pipe cannot take yet is buffered."""
        self._stdin.write(data)

    # --- its end --------------------------------------------------------------------------------

    async def end(self) -> None:
        """Close stdin, then TERM, then KILL the group, each after a grace period; return when it is gone.

        The group is killed at the end in any case: a grandchild may outlive the child. A process that has
        left the group lives on; it is neither read nor waited for.
        """
        self._stdin.close()
        try:
            if self.returncode is None and not await self._exits_within(EOF_GRACE_S):
                _signal(self.pid, signal.SIGTERM)
                await self._exits_within(TERM_GRACE_S)
        finally:  # also when the wait was cancelled: leave no process behind
            await self.kill()

    async def _exits_within(self, patience_s: float) -> bool:
        try:
            async with asyncio.timeout(patience_s):
                await self.exited.wait()
        except TimeoutError:
            return False
        return True

    async def kill(self) -> None:
        """Kill the group, and close the pipes even if another process holds their other ends."""
        _signal(self.pid, signal.SIGKILL)
        await self.exited.wait()
        for pipe, protocol in self._pipes:
            if pipe is self._stdin and self._stdin.get_write_buffer_size():
                self._stdin.abort()  # nobody reads what is left
            pipe.close()
            await protocol.lost.wait()
        for unconnected in (self._process.stdin, self._process.stdout, self._process.stderr):
            if unconnected is not None:
                unconnected.close()


def _watch_exit(process: Popen[bytes], exited: asyncio.Event) -> None:
    """Reap a child when it exits, and set the event."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # an old kernel, a filter of system calls, or no descriptor is left

        def wait() -> None:
            process.wait()
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(exited.set)

        Thread(target=wait, daemon=True).start()
        return

    def reap() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        process.wait()
        exited.set()

    loop.add_reader(descriptor, reap)


async def spawn(
    definition: ServerDefinition, stdout: Output, stderr: Output, stdin_closed: Callable[[], None]
) -> ChildProcess:
    """Start the child; its group has its own pid as id, so that `end` reaches grandchildren too."""
    child = ChildProcess(_start(definition))
    try:
        await child.connect(stdout, stderr, stdin_closed)
    except BaseException:
        await child.kill()
        raise
    return child


def _start(definition: ServerDefinition) -> Popen[bytes]:
    assert definition.command is not None, "a stdio server has a command"
    try:
        process = Popen(
            [definition.command, *definition.args],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            bufsize=0,
            env=child_environment(definition.env),
            cwd=definition.cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        missing = definition.cwd if error.filename == definition.cwd else definition.command
        raise UpstreamDisconnected(f"{missing!r} does not exist", unsent=True) from None
    except OSError as error:
        raise UpstreamDisconnected(
            f"{definition.command!r} cannot be started: {error.strerror}", unsent=True
        ) from None
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, OPEN_FILES)
    return process


@dataclass(frozen=True, slots=True)
class Activity:
    """What a child and everything that it started have done so far, as far as the system tells."""

    processes: frozenset[int] = frozenset()
    ticks: int = 0
    """Hundredths of a second of processor time."""
    moved_bytes: int = 0
    """Bytes that were read and written: files, pipes and connections."""

    @classmethod
    def of(cls, session: int) -> Activity:
        """Look it up in /proc, which may take some milliseconds; nothing where there is none."""
        found, ticks, moved_bytes = set(), 0, 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):  # it may end meanwhile
                stat = (process / "stat").read_text().rpartition(")")[2].split()
                if int(stat[3]) == session:
                    found.add(int(process.name))
                    ticks += sum(map(int, stat[11:15]))
                    counted = (process / "io").read_text().split()
                    moved_bytes += int(counted[1]) + int(counted[3])
        return cls(frozenset(found), ticks, moved_bytes)

    def is_progress_since(self, before: Activity) -> bool:
        """Return whether more was done than by a program that waits."""
        return (
            self.processes != before.processes
            or self.ticks - before.ticks >= BUSY_TICKS
            or self.moved_bytes - before.moved_bytes >= BUSY_BYTES
        )


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


SCRIPT: Final = """
groups=" "
while read -r what group; do
  case $what in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%% $group *} ${groups#* $group }" ;; esac ;;
  esac
done
for group in $groups; do kill -s TERM -- "-$group" 2>/dev/null; done
[ "${groups## }" ] && sleep 2
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""


class OrphanReaper:
    """A shell that kills leftover process groups when this process dies; restarted with the next child.

    Call `close` when all children are gone.
    """

    def __init__(self) -> None:
        self._process: Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self._groups: set[int] = set()

    def watch(self, group: int) -> None:
        """Register a process group that must not outlive this process."""
        if self._process is None or self._exited.is_set():
            self._start()
        self._groups.add(group)
        self._tell(f"+ {group}\n")

    def _start(self) -> None:
        self._close_pipe()
        self._exited = asyncio.Event()
        self._process = Popen(
            ["/bin/sh", "-c", SCRIPT],
            stdin=PIPE,
            stdout=DEVNULL,
            stderr=DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)  # a stopped shell holds up nobody
        _watch_exit(self._process, self._exited)
        for known in self._groups:
            self._tell(f"+ {known}\n")

    def forget(self, group: int) -> None:
        """Unregister a process group that has ended."""
        self._groups.discard(group)
        self._tell(f"- {group}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError, ValueError):  # it has ended, or was closed
                self._process.stdin.write(line.encode())

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def close(self) -> None:
        """End the shell; it finds nothing to do."""
        if self._process is not None:
            self._close_pipe()
            await self._exited.wait()
            self._process = None
