"""The service in a real systemd user manager: install, start, reload, hang, refusal, sockets."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from local_mcp_gateway.service.secrets.keyring import make_key_file, read_key_file
from tests import needs
from tests.harness import REPOSITORY
from tests.service.machine import COMMAND, REASON, UNIT, Installed

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "can run here")


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
    assert installed.run("service", "status").stdout.splitlines() == [
        "state       active: serving 0 profiles, 0 servers",
        f"process     pid {told['pid']}",
        f"starts      at {'boot' if told['linger'] else 'login'}",
        "port        its own",
        f"unit        {told['unit']}",
        f"version     {told['version']}",
        f"database    {installed.database}",
    ]

    installed.run("service", "uninstall")
    assert installed.database.exists()
    assert not (installed.home / ".config/systemd/user" / UNIT).exists()
    assert installed.state()["ActiveState"] == "inactive"
    gone = installed.run("service", "status", check=False)
    assert (gone.code, gone.stdout.splitlines()[0]) == (
        3,
        "service     not installed: `service install`",
    )


def test_a_command_that_finds_the_service_running_says_how_to_stop_it(
    installed: Installed,
) -> None:
    installed.run("service", "install")
    done = installed.run("db", "migrate", "--lock-timeout", "0", check=False)
    assert done.code == 4
    assert "`systemctl --user stop local-mcp-gateway`" in done.stderr


@pytest.mark.parametrize("how", [(), ("--socket",)], ids=["alone", "with a socket"])
def test_the_service_is_stopped_started_and_restarted(
    installed: Installed, how: tuple[str, ...]
) -> None:
    installed.run("service", "install", *how)
    assert "Stopped." in installed.run("service", "stop").stdout
    assert installed.state()["ActiveState"] == "inactive"
    told = json.loads(installed.run("service", "status", "--json", check=False).stdout)
    assert (told["state"], told["socket"]) == ("inactive", False)

    assert "ready after" in installed.run("service", "start").stdout
    first = installed.state()["MainPID"]
    assert "ready after" not in installed.run("service", "start").stdout  # it runs already
    assert installed.state()["MainPID"] == first

    assert "ready after" in installed.run("service", "restart").stdout
    assert installed.state()["MainPID"] != first
    assert json.loads(installed.run("service", "status", "--json").stdout)["socket"] is bool(how)


def test_a_service_that_is_refused_says_why_at_start_and_restart(installed: Installed) -> None:
    installed.run("service", "install")
    tag = installed.folder.add("broken", "CREAT TABLE x (id)")
    for verb in ("restart", "start"):
        done = installed.run("service", verb, check=False)
        assert done.code == 5
        assert tag in done.stderr


def test_a_service_that_is_not_installed_is_not_started(installed: Installed) -> None:
    for verb in ("start", "stop", "restart"):
        done = installed.run("service", verb, check=False)
        assert (done.code, "`service install`" in done.stderr) == (2, True)


def test_a_socket_that_somebody_stopped_is_installed_again(installed: Installed) -> None:
    installed.run("service", "install", "--socket")
    installed.systemctl("stop", "local-mcp-gateway.socket", UNIT)
    installed.systemctl("start", UNIT)  # it has the port itself now
    installed.systemctl("stop", "local-mcp-gateway.socket")
    installed.systemctl("restart", UNIT)
    installed.run("service", "install", "--socket")
    told = json.loads(installed.run("service", "status", "--json").stdout)
    assert (told["socket"], told["state"]) == (True, "active")
    port = next(
        finding
        for finding in json.loads(installed.run("doctor", "--json").stdout)["findings"]
        if finding["check"] == "port"
    )
    assert port["state"] == "ok"


@pytest.mark.parametrize(
    ("line", "what", "way_out"),
    [
        ("ReadWritePaths=/nowhere/at/all", "namespaces (status 226)", "systemctl --user edit"),
        (
            "LoadCredential=mine:/nowhere/at/all",
            "credentials (status 243)",
            "systemctl --user status",
        ),
    ],
)
def test_what_systemd_could_not_set_up_is_named_with_a_way_out(
    installed: Installed, line: str, what: str, way_out: str
) -> None:
    installed.limit(line)
    done = installed.run("service", "install", check=False)
    assert done.code == 7
    assert f"systemd could not set up its {what}" in done.stderr
    assert way_out in done.stderr
    for command in (
        ("service", "status"),
        ("doctor",),
        ("startup",),
    ) * 2:  # it tries again and again
        told = installed.run(*command, check=False).stdout
        assert f"systemd could not set up its {what}" in told
        assert way_out in told


def test_a_failed_service_is_forgotten_when_it_is_uninstalled(installed: Installed) -> None:
    installed.folder.add("broken", "CREAT TABLE x (id)")
    done = installed.run("service", "install", check=False)
    assert (done.stdout + done.stderr).count("syntax error") == 1
    installed.run("service", "uninstall")
    assert UNIT not in installed.systemctl("list-units", "--all", "--no-legend").stdout


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
    installed.allow_gates()
    installed.run("service", "install")
    installed.systemctl("stop", UNIT)
    tag = installed.add_gated_migration("slow")
    installed.limit("TimeoutStartSec=4")
    installed.systemctl("start", "--no-block", UNIT)
    with installed.gate("slow.copy"):
        installed.shows(ActiveState="activating", StatusText=f"rehearsing {tag}")
        installed.manager.entries("EVENT=guard.progressed")  # told after 5 s, longer than the limit
    with installed.gate("slow.live"):
        installed.shows(ActiveState="activating", StatusText=f"applying {tag}")
    installed.shows(ActiveState="active", NRestarts="0")


def test_a_refused_start_has_failed_is_not_restarted_and_says_why(installed: Installed) -> None:
    tag = installed.folder.add("broken", "CREAT TABLE x (id)")
    done = installed.run("service", "install", check=False)
    assert done.code == 5
    assert tag in done.stderr
    state = installed.state()
    assert (state["ActiveState"], state["NRestarts"]) == ("failed", "0")
    assert (state["ExecMainStatus"], state["StatusErrno"]) == ("5", str(errno.EPROTO))
    assert tag in state["StatusText"]


def test_reload_applies_a_pending_migration_and_fails_when_it_is_refused(
    installed: Installed,
) -> None:
    installed.run("service", "install")
    pid = installed.state()["MainPID"]
    tag = installed.folder.add("late", "CREATE TABLE late (id INTEGER PRIMARY KEY)")
    installed.systemctl("reload", UNIT)
    (entry,) = installed.manager.entries(f"MIGRATION={tag}", "EVENT=migration.applied")
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "local-mcp-gateway"

    installed.folder.add("broken", "CREAT TABLE x (id)")
    assert installed.systemctl("reload", UNIT, check=False).code != 0
    assert installed.state()["MainPID"] == pid
    assert installed.state()["ActiveState"] == "active"
    assert installed.get("/health/live") == 200


def test_a_stop_during_a_reload_is_a_clean_stop(installed: Installed) -> None:
    installed.run("service", "install")
    counting = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
    )
    tag = installed.folder.add("endless", "CREATE TABLE e (n INTEGER)", f"INSERT INTO e {counting}")
    installed.systemctl("reload", "--no-block", UNIT)
    installed.shows(ActiveState="reloading", StatusText=f"rehearsing {tag}")
    installed.systemctl("stop", UNIT)
    installed.shows(ActiveState="inactive", Result="success")


def test_the_journal_is_shown_again_as_events(installed: Installed) -> None:
    installed.run("service", "install")
    installed.manager.entries("EVENT=service.ready")
    shown = installed.run("logs", "--from", "journal", "--json").stdout.splitlines()
    events = [json.loads(line) for line in shown]
    names = [event["event"] for event in events]
    assert names[names.index("service.starting") :][:2] == ["service.starting", "guard.locked"]
    ready = next(event for event in events if event["event"] == "guard.ready")
    shipped = len(installed.folder.journal())
    assert (ready["state"], ready["applied"]) == ("created", shipped)


def test_a_journal_that_stands_still_holds_nobody_up_and_is_used_again_afterwards(
    installed: Installed,
) -> None:
    installed.run("service", "install")
    installed.limit("TimeoutStopSec=20", "TimeoutStartSec=20")
    with installed.manager.journal_stopped():
        installed.systemctl("restart", UNIT)  # this alone is more than the kernel keeps for it
        installed.run("reload")
        assert installed.get("/health/live") == 200
        assert installed.state()["Result"] == "success"
        pid = installed.state()["MainPID"]
    installed.run("reload")
    assert installed.manager.entries("EVENT=service.reloaded", f"_PID={pid}")


def test_socket_and_log_are_where_the_unit_says_and_are_found_from_a_shell(
    installed: Installed,
) -> None:
    installed.run("service", "install")
    ours = installed.manager.run("systemctl", "--user", "show-environment").stdout
    assert "RUNTIME_DIRECTORY" not in ours
    data = installed.database.parent
    (socket,) = installed.manager.run("readlink", str(data / "gateway.db.sock")).stdout.split()
    assert socket == f"/run/user/{os.getuid()}/local-mcp-gateway/gateway.db.sock"
    log = (data / "gateway.db.log.jsonl").resolve()
    assert log.is_relative_to(installed.home)
    assert log.parent.name == "local-mcp-gateway"
    assert installed.run("server", "list").code == 0
    installed.run("reload")
    told = installed.run("logs", "--from", "file", "--json").stdout.splitlines()
    assert json.loads(told[-1])["event"] in ("service.reloaded", "control.answered")
    assert installed.run("service", "logs", "--event", "service.reloaded").stdout
    installed.systemctl("stop", UNIT)
    assert installed.manager.run("test", "-e", socket, check=False).code == 1
    assert installed.run("server", "list").code == 0


def test_a_unit_without_these_folders_goes_on_working(installed: Installed) -> None:
    """As one that an earlier version wrote; installing again says that it is updated."""
    installed.run("service", "install")
    unit = installed.home / ".config/systemd/user" / UNIT
    new = unit.read_text()
    unit.write_text(re.sub(r"(?m)^(Runtime|Logs)Directory\S*\n", "", new))
    installed.systemctl("daemon-reload")
    installed.systemctl("restart", UNIT)
    assert (installed.database.parent / "gateway.db.sock").is_socket()
    installed.run("reload")
    assert "updated " in installed.run("service", "install").stdout
    assert unit.read_text() == new


def key_id(path: Path) -> str:
    return read_key_file(path)[0].id


STOP_MAIN_THREAD = """
import ctypes, os, signal, sys
ATTACH, WALL = 16, 0x40000000
pid = int(sys.argv[1])
assert ctypes.CDLL(None).ptrace(ATTACH, pid, None, None) == 0
os.waitpid(pid, WALL)
print("the loop hangs", flush=True)
status = 0x7F
while os.WIFSTOPPED(status):
    _, status = os.waitpid(pid, WALL)
print("killed by", signal.Signals(os.WTERMSIG(status)).name)
"""
"""As a debugger does: only this thread stands still, and every other one of the process goes on."""


def test_a_loop_that_hangs_is_found_by_the_watchdog_and_restarted(installed: Installed) -> None:
    installed.run("service", "install")
    installed.limit("WatchdogSec=4", "RestartSec=0.1")
    installed.systemctl("restart", UNIT)
    pid = installed.state()["MainPID"]
    stopped = installed.manager.run(sys.executable, "-c", STOP_MAIN_THREAD, pid)
    assert stopped.stdout == "the loop hangs\nkilled by SIGABRT\n"
    installed.shows(NRestarts="1", ActiveState="active")
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
        installed.systemctl("restart", UNIT)
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
    # What npx, uvx and pipx do in a home that has never seen them.
    writes = "mkdir -p ~/.npm/_cacache ~/.cache/uv ~/.local/share/uv && exec "
    shell = ("sh", "-c", f"{writes} {sys.executable} -m mcp_server_time")
    installed.run("server", "add", "caching", "--no-test", "--", *shell)
    assert installed.run("server", "test", "caching").code == 0
    probe = "import pathlib; pathlib.Path('/etc/by-the-gateway').write_text('x')"
    installed.run("server", "add", "bad", "--no-test", "--", sys.executable, "-c", probe)
    assert installed.run("server", "test", "bad", check=False).code == 1
    assert not Path("/etc/by-the-gateway").exists()


def test_a_sandbox_is_made_under_the_hardening(installed: Installed) -> None:
    needs.sandbox()
    inside, outside = installed.home / ".cache" / "in", installed.home / ".cache" / "out"
    inside.mkdir(parents=True)  # where the unit itself may write
    installed.run("service", "install")
    options = ("--sandbox", "--no-network", "--no-test")
    installed.run("server", "add", "time", *options, "--", sys.executable, "-m", "mcp_server_time")
    assert installed.run("server", "test", "time").code == 0
    probe = f"import pathlib as p; p.Path('{inside}/a').touch(); p.Path('{outside}').touch()"
    boxed = ("--sandbox", "--writable", str(inside), "--no-test", "--", sys.executable, "-c", probe)
    installed.run("server", "add", "bad", *boxed)
    done = installed.run("server", "test", "bad", check=False)
    assert done.code == 1
    assert "Permission denied" in done.stdout + done.stderr
    assert (inside / "a").exists()
    assert not outside.exists()


def test_a_server_gets_its_token_through_restarts_and_through_the_credential(
    installed: Installed,
) -> None:
    key = installed.home / ".config/local-mcp-gateway.key"
    away = key.with_name("away")
    plain = REPOSITORY / "tests" / "gateway" / "servers" / "plain.py"

    def token() -> str:
        pid = installed.run("call", "pid").stdout.strip()
        pairs = installed.manager.run("cat", f"/proc/{pid}/environ").stdout.split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)["TOKEN"]

    assert f"created    {key}" in installed.run("service", "install").stdout
    command = ("--", sys.executable, str(plain))
    installed.run("server", "add", "github", "--no-test", "--env", "TOKEN=hunter2", *command)
    assert token() == "hunter2"
    served = installed.run("call", "pid").stdout
    installed.run("secrets", "rotate")
    assert installed.run("call", "pid").stdout == served
    installed.systemctl("restart", UNIT)
    key.rename(away)  # what systemd has loaded at the start is enough
    assert token() == "hunter2"

    installed.systemctl("restart", UNIT)
    assert installed.run("call", "pid", check=False).code == 1
    shown = " ".join(installed.run("server", "show", "github").stdout.split())
    assert f"is sealed with key {key_id(away)}, and there is no {key}; restore the key" in shown
    away.rename(key)  # a gateway that runs finds it by itself
    assert token() == "hunter2"
    assert "hunter2" not in json.dumps(
        installed.manager.entries("SYSLOG_IDENTIFIER=local-mcp-gateway")
    )
    assert str(key) in installed.run("service", "uninstall").stdout
    assert key.exists()


def test_the_unit_as_it_is_shipped_starts_without_a_key_and_a_command_makes_the_first(
    installed: Installed,
) -> None:
    text = (REPOSITORY / "systemd" / UNIT).read_text()
    text = text.replace("%h/.local/bin/local-mcp-gateway", f"{COMMAND} --config {installed.config}")
    unit = installed.home / ".config/systemd/user" / UNIT
    unit.parent.mkdir(parents=True)
    unit.write_text(
        text.replace("[Service]\n", f"[Service]\nReadWritePaths={installed.home}/data\n")
    )
    key = installed.home / ".config/local-mcp-gateway.key"
    installed.systemctl("daemon-reload")
    installed.systemctl("start", UNIT)
    assert not key.exists()
    installed.run("server", "add", "a", "--no-test", "--env", "TOKEN=x", "--", sys.executable)
    installed.systemctl("restart", UNIT)
    key.unlink()  # what systemd has loaded at the start is enough
    shown = installed.run("server", "show", "a", "--secrets", "--json").json()
    assert shown["env"] == {"TOKEN": "x"}


def test_a_drop_in_may_load_the_key_from_elsewhere(installed: Installed) -> None:
    elsewhere = installed.home / "vault.key"
    make_key_file(elsewhere, make_folder=False)
    installed.run("service", "install")
    (installed.home / ".config/local-mcp-gateway.key").unlink()
    installed.limit(f"LoadCredential=secrets.key:{elsewhere}")
    installed.systemctl("restart", UNIT)
    installed.run("server", "add", "a", "--no-test", "--env", "TOKEN=x", "--", sys.executable)
    assert installed.run("secrets", "seal", "--json").json()["key"] == key_id(elsewhere)
    assert not (installed.home / ".config/local-mcp-gateway.key").exists()


@pytest.mark.parametrize("name", ["100%h$HOME.key", "my keys/a.key"])
def test_a_gateway_that_may_not_write_the_key_has_the_command_make_it(
    installed: Installed, name: str
) -> None:
    key = installed.home / "keys" / name
    key.parent.mkdir(parents=True)
    installed.manager.environment["LMG_SECRETS__KEY_FILE"] = str(key)
    installed.run("service", "install")
    installed.systemctl("stop", UNIT)
    key.unlink()
    installed.systemctl("start", UNIT)
    added = installed.run(
        "server", "add", "a", "--no-test", "--env", "TOKEN=x", "--", sys.executable
    )
    assert "secrets.key_created" in added.stderr
    installed.systemctl("restart", UNIT)
    if " " not in name:  # systemd has loaded it
        key.rename(installed.home / "away")
    shown = installed.run("server", "show", "a", "--secrets", "--json").json()
    assert shown["env"] == {"TOKEN": "x"}


@pytest.mark.parametrize("name", [UNIT, "local-mcp-gateway.socket"])
def test_systemd_has_nothing_to_say_about_the_units(installed: Installed, name: str) -> None:
    installed.run("service", "install", "--socket")
    unit = installed.home / ".config/systemd/user" / name
    done = installed.manager.run("systemd-analyze", "--user", "verify", "--man=no", str(unit))
    assert done.stderr == ""
