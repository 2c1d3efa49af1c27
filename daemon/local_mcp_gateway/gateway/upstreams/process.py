"""Run a child process in its own process group and end the whole tree, even if the gateway is killed.

Output is processed in the event-loop iteration in which it arrives: a stream and a reader task would
cost two more iterations for each response.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

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


class ChildProcess(asyncio.SubprocessProtocol):
    """A running child and its pipes: its output goes to two `Output`s, `write` feeds its stdin.

    `stdin_closed` is called when it no longer reads: it has closed its stdin, or we have.
    """

    pid: int
    _transport: asyncio.SubprocessTransport
    _stdin: asyncio.WriteTransport

    def __init__(self, stdout: Output, stderr: Output, stdin_closed: Callable[[], None]) -> None:
        self.exited = asyncio.Event()
        """Set when it has exited and its exit code is known, whether or not its pipes are closed."""
        self._closed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._outputs = {1: stdout, 2: stderr}
        self._ended = {0: stdin_closed, 1: stdout.ended, 2: stderr.ended}

    @property
    def returncode(self) -> int | None:
        """Return its exit code, or the negative number of the signal; None while it runs."""
        return self._transport.get_returncode()

    # --- its stdin ------------------------------------------------------------------------------

    @property
    def reads(self) -> bool:
        """Whether its stdin is open."""
        return not self._stdin.is_closing()

    @property
    def is_full(self) -> bool:
        """Whether so much is unread that the next writer should wait for `room`."""
        return not self._has_room.is_set()

    async def room(self) -> None:
        """Return once it has read most of what was written, or no longer reads."""
        await self._has_room.wait()

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
            _signal(self.pid, signal.SIGKILL)
            await self._give_pipes_back()

    async def _exits_within(self, patience_s: float) -> bool:
        try:
            async with asyncio.timeout(patience_s):
                await self.exited.wait()
        except TimeoutError:
            return False
        return True

    async def _give_pipes_back(self) -> None:
        """Close the pipes of the exited child, even if another process holds their other ends.

        Closing polls the child: one that asyncio has not reaped yet would be reaped behind its back,
        and its exit code lost.
        """
        await self.exited.wait()
        if self._stdin.get_write_buffer_size():
            self._stdin.abort()  # closing it would first write what is buffered
        self._transport.close()
        await self._closed.wait()

    # --- what asyncio calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the pipes, which are open by now."""
        assert isinstance(transport, asyncio.SubprocessTransport), "the transport of a child"
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport), "a pipe that is written"
        self._transport, self._stdin, self.pid = transport, stdin, transport.get_pid()

    def pause_writing(self) -> None:
        """Record that its stdin pipe and buffer are full."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """Record that there is room again."""
        self._has_room.set()

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        """Process output; asyncio passes bytes."""
        assert isinstance(data, bytes), "the pipes are not in text mode"
        if not self._takes_all(fd, self._outputs[fd].received(data)):
            self._output(fd).pause_reading()

    def _takes_all(self, fd: int, steps: Iterator[None]) -> bool:
        """Process as much as fits into one turn; schedule the rest."""
        turn = FairShare()
        for _ in steps:
            if rest_s := turn.rest_s():
                asyncio.get_running_loop().call_later(rest_s, self._go_on, fd, steps)
                return False
        return True

    def _go_on(self, fd: int, steps: Iterator[None]) -> None:
        if self._takes_all(fd, steps) and not self._closed.is_set():
            self._output(fd).resume_reading()

    def _output(self, fd: int) -> asyncio.ReadTransport:
        pipe = self._transport.get_pipe_transport(fd)
        assert isinstance(pipe, asyncio.ReadTransport), "a pipe that is read"
        return pipe

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        """Report that an output has ended, or that the child no longer reads."""
        if fd == 0:
            self._has_room.set()
        self._ended[fd]()

    def process_exited(self) -> None:
        """Record that the child has exited, and that asyncio has its exit code."""
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Record that the child has exited and its pipes are closed."""
        self._closed.set()


async def spawn(
    definition: ServerDefinition, stdout: Output, stderr: Output, stdin_closed: Callable[[], None]
) -> ChildProcess:
    """Start the child; its group has its own pid as id, so that `end` reaches grandchildren too."""
    assert definition.command is not None, "a stdio server has a command"
    try:
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: ChildProcess(stdout, stderr, stdin_closed),
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
        raise UpstreamDisconnected(f"{missing!r} does not exist", unsent=True) from None
    except OSError as error:
        raise UpstreamDisconnected(
            f"{definition.command!r} cannot be started: {error.strerror}", unsent=True
        ) from None
    with suppress(ProcessLookupError):
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, OPEN_FILES)
    return child


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


SCRIPT: Final = """: local-mcp-gateway, which ends the servers that would outlive it
printf lmg-reaper 2>/dev/null >/proc/$$/comm
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
        self._process: Process | None = None
        self._groups: set[int] = set()
        self._starting = asyncio.Lock()

    async def watch(self, group: int) -> None:
        """Register a process group that must not outlive this process."""
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    "/bin/sh",
                    "-c",
                    SCRIPT,
                    stdin=PIPE,
                    stdout=DEVNULL,
                    stderr=DEVNULL,
                    start_new_session=True,
                )
                for known in self._groups:
                    self._tell(f"+ {known}\n")
        self._groups.add(group)
        self._tell(f"+ {group}\n")

    def forget(self, group: int) -> None:
        """Unregister a process group that has ended."""
        self._groups.discard(group)
        self._tell(f"- {group}\n")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(ConnectionError, RuntimeError):
                self._process.stdin.write(line.encode())

    async def close(self) -> None:
        """End the shell; it finds nothing to do."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
            self._process = None
