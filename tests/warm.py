"""Commands as forks of a process that has the program loaded: a run costs its own work and no imports.

Importing the program takes four fifths of the time of a short command, and the tests run thousands.
`run` gives a fork what a new process would have: arguments, environment, folder, streams and signal
handlers. It is a process of its own, with its own locks, and it can be killed.

`python -m tests.warm` is the process that forks; it never runs the program itself, and ends when its
socket closes, which ends its forks: none outlives killed tests. `tests.harness` decides what is run by it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).parents[1]
LARGEST_ORDER = 1 << 17
NEWS = struct.Struct("i")
"""What is told of a fork, twice: its process id, then its exit code; both may be there at once."""
_one_at_a_time = threading.Lock()


class Fork:
    """A running command, with what the tests use of `subprocess.Popen`; any thread may make one."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        streams: tuple[int, int, int],
        *,
        own_session: bool = False,
    ) -> None:
        """Start the program; `streams` become its stdin, stdout and stderr, and stay open here."""
        order = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "cwd": str(cwd),
            "own_session": own_session,
        }
        news, tell = os.pipe()
        with _one_at_a_time:
            socket.send_fds(_warm(), [json.dumps(order).encode()], [*streams, tell])
        os.close(tell)
        self.arguments = list(arguments)
        (self.pid,) = NEWS.unpack(os.read(news, NEWS.size))
        self._end = news
        self._code: int | None = None
        self._waiting = threading.Lock()

    def wait(self, timeout_s: float) -> int:
        """Wait for the end; return the exit code, or the signal that ended it as a negative number."""
        with self._waiting:
            if self._code is None:
                if not select.select([self._end], [], [], timeout_s)[0]:
                    raise subprocess.TimeoutExpired(self.arguments, timeout_s)
                (self._code,) = NEWS.unpack(os.read(self._end, NEWS.size))
                os.close(self._end)
            return self._code

    def poll(self) -> int | None:
        """Return the exit code if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    stdin: str,
    timeout_s: float,
) -> tuple[int, str, str]:
    """Run the program to its end, as `subprocess.run` would; return exit code, stdout and stderr."""
    (stdin_end, to_stdin), (from_stdout, stdout_end), (from_stderr, stderr_end) = (
        os.pipe() for _ in range(3)
    )
    theirs = (stdin_end, stdout_end, stderr_end)
    fork = Fork(arguments, environment, cwd, theirs)
    for descriptor in theirs:
        os.close(descriptor)
    with ThreadPoolExecutor(3) as threads:
        threads.submit(_write, to_stdin, stdin)
        output, errors = threads.submit(_read, from_stdout), threads.submit(_read, from_stderr)
        try:
            code = fork.wait(timeout_s)
        except subprocess.TimeoutExpired:
            fork.kill()
            raise
        return code, output.result(), errors.result()


def _read(descriptor: int) -> str:
    with os.fdopen(descriptor) as stream:
        return stream.read()


def _write(descriptor: int, text: str) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "w") as stream:
        stream.write(text)


@cache
def _warm() -> socket.socket:
    """Start the process that forks; it lives as long as this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # called first
    return ours


def load() -> None:
    """Import the program, except for what an extra that is not installed would need."""
    importlib.import_module("local_mcp_gateway.cli.main")  # first, as a command does
    package = importlib.import_module("local_mcp_gateway")
    for module in pkgutil.walk_packages(package.__path__, "local_mcp_gateway."):
        with suppress(ImportError):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # or each fork would copy the pages that a collection looks at


def attend(orders: socket.socket) -> None:
    """Fork a command for each order, and tell how each ends, until the other end is closed."""
    from local_mcp_gateway.service.dev import end_with

    me = os.getpid()
    waited: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not orders:
                    selector.unregister(key.fileobj)
                    pid, tell = waited.pop(key.fd)
                    os.write(tell, NEWS.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
                    os.close(tell)
                    os.close(key.fd)
                    continue
                message, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER, 4)
                if not message:
                    return
                pid = os.fork()
                if pid == 0:
                    end_with(me)
                    for descriptor in (orders.detach(), descriptors.pop(), *waited):
                        os.close(descriptor)
                    for _, tell in waited.values():
                        os.close(tell)
                    selector.close()
                    become_a_command(json.loads(message), descriptors)
                *streams, tell = descriptors
                for descriptor in streams:
                    os.close(descriptor)
                os.write(tell, NEWS.pack(pid))
                pidfd = os.pidfd_open(pid)
                waited[pidfd] = (pid, tell)
                selector.register(pidfd, selectors.EVENT_READ)


def become_a_command(order: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Take arguments, environment, folder and streams, and run the program to its exit."""
    if order["own_session"]:
        os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        stream = open(  # noqa: SIM115
            number,
            "w" if number else "r",
            buffering=1 if name == "stderr" else -1,
            encoding=old.encoding,
            errors=old.errors,
            newline="\n" if number else None,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    tempfile.tempdir = None
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from local_mcp_gateway import __main__ as program

    sys.argv = [program.__file__, *order["arguments"]]
    sys.path[0] = order["cwd"]
    sys.modules["__main__"] = program
    program.main()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the tests and their commands
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        load()
        attend(ours)
