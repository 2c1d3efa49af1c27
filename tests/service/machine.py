"""One user's machine with a real systemd user manager, for the tests that install the service on it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness import REPOSITORY, Finished, MigrationFolder, poll
from tests.service.user_manager import UserManager, missing, user_manager

HIDDEN = (
    "a unit with PrivateTmp cannot see a program under /tmp"
    if sys.executable.startswith(("/tmp/", "/var/tmp/"))
    else ""
)
REASON = HIDDEN or missing()
"""Why these tests cannot run here, or nothing."""
UNIT = "local-mcp-gateway.service"
COMMAND = str(Path(sys.executable).with_name("local-mcp-gateway"))
GATES = """
from collections import deque
gates = {}
def wait(path):
    name = gates.setdefault(path, deque(["copy", "live"])).popleft()
    with open(f"{path}.{name}") as gate:
        return len(gate.read())
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """One user's machine with a manager, a folder of migrations, and a free port."""

    manager: UserManager
    home: Path
    folder: MigrationFolder
    port: int

    @property
    def database(self) -> Path:
        return self.home / "data" / "gateway.db"

    @property
    def config(self) -> Path:
        return self.home / "gateway.toml"

    def run(self, *arguments: str, check: bool = True) -> Finished:
        return self.manager.run(COMMAND, "--config", str(self.config), *arguments, check=check)

    def systemctl(self, *arguments: str, check: bool = True) -> Finished:
        return self.manager.run("systemctl", "--user", *arguments, check=check)

    def state(self) -> dict[str, str]:
        return self.manager.show(
            UNIT, "ActiveState", "SubState", "StatusText", "NRestarts", "Result",
            "ExecMainStatus", "MainPID", "StatusErrno",
        )  # fmt: skip

    def shows(self, **wanted: str) -> None:
        """Wait until the manager shows these properties of the unit."""
        poll(lambda: wanted.items() <= self.state().items(), describe=self.state)

    def get(self, path: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            return int(response.status)

    def limit(self, *lines: str, name: str = "limit") -> None:
        """Override settings of the unit, as `systemctl --user edit` does."""
        folder = self.home / f".config/systemd/user/{UNIT}.d"
        folder.mkdir(exist_ok=True, parents=True)
        (folder / f"{name}.conf").write_text("[Service]\n" + "\n".join(lines) + "\n")
        self.systemctl("daemon-reload")

    def allow_gates(self) -> None:
        """Give the service, which is not started yet, the function that gated migrations call."""
        (self.home / "gatekeeper.py").write_text(GATES)
        functions = '[migrations.functions]\nwait = "gatekeeper:wait"\n'
        self.config.write_text(self.config.read_text() + functions)
        self.limit(f"Environment=PYTHONPATH={self.home}", name="gates")

    def add_gated_migration(self, name: str) -> str:
        """Add a migration that takes as long as the test wants: see `gate`."""
        os.mkfifo(self.home / f"{name}.copy")
        os.mkfifo(self.home / f"{name}.live")
        waits = f"INSERT INTO {name} SELECT wait('{self.home}/{name}')"
        return self.folder.add(name, f"CREATE TABLE {name} (n INTEGER)", waits)

    @contextmanager
    def gate(self, name: str) -> Iterator[None]:
        """Hold a gated migration inside of the block: it has begun, and goes on after it.

        `NAME.copy` is its rehearsal, `NAME.live` the live run.
        """
        opened: list[int] = []

        def is_waiting() -> bool:
            try:
                opened.append(os.open(self.home / name, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        poll(is_waiting)
        try:
            yield
        finally:
            os.close(opened[0])


@contextmanager
def new_home() -> Iterator[Path]:
    """Yield a home where homes are: the unit has a /tmp of its own, and would not see it there."""
    with tempfile.TemporaryDirectory(dir="/home", prefix="local-mcp-gateway-") as folder:
        yield Path(folder)


@contextmanager
def new_machine(home: Path) -> Iterator[Installed]:
    """Run a user manager in this home, with a configuration that keeps everything in there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (home / "data").mkdir(parents=True, mode=0o700)
    shutil.copytree(REPOSITORY / "migrations", home / "migrations")
    (home / "gateway.toml").write_text(
        f'[gateway]\nport = {port}\n[database]\npath = "{home}/data/gateway.db"\n'
        f'[migrations]\nfolder = "{home}/migrations"\n'
    )
    with user_manager(home) as manager:
        yield Installed(manager, home, MigrationFolder(home / "migrations"), port)


def received(manager: socket.socket) -> list[str]:
    """Return the messages that systemd has been sent since."""
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages
