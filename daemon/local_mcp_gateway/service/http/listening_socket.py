"""The listening socket: inherited from systemd or the dev supervisor, or bound here; and who connects to it.

It listens before the guard runs. So a port in use is reported before anything is touched, and a client
that connects during a migration waits in the backlog instead of being refused. The one exception: if the
database's lock is held, its holder probably has the port too, and the lock's message is the useful one
(exit 4, which systemd retries); then the guard goes first.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import ConfigProblem, PortInUse
from local_mcp_gateway.log import Throttle

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from local_mcp_gateway.log import Emit

FIRST_INHERITED = 3
BACKLOG = 2048
RESERVE: Final = 16
"""Descriptors that clients leave to the rest: enough to start a server, back up, or read a file."""
RETRY_S: Final = 1.0
MORE_FILES: Final = (
    "Close idle clients, or raise the limit: `ulimit -n`, or LimitNOFILE= of a unit."
)
SCARCE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def inherited(environment: Mapping[str, str] = os.environ) -> socket.socket | None:
    """Return the socket that systemd opened for us (sd_listen_fds(3)), or None."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return None
    if not environment.get("LISTEN_FDS", "0").isdecimal() or environment["LISTEN_FDS"] == "0":
        return None
    return adopt(FIRST_INHERITED)


def adopt(descriptor: int) -> socket.socket:
    """Return an inherited descriptor as a socket that child processes do not inherit."""
    os.set_inheritable(descriptor, False)
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return listener


def bind(host: str, port: int, *, has_tokens: Callable[[], bool] = lambda: False) -> socket.socket:
    """Bind and listen; on other addresses than loopback only where clients show tokens.

    Raises ConfigProblem for an address without them, and PortInUse, which names the holder where possible.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigProblem(
            f"The address {host} cannot be resolved: {error.strerror}.",
            hint="Use 127.0.0.1, or another address of this machine, with --host.",
        ) from None
    family, kind, protocol, _, address = found[0]
    if not is_loopback(str(address[0])) and not has_tokens():
        raise ConfigProblem(
            f"Without tokens the gateway listens on loopback only, and {host} is {address[0]}: everybody"
            " who can reach that address could use your servers.",
            hint="Make a token for each client (`token create NAME`); or use 127.0.0.1, and reach it from"
            " elsewhere through SSH (`ssh -L 3001:127.0.0.1:3001`).",
            host=host,
        )
    listener = socket.socket(family, kind, protocol)
    try:
        # Allow binding while connections of the last run are in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _explain(host, port, error) from None
    listener.setblocking(False)
    return listener


class Acceptor:
    """Accepts connections, one in a turn of the event loop: thousands of them take turns with all else.

    While descriptors are scarce, clients wait in the socket's queue.

    The event loops' own servers do not keep a reserve, and at the limit uvloop's accepts a connection and
    closes it without a word.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        connect: Callable[[socket.socket], object],
        emit: Emit,
    ) -> None:
        self._loop = loop
        self._listener, self._connect, self._emit = listener, connect, emit
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._first_reserved = (limit if limit >= 0 else 2**31) - RESERVE
        self._retrying: asyncio.TimerHandle | None = None
        self._told = Throttle()

    def start(self) -> None:
        """Accept from now on."""
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more; who connects from now on waits in the queue."""
        self._loop.remove_reader(self._listener.fileno())
        if self._retrying is not None:
            self._retrying.cancel()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in SCARCE:
                raise
            self._pause(os.strerror(error.errno))
            return
        connection.setblocking(False)
        self._connect(connection)
        if connection.fileno() >= self._first_reserved:  # all lower numbers are taken
            self._pause("the limit of open files is near")

    def _pause(self, why: str) -> None:
        self.stop()
        self._retrying = self._loop.call_later(RETRY_S, self._retry)
        repeated = self._told.repeated(why, time.monotonic())
        if repeated is not None:
            self._emit("gateway.full", reason=why, repeated=repeated, hint=MORE_FILES)

    def _retry(self) -> None:
        try:
            free = os.dup(self._listener.fileno())
            os.close(free)
        except OSError:
            free = self._first_reserved
        if free < self._first_reserved:
            self.start()
        else:
            self._retrying = self._loop.call_later(RETRY_S, self._retry)


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach an IP address."""
    return ip_address(address.partition("%")[0]).is_loopback


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Return `http://host:port` of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _explain(host: str, port: int, error: OSError) -> ConfigProblem | PortInUse:
    if error.errno == errno.EADDRINUSE:
        by = next((f" by {name} (pid {pid})" for pid, name in listeners(port).items()), "")
        return PortInUse(f"Port {port} on {host} is in use{by}.", host=host, port=port)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return ConfigProblem(
        f"The gateway cannot listen on {host} port {port}: {reason}.",
        hint="Use an address of this machine with --host and a port above 1023 with --port.",
    )


def listeners(port: int) -> dict[int, str]:
    """Return pid and name of the processes that listen on a TCP port, as far as /proc shows them.

    There may be several: a supervisor or systemd holds the same socket as the gateway that serves on it.
    """
    inodes = {
        fields[9]
        for table in ("tcp", "tcp6")
        for line in _lines(Path("/proc/net") / table)
        if len(fields := line.split()) > 9
        and fields[3] == "0A"  # TCP_LISTEN
        and int(fields[1].rpartition(":")[2], 16) == port
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = {}
    for process in Path("/proc").glob("[0-9]*") if wanted else ():
        with suppress(OSError):
            if any(str(entry.readlink()) in wanted for entry in (process / "fd").iterdir()):
                found[int(process.name)] = (process / "comm").read_text().strip()
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()[1:]
    except OSError:
        return []
