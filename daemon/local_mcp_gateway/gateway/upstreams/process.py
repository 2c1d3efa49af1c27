"""Run a child process in its own process group and end the whole tree, even if the gateway is killed.

Output is processed in the event-loop iteration in which it arrives: a stream and a reader task would
cost two more iterations for each response.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, TYPE_CHECKING, Final, cast

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
EOF_GRACE_S: Final = 1.0
TERM_GRACE_S: Final = 2.0
OPEN_FILES: Final = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The open-file limits, as inherited; children get them back, since some use select(2)."""


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return a child's environment: the bare minimum of ours, and what is configured for it."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, **env}


@dataclass(frozen=True, slots=True)
class Output:
    """Callbacks for one output of a child. Both run on the event loop and never wait.

    `received` processes data in steps: other tasks may run between two of them.
    """

    received: Callable[[bytes], Iterator[None]]
    ended: Callable[[], None]


class _Descriptor:
    """One end of a pipe that is given to the event loop, which owns it from then on."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._fd = os.dup(pipe.fileno())
        self._is_ours = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)
        pipe.close()

    def fileno(self) -> int:
        """Return its number."""
        return self._fd

    def close(self) -> None:
        """Close it where the loop leaves that to us: libuv has closed it, and the number may be another's."""
        if self._is_ours:
            os.close(self._fd)


class _InputPipe(asyncio.BaseProtocol):
    """The pipe to a child's stdin."""

    def __init__(self, has_room: asyncio.Event, closed: Callable[[], None]) -> None:
        self._has_room, self._closed = has_room, closed

    def pause_writing(self) -> None:
        """Record that the pipe and its buffer are full."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """Record that there is room again."""
        self._has_room.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Report that it is closed, at either end."""
        self._has_room.set()
        self._closed()


class _OutputPipe(asyncio.Protocol):
    """A pipe that a child writes to."""

    _transport: asyncio.ReadTransport

    def __init__(self, output: Output, closed: Callable[[], None]) -> None:
        self._output, self._closed = output, closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to pause it."""
        self._transport = cast("asyncio.ReadTransport", transport)  # uvloop's does not subclass it

    def data_received(self, data: bytes) -> None:
        """Process output."""
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
        """Report that it has ended."""
        self._output.ended()
        self._closed()


def _exit_of(process: Popen[bytes]) -> asyncio.Event:
    """Return what is set when the process has exited, and its exit code is known."""
    loop, exited = asyncio.get_running_loop(), asyncio.Event()

    def readable() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        process.wait()
        exited.set()

    def wait() -> None:
        process.wait()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(exited.set)

    try:
        handle = os.pidfd_open(process.pid)
    except OSError:  # an old kernel, or no free descriptor
        threading.Thread(target=wait, daemon=True).start()
    else:
        loop.add_reader(handle, readable)
    return exited


class ChildProcess:
    """A running child and its pipes: its output goes to two `Output`s, `write` feeds its stdin.

    Not a subprocess of the event loop: uvloop's have sockets for pipes, on which nobody can open
    `/dev/stderr`, inherit every descriptor that can be inherited, and get output while they are paused.
    """

    _stdin: asyncio.WriteTransport

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: str | None) -> None:
        self._process = Popen(
            command,
            bufsize=0,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.exited = _exit_of(self._process)
        """Set when it has exited and its exit code is known, whether or not its pipes are closed."""
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._pipes: list[asyncio.BaseTransport] = []
        self._open_pipes = 3
        self._closed = asyncio.Event()

    @property
    def returncode(self) -> int | None:
        """Return its exit code, or the negative number of the signal; None while it runs."""
        return self._process.returncode

    async def connect(
        self, stdout: Output, stderr: Output, stdin_closed: Callable[[], None]
    ) -> None:
        """Connect its pipes. `stdin_closed` is called when it has closed its stdin, or we have."""
        loop, process = asyncio.get_running_loop(), self._process
        stdin, *outputs = pipes = cast(
            "list[IO[bytes]]", [process.stdin, process.stdout, process.stderr]
        )

        def closed() -> None:
            self._open_pipes -= 1
            if not self._open_pipes:
                self._closed.set()

        def input_closed() -> None:
            closed()
            stdin_closed()

        try:
            self._stdin, _ = await loop.connect_write_pipe(
                lambda: _InputPipe(self._has_room, input_closed), _Descriptor(stdin)
            )
            self._pipes.append(self._stdin)
            for pipe, output in zip(outputs, (stdout, stderr), strict=True):
                transport, _ = await loop.connect_read_pipe(
                    partial(_OutputPipe, output, closed), _Descriptor(pipe)
                )
                self._pipes.append(transport)
        except BaseException:  # cancelled, or without a free descriptor: leave no process behind
            for pipe in pipes:
                pipe.close()
            for connected in self._pipes:
                connected.close()
            _signal(self.pid, signal.SIGKILL)
            await self.exited.wait()
            raise

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
        """Close the pipes of the exited child, even if another process holds their other ends."""
        await self.exited.wait()
        if self._stdin.get_write_buffer_size():
            self._stdin.abort()  # closing it would first write what is buffered
        for pipe in self._pipes:
            pipe.close()
        await self._closed.wait()


def spawn(definition: ServerDefinition) -> ChildProcess:
    """Start the child; its group has its own pid as id, so that `end` reaches grandchildren too."""
    assert definition.command is not None, "a stdio server has a command"
    command = (definition.command, *definition.args)
    try:
        child = ChildProcess(command, child_environment(definition.env), definition.cwd)
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
        self._process: Popen[bytes] | None = None
        self._exited: asyncio.Event
        self._groups: set[int] = set()

    def watch(self, group: int) -> None:
        """Register a process group that must not outlive this process."""
        if self._process is None or self._exited.is_set():
            self._close_stdin()
            self._process = Popen(
                ("/bin/sh", "-c", SCRIPT),
                bufsize=0,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=DEVNULL,
                start_new_session=True,
            )
            self._exited = _exit_of(self._process)
            for known in self._groups:
                self._tell(f"+ {known}\n")
        self._groups.add(group)
        self._tell(f"+ {group}\n")

    def forget(self, group: int) -> None:
        """Unregister a process group that has ended."""
        self._groups.discard(group)
        self._tell(f"- {group}\n")

    def _tell(self, line: str) -> None:
        """Write a line, which the pipe has room for: the shell reads each at once."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # somebody ended it
                self._process.stdin.write(line.encode())

    def _close_stdin(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def close(self) -> None:
        """End the shell; it finds nothing to do."""
        if self._process is not None:
            self._close_stdin()
            await self._exited.wait()
            self._process = None
