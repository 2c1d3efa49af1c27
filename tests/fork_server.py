"""Commands as forks of a process that has the program loaded: a run costs its own work and no imports.

Importing the program takes four fifths of the time of a short command, and the tests run thousands.
A fork gets what a new process would have: arguments, environment, folder, streams and signal handlers.
It is a process of its own, with its own locks, and it can be killed.

`python -m tests.fork_server` is the process that forks; it never runs the program itself, and ends when
its socket closes, which ends its forks. `tests.harness` decides which commands of the tests it runs; the laboratory in `faults`
has one of its own.
"""

from __future__ import annotations

import atexit
import ctypes
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
NEWS = struct.Struct("i")
"""What is told of a fork, twice: its process id, then its exit code; both may be there at once."""
LARGEST_ORDER = 1 << 17
MOST_DESCRIPTORS = 8
NO_UVLOOP = str(Path(__file__).parent / "no_uvloop")
"""On PYTHONPATH it hides uvloop, as `make test LOOP=asyncio` does from all that the tests start."""
DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
Before = tuple[str, ...]
"""What a fork calls before the program: a module, a function of it, and its arguments."""


class Fork:
    """A running command, with what the tests use of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], news: int) -> None:
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


class ForkServer:
    """The process that forks, until `close`. Any thread may use it."""

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_at_a_time = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=REPOSITORY,
                env={
                    name: value
                    for name, value in os.environ.items()
                    if not name.startswith("PYTHON") or value == NO_UVLOOP
                },
            )

    def close(self) -> None:
        """End the process and its forks."""
        self._orders.close()
        self._process.wait()

    def load(self, modules: Sequence[str] | None = None) -> None:
        """Import these, in this order, or the whole program: no later fork pays for it.

        In another order than the program's own it may break: `_asyncio` before `asyncio` leaves Python 3.11
        with two tables of current tasks.
        """
        self._send({"load": modules}, [])

    def fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        streams: Sequence[int],
        *,
        own_session: bool = False,
        before: Before = (),
        given: Sequence[int] = (),
    ) -> Fork:
        """Start the program; `streams` become its stdin, stdout and stderr, and stay open here.

        `before` is called first, with copies of the descriptors `given` before its own arguments.
        """
        order = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "cwd": str(cwd),
            "own_session": own_session,
            "before": before,
        }
        news, tell = os.pipe()
        self._send(order, [*streams, *given, tell])
        os.close(tell)
        return Fork(arguments, news)

    def run(
        self,
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
        fork = self.fork(arguments, environment, cwd, theirs)
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

    def _send(self, order: dict[str, Any], descriptors: Sequence[int]) -> None:
        with self._one_at_a_time:
            socket.send_fds(self._orders, [json.dumps(order).encode()], descriptors)


@cache
def whole_program() -> ForkServer:
    """Return the one with the whole program loaded; it lives as long as this process."""
    server = ForkServer()
    atexit.register(server.close)
    server.load()
    return server


def _read(descriptor: int) -> str:
    with os.fdopen(descriptor) as stream:
        return stream.read()


def _write(descriptor: int, text: str) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "w") as stream:
        stream.write(text)


def load(modules: Sequence[str] | None) -> None:
    """Import the modules, or the program: not what an extra that is not installed would need."""
    if modules is None:
        importlib.import_module("local_mcp_gateway.cli.main")  # first, as a command does
        package = importlib.import_module("local_mcp_gateway")
        walked = pkgutil.walk_packages(package.__path__, "local_mcp_gateway.")
        modules = [module.name for module in walked]
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each fork would copy the pages that a collection looks at


def attend(orders: socket.socket) -> None:
    """Fork a command for each order, and tell how each ends, until the other end is closed."""
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
                message, descriptors, _, _ = socket.recv_fds(
                    orders, LARGEST_ORDER, MOST_DESCRIPTORS
                )
                if not message:
                    return
                order = json.loads(message)
                if "load" in order:
                    load(order["load"])
                    continue
                pid = os.fork()
                if pid == 0:
                    end_with(me)
                    for descriptor in (orders.detach(), descriptors.pop(), *waited):
                        os.close(descriptor)
                    for _, tell in waited.values():
                        os.close(tell)
                    selector.close()
                    become_a_command(order, descriptors)
                *passed_on, tell = descriptors
                for descriptor in passed_on:
                    os.close(descriptor)
                os.write(tell, NEWS.pack(pid))
                pidfd = os.pidfd_open(pid)
                waited[pidfd] = (pid, tell)
                selector.register(pidfd, selectors.EVENT_READ)


def end_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent dies; it may have died already."""
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(0)


def become_a_command(order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Take arguments, environment, folder and streams, and run the program to its exit."""
    if order["own_session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
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
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
    time.tzset()
    tempfile.tempdir = None
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from local_mcp_gateway import __main__ as program

    sys.argv = [program.__file__, *order["arguments"]]
    if order["before"]:
        module, function, *values = order["before"]
        getattr(importlib.import_module(module), function)(*descriptors[3:], *values)
    sys.path[0] = order["cwd"]
    sys.modules["__main__"] = program
    try:
        program.main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            EXIT_CODE.append(end.code or 0)
        raise


EXIT_CODE: list[int] = []
"""The exit code of this fork, once its program has ended."""


def end_at_once() -> None:
    """End a fork after its last exit handler, without taking every loaded module apart.

    That would copy most of the memory that it shares with the process that forks, which took three quarters
    of the time of a short command.
    """
    if EXIT_CODE:
        try:
            for stream in (sys.stdout, sys.stderr):
                if not stream.closed:
                    stream.flush()
        except OSError:
            return  # the interpreter tries it again, and says so
        os._exit(EXIT_CODE[0])


if __name__ == "__main__":
    atexit.register(end_at_once)  # the first, so the last to be called
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the tests and their commands
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        attend(ours)
