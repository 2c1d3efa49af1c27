"""Starts, restarts and reloads of the service under load: no call is refused, none is lost."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress

import pytest

from tests.gateway.support import SERVERS
from tests.harness import poll
from tests.service.load import Load
from tests.service.machine import REASON, UNIT, Installed

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "can run here")

CLIENTS = 100
SOCKET = "local-mcp-gateway.socket"


def test_no_call_is_refused_in_a_start_with_a_slow_migration_or_in_restarts(
    installed: Installed,
) -> None:
    installed.allow_gates()
    installed.run("service", "install", "--socket")
    server = (sys.executable, str(SERVERS / "plain.py"))
    installed.run("server", "add", "plain", "--no-test", "--profile", "p", "--", *server)
    installed.systemctl("stop", UNIT)
    tag = installed.add_gated_migration("slow")

    load = Load(installed.port, CLIENTS)
    with load.running():  # the first connection starts the service
        with installed.gate("slow.copy"):
            installed.shows(ActiveState="activating", StatusText=f"rehearsing {tag}")
            load.wait_connected()
            assert load.outcomes.total() == 0
        with installed.gate("slow.live"):
            assert load.outcomes.total() == 0
        for _ in range(2):
            answered = load.outcomes["answered"]
            load.wait_for(answered + CLIENTS)
            installed.systemctl("restart", UNIT)
    assert load.outcomes.keys() == {"answered"}, load.outcomes


def test_no_call_is_lost_while_a_reload_applies_a_migration(installed: Installed) -> None:
    installed.allow_gates()
    installed.run("service", "install")
    server = (sys.executable, str(SERVERS / "plain.py"))
    installed.run("server", "add", "plain", "--no-test", "--profile", "p", "--", *server)
    later = installed.add_gated_migration("later")

    load = Load(installed.port, CLIENTS)
    with load.running():
        load.wait_for(CLIENTS)
        installed.systemctl("reload", "--no-block", UNIT)
        for gate, doing in (("later.copy", "rehearsing"), ("later.live", "applying")):
            with installed.gate(gate):  # the migration stands still, the calls go on
                installed.shows(ActiveState="reloading", StatusText=f"{doing} {later}")
                load.wait_for(load.outcomes["answered"] + CLIENTS)
        installed.shows(ActiveState="active", SubState="running")
        assert installed.manager.entries(f"MIGRATION={later}", "EVENT=migration.applied")
    assert load.outcomes.keys() == {"answered"}, load.outcomes


def test_a_refused_start_is_not_tried_again_for_clients_that_wait(installed: Installed) -> None:
    """They would start it again at once, until systemd gave up on both units."""
    installed.run("service", "install", "--socket")
    broken = installed.folder.add("broken", "CREAT TABLE x (id)")
    installed.systemctl("stop", UNIT)
    with socket.create_connection(("127.0.0.1", installed.port), timeout=60) as client:
        poll(lambda: installed.manager.show(SOCKET, "ActiveState")["ActiveState"] == "inactive")
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    state = installed.state()
    assert (state["ActiveState"], state["NRestarts"]) == ("failed", "0")
    starts = json.loads(installed.run("startup", "--last", "9", "--json").stdout)["starts"]
    assert [start["outcome"] for start in starts] == ["ready", "refused"]
    installed.folder.write(broken, "CREATE TABLE x (id INTEGER PRIMARY KEY);")
    installed.systemctl("restart", UNIT)
    told = json.loads(installed.run("service", "status", "--json").stdout)
    assert (told["socket"], told["state"]) == (True, "active")
    assert installed.get("/health/live") == 200


def test_a_later_install_keeps_the_socket(installed: Installed) -> None:
    installed.run("service", "install", "--socket")
    again = installed.run("service", "install").stdout
    assert again.count("unchanged ") == 2
    assert json.loads(installed.run("service", "status", "--json").stdout)["socket"]
