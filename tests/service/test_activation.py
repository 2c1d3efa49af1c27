"""Starts, restarts and reloads of the service under load: no call is refused, none is lost."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from tests.gateway.support import SERVERS
from tests.harness import until
from tests.service.load import Load
from tests.service.machine import REASON, UNIT, Installed

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "can run here")

CLIENTS = 100


def test_no_call_is_refused_in_a_start_with_a_slow_migration_or_in_restarts(
    installed: Installed,
) -> None:
    installed.allow_gates()
    installed.run("service", "install", "--socket")
    server = (sys.executable, str(SERVERS / "plain.py"))
    installed.run("server", "add", "plain", "--profile", "p", "--", *server)
    installed.systemctl("stop", UNIT)
    tag = installed.add_gated_migration("slow")

    load = Load(installed.port, CLIENTS)
    with load.running():  # the first connection starts the service
        with installed.gate("slow.copy"):
            installed.shows(ActiveState="activating", StatusText=f"rehearsing {tag}")
            until(lambda: load.connected == CLIENTS)
            assert load.outcomes.total() == 0
        with installed.gate("slow.live"):
            assert load.outcomes.total() == 0
        for _ in range(2):
            answered = load.outcomes["answered"]
            until(partial(load.has_answered, answered + CLIENTS))
            installed.systemctl("restart", UNIT)
    assert load.outcomes.keys() == {"answered"}, load.outcomes


def test_no_call_is_lost_while_a_reload_applies_a_migration(installed: Installed) -> None:
    installed.allow_gates()
    installed.run("service", "install")
    server = (sys.executable, str(SERVERS / "plain.py"))
    installed.run("server", "add", "plain", "--profile", "p", "--", *server)
    later = installed.add_gated_migration("later")

    load = Load(installed.port, CLIENTS)
    with load.running():
        until(partial(load.has_answered, CLIENTS))
        installed.systemctl("reload", "--no-block", UNIT)
        for gate, doing in (("later.copy", "rehearsing"), ("later.live", "applying")):
            with installed.gate(gate):  # the migration stands still, the calls go on
                installed.shows(ActiveState="reloading", StatusText=f"{doing} {later}")
                until(partial(load.has_answered, load.outcomes["answered"] + CLIENTS))
        installed.shows(ActiveState="active", SubState="running")
        assert installed.manager.entries(f"MIGRATION={later}", "EVENT=migration.applied")
    assert load.outcomes.keys() == {"answered"}, load.outcomes
