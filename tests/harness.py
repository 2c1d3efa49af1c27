"""Real processes, real folders, real SQLite: what the tests of every part are made from.

A `Place` is a person's machine in a folder: an empty home, a database path, a migrations folder. From
it a test runs commands to their end (`place.run`) or starts a gateway and follows its log
(`place.serve`). Nothing sleeps: a test waits for an event of the log, or for the process to end, with
a deadline that only a failure reaches.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from tests.fork_server import NO_UVLOOP, Fork, whole_program

REPOSITORY = Path(__file__).parents[1]
DEADLINE_S = 60.0
"""Only a failing test waits this long; a busy machine may need a good part of it."""

COMMAND = (sys.executable, "-m", "local_mcp_gateway")


def clean_environment(home: Path, **extra: str) -> dict[str, str]:
    """Return an environment in which only `extra` could configure the gateway."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYENV_VERSION", "PYENV_ROOT"}
        or name.startswith(("COVERAGE_", "PIP_", "npm_"))
        or (name, value) == ("PYTHONPATH", NO_UVLOOP)
    }
    return {**kept, "HOME": str(home), "NO_COLOR": "1", **extra}


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return stdout as the JSON value that `--json` promises."""
        return json.loads(self.stdout)

    def events(self) -> list[dict[str, Any]]:
        """Return the log events among the lines of stderr."""
        return [event for line in self.stderr.splitlines() if (event := as_event(line))]


def as_event(line: str) -> dict[str, Any] | None:
    """Return a log line as an event, or None for any other text."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


class MigrationFolder:
    """A migrations folder in Drizzle's layout that a test writes, one migration at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "meta").mkdir(parents=True, exist_ok=True)
        if not self.journal_file.exists():
            self.write_journal([])

    @property
    def journal_file(self) -> Path:
        return self.path / "meta" / "_journal.json"

    def journal(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads(self.journal_file.read_text())["entries"]
        return entries

    def write_journal(self, entries: Iterable[Mapping[str, Any]]) -> None:
        journal = {"version": "7", "dialect": "sqlite", "entries": list(entries)}
        self.journal_file.write_text(json.dumps(journal, indent=2))

    def add(self, name: str, *sql: str, down: str | None = None, when: int | None = None) -> str:
        """Write the next migration and its journal entry; several texts get breakpoints between."""
        entries = self.journal()
        idx = len(entries)
        tag = f"{idx:04d}_{name}"
        self.write(tag, "\n--> statement-breakpoint\n".join(sql))
        if down is not None:
            self.write(f"{tag}.down", down)
        last = entries[-1]["when"] if entries else 1_700_000_000_000
        entry = {"idx": idx, "version": "6", "when": when or last + 1000, "tag": tag}
        self.write_journal([*entries, {**entry, "breakpoints": True}])
        return tag

    def write(self, tag: str, sql: str) -> Path:
        """Write a `.sql` file without telling the journal, whole or not at all."""
        path = self.path / f"{tag}.sql"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(sql)
        return temporary.rename(path)

    def hash_of(self, tag: str) -> str:
        return hashlib.sha256((self.path / f"{tag}.sql").read_bytes()).hexdigest()


@dataclass
class GatewayProcess:
    """A running `serve`, its log read line by line by a thread of its own."""

    process: subprocess.Popen[str] | Fork
    stderr: TextIO
    lines: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _ended: bool = False

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # The reader closes the stream: closing it under a read would wait for that read.
        with self.stderr:
            for line in self.stderr:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    if event := as_event(line):
                        self.events.append(event)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def is_live(self) -> bool:
        """Tell whether the gateway answers on its port."""
        with urllib.request.urlopen(self.url + "/health/live", timeout=DEADLINE_S) as response:
            return bool(response.status == 200)

    def wait_for(
        self,
        name: str,
        *,
        after: int = 0,
        where: Callable[[dict[str, Any]], bool] = lambda _: True,
        deadline_s: float = DEADLINE_S,
    ) -> dict[str, Any]:
        """Return the first event of this name from index `after` on; fail with the log otherwise."""

        def found() -> dict[str, Any] | None:
            later = self.events[after:]
            return next((e for e in later if e["event"] == name and where(e)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, deadline_s)
            event = found()
        if event is None:
            ended = "the process ended" if self._ended else f"not within {deadline_s:.0f} s"
            raise AssertionError(f"no event {name}: {ended}\n" + "\n".join(self.lines[-30:]))
        return event

    def until(self, holds: Callable[[], object], *, describe: Callable[[], object] = str) -> None:
        """Wait until something holds that the log makes known; checked again at every line.

        `describe` says in the failure how things stood instead.
        """
        end = time.monotonic() + DEADLINE_S
        seen, ended = self._stand()
        while not holds():
            with self._changed:
                while not ended and self._stand() == (seen, ended):
                    if not self._changed.wait(end - time.monotonic()):
                        break
                news = self._stand()
            if news == (seen, ended):
                said = "\n".join(self.lines[-30:])
                raise AssertionError(f"it never came to that: {describe()}\n{said}")
            seen, ended = news

    def _stand(self) -> tuple[int, bool]:
        """Return how many lines there are, and whether they are all."""
        with self._changed:
            return len(self.lines), self._ended

    def wait_ready(self) -> GatewayProcess:
        """Wait until it serves."""
        self.wait_for("service.ready")
        return self

    def serves(self) -> bool:
        """Wait until it serves or has ended; tell which."""
        with self._changed:
            self._changed.wait_for(
                lambda: "service.ready" in self.names() or self._ended, DEADLINE_S
            )
            return "service.ready" in self.names()

    @property
    def url(self) -> str:
        """Return `http://127.0.0.1:PORT`, as logged."""
        event = self.wait_for("gateway.listening")
        return str(event["url"]).removesuffix("/").removesuffix("/mcp")

    def names(self) -> list[str]:
        """Return the names of the events so far, in order."""
        return [event["event"] for event in self.events]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the end and for the last line of the log; return the exit code."""
        code = self.process.wait(deadline_s)
        self._reader.join(deadline_s)
        assert not self._reader.is_alive(), "somebody still holds the pipe of the log"
        return code

    def stop(self) -> int:
        """Ask it to stop, as systemd does; return the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill it without a word, as the kernel does, with everything it started."""
        with_children(self.process)
        self.wait()


def with_children(process: subprocess.Popen[str] | Fork) -> None:
    """Kill the process group that `Place.serve` put the process in."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.poll()


@dataclass(frozen=True, slots=True)
class Place:
    """One person's machine in a folder."""

    root: Path
    command: tuple[str, ...] = COMMAND

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def database(self) -> Path:
        return self.root / "data" / "gateway.db"

    @property
    def folder(self) -> MigrationFolder:
        return MigrationFolder(self.root / "migrations")

    @property
    def backups(self) -> list[Path]:
        return sorted((self.database.parent / "backups").glob("*.db"))

    @property
    def options(self) -> tuple[str, ...]:
        """The global options that make a command this place's."""
        return ("--database", str(self.database), "--migrations", str(self.folder.path))

    def run(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        bare: bool = False,
        prefix: Sequence[str] = (),
    ) -> Finished:
        """Run a command to its end; `bare` leaves out this place's database and migrations.

        `server add` does not try the server, which would start it once more, unless `--test` is given.
        """
        words = [*(() if bare else self.options), *map(str, arguments)]
        at = next((n for n, pair in enumerate(pairwise(words)) if pair == ("server", "add")), None)
        if at is not None and "--test" not in words:
            words.insert(at + 2, "--no-test")
        environment = clean_environment(self.home, **(env or {}))
        if self._can_be_forked(environment, prefix):
            ended = whole_program().run(words, environment, self.root, stdin, DEADLINE_S * 2)
            return Finished(*ended)
        done = subprocess.run(
            [*prefix, *self.command, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.root,
            timeout=DEADLINE_S * 2,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def _can_be_forked(self, environment: Mapping[str, str], prefix: Sequence[str]) -> bool:
        """Tell whether a fork is what this command would be: nothing here is for the interpreter."""
        return (
            self.command == COMMAND
            and not prefix
            and not any(name.startswith("COVERAGE_") for name in environment)
            and not any(
                name.startswith(("PYTHON", "LC_", "LANG", "LD_")) and value != os.environ.get(name)
                for name, value in environment.items()
            )
        )

    def migrate(self) -> Finished:
        """Run `db migrate` with its whole log; the test fails unless it succeeds."""
        done = self.run("--log-format", "json", "--log-level", "info", "db", "migrate")
        assert done.code == 0, done.stderr
        return done

    def link(self) -> str:
        """Return a new link to the pages of the running gateway, as `open` prints it."""
        done = self.run("open", "--print")
        assert done.code == 0, done.stderr
        return done.stdout.strip()

    @contextmanager
    def serve(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        options: Sequence[str] | None = None,
        log: Sequence[str] = ("--log-format", "json", "--log-level", "debug"),
    ) -> Iterator[GatewayProcess]:
        """Start `serve` on a free port with a JSON log; killed at the end if it still runs."""
        chosen = self.options if options is None else options
        read_end, write_end = self._open_log()
        words = [*chosen, *log, "serve", "--port", "0", *arguments]
        environment = clean_environment(self.home, **(env or {}))
        process: subprocess.Popen[str] | Fork
        with Path(os.devnull).open("r+") as nothing:
            if self._can_be_forked(environment, prefix):
                streams = (nothing.fileno(), nothing.fileno(), write_end)
                process = whole_program().fork(
                    words, environment, self.root, streams, own_session=True
                )
            else:
                process = subprocess.Popen(
                    [*prefix, *self.command, *words],
                    stdin=nothing,
                    stdout=nothing,
                    stderr=write_end,
                    text=True,
                    env=environment,
                    cwd=self.root,
                    start_new_session=True,
                )
        os.close(write_end)
        gateway = GatewayProcess(process, os.fdopen(read_end))
        try:
            yield gateway
        finally:
            with_children(process)
            gateway.wait()

    @property
    def log_pipe(self) -> Path:
        """The path of the pipe that the log of `serve` goes through, for `strace -P`."""
        return self.root / "log.pipe"

    def _open_log(self) -> tuple[int, int]:
        self.log_pipe.unlink(missing_ok=True)
        os.mkfifo(self.log_pipe)
        read_end = os.open(self.log_pipe, os.O_RDONLY | os.O_NONBLOCK)
        write_end = os.open(self.log_pipe, os.O_WRONLY)
        os.set_blocking(read_end, True)
        return read_end, write_end

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Read from the database, as another program would."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def write(self, sql: str, *parameters: object) -> None:
        """Write to the database behind the gateway's back, as another program would."""
        self.database.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute(sql, parameters)

    def content(self) -> str:
        """Return schema, rows and ledger as SQL text: equal text means that nothing was changed.

        Without `__guard_history`, which holds times of day.
        """
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            return "\n".join(line for line in connection.iterdump() if "__guard_" not in line)

    def copy(self, root: Path) -> Place:
        """Return a copy of this place, which nobody may be using, under another root."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Place(root, self.command)


def new_place(root: Path, command: tuple[str, ...] = COMMAND, *, shipped: bool = False) -> Place:
    """Make the folders of a place; `shipped` copies the gateway's own migrations. No database yet."""
    place = Place(root, command)
    if shipped:
        shutil.copytree(REPOSITORY / "migrations", root / "migrations")
    place.home.mkdir(parents=True, exist_ok=True)
    place.database.parent.mkdir(mode=0o700, exist_ok=True)
    MigrationFolder(root / "migrations")
    return place


def strace_missing() -> bool:
    """Tell whether strace cannot be used here."""
    if shutil.which("strace") is None:
        return True
    return (
        subprocess.run(
            ["strace", "-qq", "-o", os.devnull, "true"], check=False, capture_output=True
        ).returncode
        != 0
    )


def locks_on(database: Path, pid: int) -> list[str]:
    """Return the POSIX locks that a process has on a file, as the kernel lists them."""
    inode = database.stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(
        " ".join(line[1:])
        for line in lines
        if line[1] == "POSIX" and line[4] == str(pid) and line[5].endswith(f":{inode}")
    )


def wait_gone(pid: int) -> None:
    """Wait until a process, which need not be our child, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([descriptor], [], [], DEADLINE_S)
        assert ended, f"process {pid} lives on"
    finally:
        os.close(descriptor)


def poll(holds: Callable[[], bool], *, describe: Callable[[], object] = str) -> None:
    """Look again and again at something that raises no event to wait for; the last resort.

    What the kernel says of another process (its memory, what it waits for, which signals it takes)
    and what systemd says of a unit. What a log, a socket, a pipe or the end of a process makes known
    is waited for. `describe` says in the failure how things stood instead.
    """
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end, f"it never came to that: {describe()}"
        pause.wait(0.01)
