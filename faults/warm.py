"""A process that has the program loaded and forks one run after the other: no run pays for imports.

`python -m faults.warm` is that process; `Warm` is its other end. It never runs the program itself, so
every child begins as a fresh interpreter does that has just imported everything. A child waits until
it is told to go, so that strace is attached before its first call.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from faults.world import REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType


DEADLINE_S = 120.0

LARGEST_MESSAGE = 1 << 20
PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = (1 << 64) - 1
FOREIGN = re.compile(r"(.*\.)?__main__|faults(\..*)?")
"""Modules that no run of the program imports."""


Variation = tuple[str, ...]
"""What is changed in a run before it begins: a module, a function of it, and its arguments."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    exit_code: int
    """Negative when a signal ended it."""
    stderr: str


class Warm:
    """The process, from `with` to its end; one thread uses it, for one run at a time."""

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faults.warm", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"},
        )
        theirs.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._process.wait()

    def load(self, modules: Iterable[str]) -> None:
        """Import what a run was seen to import, in its order.

        In another order it may break: `_asyncio` before `asyncio` leaves Python 3.11 with two tables of
        current tasks.
        """
        self._socket.send(json.dumps({"load": list(modules)}).encode())
        self._socket.recv(LARGEST_MESSAGE)

    def run(
        self,
        world: World,
        *arguments: str,
        tracer: Callable[[int], AbstractContextManager[None]] = lambda _pid: nullcontext(),
        hear: Callable[[int, str], None] = lambda _pid, _line: None,
        variation: Variation = (),
        modules: Path | None = None,
    ) -> Ended:
        """Run the program in this world to its end.

        `tracer` is entered with its pid before its first call; `hear` is told each line of its log. At
        its end it writes the names of all that it had imported to `modules`, if that is given.
        """
        order = {
            "arguments": [*world.options, *arguments],
            "environment": environment(world),
            "variation": variation,
            "modules": None if modules is None else str(modules),
        }
        reading, writing = os.pipe()
        with os.fdopen(reading) as stderr, ExitStack() as stack:
            socket.send_fds(self._socket, [json.dumps(order).encode()], [writing])
            os.close(writing)
            pid = int(self._socket.recv(LARGEST_MESSAGE))
            watchdog = threading.Timer(DEADLINE_S, os.kill, (pid, signal.SIGKILL))
            watchdog.start()
            stack.callback(watchdog.cancel)
            stack.enter_context(tracer(pid))
            self._socket.send(b"go")
            lines: list[str] = []
            for line in stderr:
                lines.append(line)
                hear(pid, line)
            code = int(self._socket.recv(LARGEST_MESSAGE))
        return Ended(code, "".join(lines))

    def must(self, world: World, *arguments: str) -> None:
        """Run a command that has to succeed: the laboratory cannot start from a broken state."""
        done = self.run(world, *arguments)
        if done.exit_code != 0:
            raise RuntimeError(f"{arguments} failed with {done.exit_code}: {done.stderr}")


def environment(world: World) -> dict[str, str]:
    """Return an environment in which nothing but the command line configures the program."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "LANG", "PYTHONPATH"}}
    return {**kept, "HOME": str(world.root), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1",
            "LMG_DEV__RELOAD": "false"}  # fmt: skip


def attend(orders: socket.socket) -> None:
    """Fork a run for each order until the other end is closed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, LARGEST_MESSAGE, 1)
        if not message:
            return
        order = json.loads(message)
        if "load" in order:
            for name in order["load"]:
                with suppress(ImportError):
                    importlib.import_module(name)
            orders.send(b"loaded")
            continue
        gc.freeze()  # or every child would copy the pages that a collection looks at
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            orders.close()
            os.close(tell)
            become_the_program(order, descriptors[0], told)
        os.close(told)
        os.close(descriptors[0])
        orders.send(str(pid).encode())
        orders.recv(LARGEST_MESSAGE)
        os.write(tell, b"!")
        os.close(tell)
        _, status = os.waitpid(pid, 0)
        orders.send(str(os.waitstatus_to_exitcode(status)).encode())


def become_the_program(order: dict[str, Any], stderr: int, told: int) -> NoReturn:
    """Take its arguments, environment and streams, wait for the word, and run it to its exit."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(PR_SET_PTRACER_ANY), 0, 0, 0)
    os.dup2(stderr, 2)
    os.close(stderr)
    # What Python opened at 2 may be a file, and remembers that one can seek in it.
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["local-mcp-gateway", *order["arguments"]]
    os.read(told, 1)
    os.close(told)
    if order["variation"]:
        module, function, *values = order["variation"]
        getattr(importlib.import_module(module), function)(*values)
    from local_mcp_gateway.cli.main import main

    try:
        main()
    finally:
        if order["modules"]:
            names = (name for name in sys.modules if not FOREIGN.fullmatch(name))
            Path(order["modules"]).write_text("\n".join(names))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with socket.socket(fileno=int(sys.argv[1])) as ours:
        attend(ours)
