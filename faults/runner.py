"""Run the program in a world, and hold it at its system calls if asked.

A run is a fork of a process that has the program loaded, so it begins as a fresh interpreter does that
has just imported everything, and does not pay for it.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import re
import select
import socket
import sys
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from faults import syscalls
from faults.world import REPOSITORY, World
from tests.fork_server import ForkServer

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

    from tests.fork_server import Fork


DEADLINE_S = 120.0
SILENCE_S = 10.0
"""A gateway that does nothing for so long is stopped: a fault may have taken the word that it is ready."""

MOST_AT_ONCE = 1 << 20
FOREIGN = re.compile(r"(.*\.)?__main__|(faults|tests)(\..*)?")
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


class Runner:
    """Runs the program, from `with` to its end; one thread uses it, for one run at a time."""

    def __enter__(self) -> Self:
        self._server = ForkServer()
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._manager.bind("")  # an address of the kernel's choice
        self._address = self._manager.getsockname().decode().replace("\0", "@")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._manager.close()

    def load(self, modules: Sequence[str]) -> None:
        """Import what a run was seen to import, in its order."""
        self._server.load(modules)

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
        changes = {
            "hold": hold,
            "variation": variation,
            "modules": None if modules is None else str(modules),
        }
        with ExitStack() as stack:
            reading, writing = os.pipe()
            stack.callback(os.close, reading)
            ours, theirs = socket.socketpair()
            stack.enter_context(closing(ours))
            with theirs, os.fdopen(writing, "wb"), Path(os.devnull).open("r+b") as nothing:
                run = self._server.fork(
                    [*world.options, *arguments],
                    settings,
                    REPOSITORY,
                    (nothing.fileno(), nothing.fileno(), writing),
                    own_session=True,
                    before=("faults.runner", "begin", json.dumps(changes)),
                    given=(theirs.fileno(),),
                )
            said = bytearray()
            sources = {reading: lambda: said.extend(os.read(reading, MOST_AT_ONCE))}
            try:
                if answer:
                    listener = _received(ours)
                    stack.callback(os.close, listener)
                    sources[listener] = lambda: syscalls.answer_one(listener, answer)
                ready = self._attend(run, sources, stop_by)
            except BaseException:
                run.kill()
                raise
            code = run.wait(DEADLINE_S)
        return Ended(code, said.decode(errors="replace"), ready)

    def _attend(
        self,
        run: Fork,
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
                run.kill()
            elif stop_by and (told or not met):
                run.send_signal(stop_by)
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
        return b"READY=1" in self._manager.recv(MOST_AT_ONCE)

    def _forget_earlier_runs(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._manager.recv(MOST_AT_ONCE)

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


def environment(world: World) -> dict[str, str]:
    """Return an environment in which nothing but the command line configures the program."""
    kept = {k: v for k, v in os.environ.items() if k in {"PATH", "LANG", "PYTHONPATH"}}
    return {**kept, "HOME": str(world.root), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1",
            "LMG_DEV__RELOAD": "false"}  # fmt: skip


def begin(told: int, changes: str) -> None:
    """Change the run that begins in this process, and have it held, as asked."""
    asked = json.loads(changes)
    if asked["variation"]:
        module, function, *values = asked["variation"]
        getattr(importlib.import_module(module), function)(*values)
    if asked["modules"]:
        atexit.register(note_modules, Path(asked["modules"]))
    importlib.import_module("local_mcp_gateway.cli.main")
    with socket.socket(fileno=told) as channel:
        if asked["hold"]:
            listener = syscalls.hold(asked["hold"])
            socket.send_fds(channel, [b"held"], [listener])
            os.close(listener)


def note_modules(file: Path) -> None:
    """Write the names of all modules that the program has imported, in order."""
    names = (name for name in sys.modules if not FOREIGN.fullmatch(name))
    file.write_text("\n".join(names))
