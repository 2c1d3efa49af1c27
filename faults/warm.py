"""A process that has the program loaded and forks one run after the other: no run pays for imports.

`python -m faults.warm` is that process; `Warm` is its other end. It never runs the program itself, so
every child begins as a fresh interpreter does that has just imported everything.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from faults import syscalls
from faults.world import REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType


DEADLINE_S = 120.0
SILENCE_S = 10.0
"""A gateway that does nothing for so long is stopped: a fault may have taken the word that it is ready."""

LARGEST_MESSAGE = 1 << 20
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
    ready: bool
    """It reported to be ready."""


class Warm:
    """The process, from `with` to its end; one thread uses it, for one run at a time."""

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._manager.bind("")  # an address of the kernel's choice
        self._address = self._manager.getsockname().decode().replace("\0", "@")
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
        self._manager.close()
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
        stop_by: signal.Signals | None = None,
        hold: Sequence[str] = (),
        answer: Callable[[syscalls.Call], syscalls.Answer] | None = None,
        variation: Variation = (),
        modules: Path | None = None,
    ) -> Ended:
        """Run the program in this world to its end.

        A gateway is stopped by `stop_by` as soon as it reports to be ready. Each call of the kinds in
        `hold` waits for its `answer`. At its end the program writes the names of all that it had
        imported to `modules`, if that is given.
        """
        settings = environment(world)
        if stop_by is not None:
            self._forget_earlier_runs()
            settings["NOTIFY_SOCKET"] = self._address
        order = {
            "arguments": [*world.options, *arguments],
            "environment": settings,
            "hold": hold,
            "variation": variation,
            "modules": None if modules is None else str(modules),
        }
        with ExitStack() as stack:
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            ours, theirs = socket.socketpair()
            stack.enter_context(closing(ours))
            socket.send_fds(self._socket, [json.dumps(order).encode()], [writing, theirs.fileno()])
            os.close(writing)
            theirs.close()
            pid = int(self._socket.recv(LARGEST_MESSAGE))
            said = bytearray()
            sources = {reading: lambda: said.extend(os.read(reading, LARGEST_MESSAGE))}
            try:
                if answer:
                    listener = _received(ours)
                    stack.callback(os.close, listener)
                    sources[listener] = lambda: syscalls.answer_one(listener, answer)
                ready = self._attend(pid, sources, stop_by)
            except BaseException:
                _send(pid, signal.SIGKILL)
                raise
            finally:  # or the next run would be told how this one ended
                code = int(self._socket.recv(LARGEST_MESSAGE))
        return Ended(code, said.decode(errors="replace"), ready)

    def _attend(
        self,
        pid: int,
        sources: Mapping[int, Callable[[], None]],
        stop_by: signal.Signals | None,
    ) -> bool:
        """Do what is to be done for each source that has something, until all are at their end.

        Return whether the run reported to be ready.
        """
        poll = select.poll()
        for source in (self._manager.fileno(), *sources):
            poll.register(source, select.POLLIN)
        left = set(sources)
        ready = False
        end = time.monotonic() + DEADLINE_S
        while left:
            patience_s = max(end - time.monotonic(), 0)
            met = poll.poll(1000 * min(patience_s, SILENCE_S if stop_by else DEADLINE_S))
            told = any(source not in sources for source, _ in met) and self._is_ready()
            ready = ready or told
            if not patience_s:
                _send(pid, signal.SIGKILL)
            elif stop_by and (told or not met):
                _send(pid, stop_by)
            for source, event in met:
                if source not in sources:
                    continue
                if event & select.POLLIN:
                    sources[source]()
                else:
                    poll.unregister(source)
                    left.remove(source)
        return ready

    def _is_ready(self) -> bool:
        return b"READY=1" in self._manager.recv(LARGEST_MESSAGE)

    def _forget_earlier_runs(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._manager.recv(LARGEST_MESSAGE)

    def must(self, world: World, *arguments: str) -> None:
        """Run a command that has to succeed: the laboratory cannot start from a broken state."""
        done = self.run(world, *arguments)
        if done.exit_code != 0:
            raise RuntimeError(f"{arguments} failed with {done.exit_code}: {done.stderr}")


def _received(channel: socket.socket) -> int:
    """Return the descriptor that the run sends."""
    _, descriptors, _, _ = socket.recv_fds(channel, 16, 1)
    if not descriptors:
        raise OSError("the run could not be held")
    return descriptors[0]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def environment(world: World) -> dict[str, str]:
    """Return an environment in which nothing but the command line configures the program."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "LANG", "PYTHONPATH"}}
    return {**kept, "HOME": str(world.root), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1",
            "LMG_DEV__RELOAD": "false"}  # fmt: skip


def attend(orders: socket.socket) -> None:
    """Fork a run for each order until the other end is closed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, LARGEST_MESSAGE, 2)
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
        pid = os.fork()
        if pid == 0:
            orders.close()
            become_the_program(order, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        orders.send(str(os.waitstatus_to_exitcode(status)).encode())


def become_the_program(order: dict[str, Any], stderr: int, parent: int) -> NoReturn:
    """Take its arguments, environment and streams, be held if asked, and run it to its exit."""
    os.setsid()
    os.dup2(stderr, 2)
    os.close(stderr)
    # What Python opened at 2 may be a file, and remembers that one can seek in it.
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["local-mcp-gateway", *order["arguments"]]
    if order["variation"]:
        module, function, *values = order["variation"]
        getattr(importlib.import_module(module), function)(*values)
    from local_mcp_gateway.cli.main import main

    with socket.socket(fileno=parent) as told:
        if order["hold"]:
            listener = syscalls.hold(order["hold"])
            socket.send_fds(told, [b"held"], [listener])
            os.close(listener)
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
