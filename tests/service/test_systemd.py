"""The service in a real systemd user manager: install, start, reload, hang, refusal, sockets."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import REPOSITORY, Finished, MigrationFolder, until
from tests.service.user_manager import UserManager, missing, user_manager

HIDDEN = (
    "a unit with PrivateTmp cannot see a program under /tmp"
    if sys.executable.startswith(("/tmp/", "/var/tmp/"))
    else ""
)
pytestmark = [
    pytest.mark.skipif(bool(HIDDEN or missing()), reason=HIDDEN or missing() or "can run here")
]
UNIT = "local-mcp-gateway.service"
COMMAND = str(Path(sys.executable).with_name("local-mcp-gateway"))


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

    def run(self, *arguments: str, check: bool = True) -> Finished:
        options = ("--config", str(self.home / "gateway.toml"))
        return self.manager.run(COMMAND, *options, *arguments, check=check)

    def state(self) -> dict[str, str]:
        return self.manager.show(
            UNIT, "ActiveState", "SubState", "StatusText", "NRestarts", "Result",
            "ExecMainStatus", "MainPID", "StatusErrno",
        )  # fmt: skip

    def get(self, path: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            return int(response.status)


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a home where homes are: the unit has a /tmp of its own, and would not see it there."""
    with tempfile.TemporaryDirectory(dir="/home", prefix="local-mcp-gateway-") as folder:
        yield Path(folder)


@pytest.fixture
def installed(home: Path, free_port: int) -> Iterator[Installed]:
    (home / "data").mkdir(parents=True, mode=0o700)
    shutil.copytree(REPOSITORY / "migrations", home / "migrations")
    (home / "gateway.toml").write_text(
        f'[gateway]\nport = {free_port}\n[database]\npath = "{home}/data/gateway.db"\n'
        f'[migrations]\nfolder = "{home}/migrations"\n'
    )
    with user_manager(home) as manager:
        yield Installed(manager, home, MigrationFolder(home / "migrations"), free_port)


def test_install_starts_it_shows_the_start_and_uninstall_keeps_the_data(
    installed: Installed,
) -> None:
    done = installed.run("service", "install")
    assert "created " in done.stdout
    assert "ready after" in done.stdout
    state = installed.state()
    assert (state["ActiveState"], state["SubState"]) == ("active", "running")
    assert state["StatusText"] == "serving 0 profiles, 0 servers"
    assert installed.get("/health/live") == 200

    again = installed.run("service", "install")
    assert "unchanged" in again.stdout
    assert installed.state()["MainPID"] == state["MainPID"]

    told = json.loads(installed.run("service", "status", "--json").stdout)
    assert (told["installed"], told["enabled"], told["state"]) == (True, True, "active")

    installed.run("service", "uninstall")
    assert installed.database.exists()
    assert not (installed.home / ".config/systemd/user" / UNIT).exists()
    assert installed.state()["ActiveState"] == "inactive"
    assert installed.run("service", "status", check=False).code == 3


def test_an_upgraded_program_updates_its_unit_and_says_so(installed: Installed) -> None:
    installed.run("service", "install")
    unit = installed.home / ".config/systemd/user" / UNIT
    unit.write_text(
        re.sub(r"(?m)^# local-mcp-gateway \S+", "# local-mcp-gateway 0.0.9", unit.read_text())
    )
    before = installed.state()["MainPID"]
    assert "updated" in installed.run("service", "install").stdout
    assert installed.state()["MainPID"] != before


def test_a_migration_slower_than_the_start_timeout_is_not_killed(installed: Installed) -> None:
    installed.run("service", "install")
    installed.manager.run("systemctl", "--user", "stop", UNIT)
    installed.folder.add("slow", "CREATE TABLE slow (n INTEGER)", busy_sql(4_000_000))
    limit(installed, "TimeoutStartSec=2")
    began = time.monotonic()
    installed.manager.run("systemctl", "--user", "start", UNIT)
    assert time.monotonic() - began > 2
    assert installed.state()["ActiveState"] == "active"


def test_a_refused_start_has_failed_is_not_restarted_and_says_why(installed: Installed) -> None:
    tag = installed.folder.add("broken", "CREAT TABLE x (id)")
    done = installed.run("service", "install", check=False)
    assert done.code == 5
    assert tag in done.stderr
    state = installed.state()
    assert (state["ActiveState"], state["NRestarts"]) == ("failed", "0")
    assert state["ExecMainStatus"] == "5"
    assert tag in state["StatusText"]


def test_reload_applies_a_pending_migration_and_fails_when_it_is_refused(
    installed: Installed,
) -> None:
    installed.run("service", "install")
    pid = installed.state()["MainPID"]
    tag = installed.folder.add("late", "CREATE TABLE late (id INTEGER PRIMARY KEY)")
    installed.manager.run("systemctl", "--user", "reload", UNIT)
    (entry,) = installed.manager.entries(f"MIGRATION={tag}", "EVENT=migration.applied")
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "local-mcp-gateway"

    installed.folder.add("broken", "CREAT TABLE x (id)")
    assert installed.manager.run("systemctl", "--user", "reload", UNIT, check=False).code != 0
    assert installed.state()["MainPID"] == pid
    assert installed.state()["ActiveState"] == "active"
    assert installed.get("/health/live") == 200


def test_the_journal_is_shown_again_as_events(installed: Installed) -> None:
    installed.run("service", "install")
    installed.manager.entries("EVENT=service.ready")
    shown = installed.run("logs", "--from", "journal", "--json").stdout.splitlines()
    events = [json.loads(line) for line in shown]
    names = [event["event"] for event in events]
    assert names[names.index("service.starting") :][:2] == ["service.starting", "guard.locked"]
    ready = next(event for event in events if event["event"] == "guard.ready")
    assert (ready["state"], ready["applied"]) == ("created", 4)
    assert not (installed.home / "data" / "gateway.db.log.jsonl").exists()


def test_a_loop_that_hangs_is_found_by_the_watchdog_and_restarted(installed: Installed) -> None:
    installed.run("service", "install")
    limit(installed, "WatchdogSec=1", "RestartSec=0.1")
    installed.manager.run("systemctl", "--user", "restart", UNIT)
    pid = installed.state()["MainPID"]
    installed.manager.run("kill", "-STOP", pid)
    until(
        lambda: (
            installed.state()["NRestarts"] == "1" and installed.state()["ActiveState"] == "active"
        )
    )
    assert installed.state()["MainPID"] != pid
    assert installed.get("/health/live") == 200


def test_with_a_socket_no_client_is_refused_while_it_restarts(installed: Installed) -> None:
    installed.run("service", "install", "--socket")
    assert installed.get("/health/live") == 200
    failures: list[Exception] = []
    served = 0
    over = threading.Event()

    def ask() -> None:
        nonlocal served
        while not over.is_set():
            try:
                assert installed.get("/health/live") == 200
                served += 1
            except OSError as error:
                failures.append(error)

    client = threading.Thread(target=ask)
    client.start()
    for _ in range(3):
        installed.manager.run("systemctl", "--user", "restart", UNIT)
    over.set()
    client.join()
    assert failures == []
    assert served > 3


def test_the_hardening_takes_effect_and_upstream_servers_still_run(installed: Installed) -> None:
    installed.run("service", "install")
    pid = int(installed.state()["MainPID"])
    status = installed.manager.run("cat", f"/proc/{pid}/status").stdout
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    added = (
        "server",
        "add",
        "time",
        "--profile",
        "p",
        "--",
        sys.executable,
        "-m",
        "mcp_server_time",
    )
    installed.run(*added)
    assert installed.run("server", "test", "time").code == 0
    probe = "import pathlib; pathlib.Path('/etc/by-the-gateway').write_text('x')"
    installed.run("server", "add", "bad", "--", sys.executable, "-c", probe)
    assert installed.run("server", "test", "bad", check=False).code == 1
    assert not Path("/etc/by-the-gateway").exists()


@pytest.mark.parametrize("name", [UNIT, "local-mcp-gateway.socket"])
def test_systemd_has_nothing_to_say_about_the_units(installed: Installed, name: str) -> None:
    installed.run("service", "install", "--socket")
    unit = installed.home / ".config/systemd/user" / name
    done = installed.manager.run("systemd-analyze", "--user", "verify", "--man=no", str(unit))
    assert done.stderr == ""


def busy_sql(steps: int) -> str:
    return (
        "INSERT INTO slow WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        f" WHERE i < {steps}) SELECT max(i) FROM n"
    )


def limit(installed: Installed, *lines: str) -> None:
    """Override settings of the unit, as `systemctl --user edit` does."""
    folder = installed.home / f".config/systemd/user/{UNIT}.d"
    folder.mkdir(exist_ok=True)
    (folder / "limit.conf").write_text("[Service]\n" + "\n".join(lines) + "\n")
    installed.manager.run("systemctl", "--user", "daemon-reload")


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
