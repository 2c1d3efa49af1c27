"""Dev mode's parent process: restart the worker when the source code changes, unnoticed by clients.

The supervisor holds the listening socket; the worker holds the database's lock. While one worker replaces
another, connections wait in the socket's backlog. One thread watches the source files and one waits for
each worker. Both only put events into a queue, so `run` handles everything, one event at a time.

A file with a syntax error is reported and changes nothing. A worker that does not start is reported, and
the supervisor waits for the next save.

A change of the schema's source is reported too, or generated as a migration.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from local_mcp_gateway.errors import Exit
from local_mcp_gateway.service.file_watcher import WatchSpec, changes_blocking

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from local_mcp_gateway.log import Emit


SCHEMA_MODULE = Path(__file__).parents[2] / "store" / "tables.py"
_TIMEOUT_S = 120


def report_plan(options: Sequence[str], *, auto_generate: bool, emit: Emit) -> None:
    """Report the migration that the schema source needs, or write it; `options` are the global ones. Blocks.

    A written migration is a saved file like any other: the worker applies it.
    """
    checked = _generate(options, "--check")
    missing = checked.get("missing", [])
    if "error" in checked:
        emit("schema.refused", **_message_of(checked["error"]))
    elif missing and auto_generate:
        written = _generate(options)
        if "error" in written:
            emit("schema.refused", **_message_of(written["error"]))
        else:
            emit("schema.generated", tag=written["tag"], missing=missing)
    elif missing:
        emit("schema.planned", missing=missing, hint="Write it with `db generate`.")


def _generate(options: Sequence[str], *more: str) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "local_mcp_gateway",
        *options,
        "db",
        "generate",
        "--json",
        *more,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        return {"error": {"message": lines[-1], "hint": "", "exit_code": int(Exit.UNEXPECTED)}}
    return answer


def _message_of(error: dict[str, Any]) -> dict[str, Any]:
    return {key: error[key] for key in ("message", "hint") if error.get(key)}


T = TypeVar("T")
POLL_S: Final = 0.2
_SETTINGS = Path("settings")
"""Stands for changed settings among the changed files."""
PACKAGE = Path(__file__).parents[2]
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True, slots=True)
class Changed:
    """Source files were saved."""

    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker has ended."""

    worker: subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Asked:
    """A signal arrived."""

    number: int


class Supervisor:
    """Run one worker at a time until a signal arrives or the worker ends by itself."""

    def __init__(
        self,
        options: Sequence[str],
        arguments: Sequence[str],
        listener: socket.socket,
        emit: Emit,
        *,
        auto_generate: bool = False,
    ) -> None:
        """Take the command line in two parts: the global options, and `serve` with its own."""
        self._options = tuple(options)
        self._arguments = tuple(arguments)
        self._auto_generate = auto_generate
        self._listener = listener
        self._emit = emit
        self._queue: SimpleQueue[Changed | Ended | Asked] = SimpleQueue()
        self._worker: subprocess.Popen[bytes] | None = None
        self._changed: tuple[Path, ...] = ()
        """The files saved since the worker started; not empty while it is being replaced."""
        self._restarts = 0
        self._stopping = False
        self._began = 0.0

    def run(self) -> int:
        """Supervise until the end; return the exit code of the last worker."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            # put() of a SimpleQueue may be called from a signal handler.
            signal.signal(number, lambda caught, _: self._queue.put(Asked(caught)))
        over = threading.Event()
        threading.Thread(target=self._watch, args=(over,), daemon=True).start()
        self._start()
        try:
            while True:
                match next_of(self._queue):
                    case Asked(signal.SIGHUP):
                        self._signal_worker(signal.SIGHUP)
                    case Asked(signal.SIGUSR1):
                        self._restart((_SETTINGS,))
                    case Asked(caught):
                        if self._worker is None:
                            return Exit.OK
                        self._stopping, self._changed = True, ()
                        self._signal_worker(caught)
                    case Changed(files):
                        self._replace(files)
                    case Ended(worker) if worker is self._worker:
                        if not self._goes_on(worker.returncode):
                            return max(worker.returncode, 0)
        finally:
            over.set()

    def _start(self) -> None:
        descriptor = self._listener.fileno()
        again = ("--again",) if self._restarts else ()
        command = (sys.executable, "-m", "local_mcp_gateway", *self._options, *self._arguments)
        # The worker inherits that SIGHUP is ignored: until it listens, all that is new is still to be read.
        handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # In its own session: Ctrl+C reaches only the supervisor, which stops the worker once.
        worker = subprocess.Popen(
            [*command, "--socket-fd", str(descriptor), "--supervisor", str(os.getpid()), *again],
            pass_fds=[descriptor],
            start_new_session=True,
        )
        signal.signal(signal.SIGHUP, handler)
        self._worker = worker
        self._began = time.perf_counter()
        threading.Thread(target=self._wait, args=(worker,), daemon=True).start()

    def _replace(self, files: tuple[Path, ...]) -> None:
        """Handle a save: report a syntax error, else stop the worker so that the next one starts."""
        for file in files:
            if (fault := syntax_fault(file)) is not None:
                self._emit("dev.refused", message=fault, hint="The previous version keeps running.")
                return
        self._restart(files)

    def _restart(self, files: tuple[Path, ...]) -> None:
        """Stop the worker so that the next one starts with what has changed."""
        first = not self._changed
        self._changed = tuple(dict.fromkeys((*self._changed, *files)))
        if self._worker is None:
            self._again()
        elif first:
            self._signal_worker(signal.SIGTERM)

    def _goes_on(self, code: int) -> bool:
        """Handle the end of a worker; return whether to keep supervising."""
        self._worker = None
        if self._changed:
            self._again()
            return True
        if self._stopping or code == 0 or (code > 0 and not self._restarts):
            return False
        if code > 0:
            message = f"The changed program ended with exit code {code}."
            hint = "Fix it and save: it then starts again."
        else:
            message = f"The program was ended by {signal.Signals(-code).name}."
            hint = "Save one of its files: it then starts again."
        self._emit("dev.refused", message=message, hint=hint)
        return True

    def _again(self) -> None:
        files, self._changed = self._changed, ()
        self._restarts += 1
        self._start()
        shown = [str(file.relative_to(PACKAGE)) for file in files if file.is_relative_to(PACKAGE)]
        self._emit("dev.reloaded", files=shown, restarts=self._restarts)
        if SCHEMA_MODULE in files:
            plan = partial(
                report_plan, self._options, auto_generate=self._auto_generate, emit=self._emit
            )
            threading.Thread(target=plan, daemon=True).start()

    def _signal_worker(self, number: int) -> None:
        if self._worker is not None:
            self._worker.send_signal(number)

    def _wait(self, worker: subprocess.Popen[bytes]) -> None:
        worker.wait()
        self._queue.put(Ended(worker))

    def _watch(self, over: threading.Event) -> None:
        from watchfiles import PythonFilter

        for changed in changes_blocking(WatchSpec(PACKAGE, PythonFilter()), self._emit):
            if over.is_set():
                return
            if changed:
                self._queue.put(Changed(tuple(sorted(Path(name) for _, name in changed))))


def next_of(queue: SimpleQueue[T]) -> T:
    """Wait for the next item of a queue that signal handlers also fill.

    Two threads may each take one of two simultaneous signals. A get() without a timeout is then not always
    interrupted, and the handlers may never run (CPython 3.11).
    """
    while True:
        with suppress(Empty):
            return queue.get(timeout=POLL_S)


def syntax_fault(file: Path) -> str | None:
    """Describe the syntax error of a source file in one sentence; None if there is none."""
    try:
        compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except FileNotFoundError:
        return None
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        return f"{file.name}, line {line}: {getattr(error, 'msg', error)}."
    return None


def end_with(supervisor: int) -> None:
    """In the worker: have the kernel send SIGTERM when the supervisor dies, however it dies.

    If it died before this call, the changed parent process reveals it.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != supervisor:
        sys.exit(Exit.OK)
