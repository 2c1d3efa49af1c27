"""One peer's project in a folder: written, run, killed, and looked at."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.harness import DEADLINE_S, clean_environment
from tests.peers.adapters import Peer, Step, Tools

_HELD_LOOKS = 10
_PAUSE_S = 0.03
"""Between two looks at a program of others, or at the kernel: neither says when it waits."""


@dataclass(frozen=True, slots=True)
class Project:
    """A peer, its migrations and its database, in a folder of their own."""

    peer: Peer
    tools: Tools
    root: Path

    @property
    def database(self) -> Path:
        return self.root / "app.db"

    def lay_out(self, steps: Sequence[Step]) -> None:
        self.peer.lay_out(self.root, steps)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.peer.command(self.tools, self.root),
            cwd=self.peer.folder(self.tools, self.root),
            env=clean_environment(
                self.root / "home", **self.peer.environment(self.tools, self.root)
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def migrate(self, steps: Sequence[Step]) -> tuple[int, str]:
        """Run the peer on these steps; return its exit code and what it said."""
        self.lay_out(steps)
        process = self.start()
        said, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, said

    def kill_in_the_middle(self, steps: Sequence[Step]) -> None:
        """Run the peer on steps whose last statement never ends, and kill it while it is in there."""
        self.lay_out(steps)
        process = self.start()
        held = 0
        deadline = time.monotonic() + DEADLINE_S
        try:
            while held < _HELD_LOOKS:
                if process.poll() is not None:
                    raise AssertionError(f"it ended: {process.communicate()[0]}")
                assert time.monotonic() < deadline, "it never came to the statement"
                held = held + 1 if self._is_held() or "half" in self.tables() else 0
                time.sleep(_PAUSE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def tables(self) -> set[str]:
        """Return the tables that the migrations made and others see."""
        with closing(sqlite3.connect(self.database, timeout=DEADLINE_S)) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}

    def count(self, table: str) -> int:
        with closing(sqlite3.connect(self.database, timeout=DEADLINE_S)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold SQLite's write lock in WAL mode: everyone can read, nobody can write."""
        with closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def _is_held(self) -> bool:
        with closing(sqlite3.connect(self.database, isolation_level=None, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            return False


def wait_until_asleep(processes: Sequence[subprocess.Popen[str]], database: Path) -> None:
    """Return when every process has the database open and has nothing to do but wait."""
    deadline = time.monotonic() + DEADLINE_S
    for process in processes:
        asleep = 0
        while asleep < _HELD_LOOKS and process.poll() is None:
            assert time.monotonic() < deadline, "it does not wait for the lock"
            asleep = asleep + 1 if _waits(process.pid, database) else 0
            time.sleep(_PAUSE_S)


def _waits(pid: int, database: Path) -> bool:
    with suppress(OSError):
        opened = any(
            Path(entry).resolve() == database for entry in Path(f"/proc/{pid}/fd").iterdir()
        )
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        return opened and set(states) == {"S"}
    return False
