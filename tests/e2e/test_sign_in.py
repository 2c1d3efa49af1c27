"""A refresh of a token that a stop, a kill, a restart or a restore meets, by real processes.

The issuer rotates: each refresh token is taken once. So what is on the disk decides: with the new tokens
nobody has to sign in again, and with the old ones that is asked for once, and said.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

import pytest

from local_mcp_gateway.formats import now_ms
from tests.cli.sealed import ran
from tests.gateway.messages import call
from tests.harness import DEADLINE_S, Finished, GatewayProcess, Place, new_place, poll
from tests.issuer import Issuer, browser

pytestmark = pytest.mark.e2e

LOGIN = "`server login far`"
HOUR_MS = 3_600_000


@pytest.fixture
def signed(tmp_path: Path, issuer: Issuer) -> Place:
    """A place that is signed in to one server, with a token that has expired."""
    place = new_place(tmp_path, shipped=True)
    ran(place, "server", "add", "far", "--url", issuer.url)
    done = place.run("server", "login", "far", env=browser(tmp_path))
    assert done.code == 0, done.stderr
    age(place)
    issuer.set(reset=True)
    return place


def age(place: Place) -> None:
    now = now_ms()
    place.write("UPDATE oauth_tokens SET expires_at = ?, updated_at = ?", now - 1, now - HOUR_MS)


def use(place: Place) -> Finished:
    return place.run("call", "whoami")


def test_a_refresh_that_a_stop_meets_is_completed_and_stored(signed: Place, issuer: Issuer) -> None:
    issuer.set(token="slow")
    with signed.serve() as gateway, ThreadPoolExecutor() as threads:
        gateway.wait_ready()
        threads.submit(use, signed)
        issuer.has_seen("refresh_token")
        gateway.signal(signal.SIGTERM)
        gateway.wait_for("service.stopping")
        issuer.set(go=True, token="")
        assert gateway.wait() == 0
        assert "token.refreshed" in gateway.names()
    with signed.serve() as gateway:
        gateway.wait_ready()
        assert use(signed).code == 0
    assert issuer.seen("refresh_token") == 1


def test_a_restart_during_a_refresh_takes_over_its_tokens(signed: Place, issuer: Issuer) -> None:
    issuer.set(token="slow")
    with signed.serve() as old, ThreadPoolExecutor() as threads:
        old.wait_ready()
        threads.submit(use, signed)
        issuer.has_seen("refresh_token")
        old.signal(signal.SIGTERM)
        old.wait_for("service.stopping")
        with signed.serve("--lock-timeout", "60") as new:
            new.wait_for("guard.waiting")
            issuer.set(go=True, token="")
            assert old.wait() == 0
            new.wait_ready()
            assert use(signed).code == 0
    assert issuer.seen("refresh_token") == 1


@pytest.mark.parametrize("serving", [True, False], ids=["with a gateway", "without one"])
def test_processes_that_use_an_expired_token_at_once_make_one_refresh(
    signed: Place, issuer: Issuer, *, serving: bool
) -> None:
    def together() -> list[Finished]:
        with ThreadPoolExecutor() as threads:
            return list(threads.map(use, [signed] * 4))

    if serving:
        with signed.serve() as gateway:
            gateway.wait_ready()
            done = together()
        assert {each.code for each in done} == {0}
    else:
        done = together()  # one has the database, and the others are told so
        assert {each.code for each in done} <= {0, 4}
    assert 0 in {each.code for each in done}
    assert issuer.seen("refresh_token") == 1
    assert use(signed).code == 0
    assert issuer.seen("refresh_token") == 1


def test_a_backup_with_an_old_token_needs_one_sign_in_and_no_more_tries(
    signed: Place, issuer: Issuer
) -> None:
    ran(signed, "db", "backup", "create")
    assert use(signed).code == 0
    ran(signed, "db", "restore", "latest", "--yes")
    with signed.serve() as gateway:
        gateway.wait_ready()
        for _ in range(3):
            assert LOGIN in use(signed).stderr
        assert "needs sign-in" in ran(signed, "server", "list")
        assert issuer.seen("refresh_token") == 2
        assert gateway.stop() == 0
    with signed.serve() as gateway:
        gateway.wait_ready()
        assert LOGIN in use(signed).stderr
        assert issuer.seen("refresh_token") == 2
        assert signed.run("server", "login", "far", env=browser(signed.root)).code == 0
        assert use(signed).code == 0


def test_a_backup_with_the_present_tokens_needs_nobody(signed: Place, issuer: Issuer) -> None:
    assert use(signed).code == 0
    ran(signed, "db", "backup", "create")
    age(signed)
    ran(signed, "db", "restore", "latest", "--yes")
    assert use(signed).code == 0
    assert issuer.seen("refresh_token") == 1


def called(gateway: GatewayProcess) -> str:
    """Call the tool as a client does; return what it is told, "" where the gateway ends meanwhile."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    body = json.dumps(call("tools/call", name="whoami", arguments={})).encode()
    try:
        with urlopen(Request(f"{gateway.url}/mcp", body, headers), timeout=DEADLINE_S) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def stored_at(place: Place) -> int:
    ((found,),) = place.query("SELECT updated_at FROM oauth_tokens")
    return int(found)


def call_and_see_it_logged(place: Place, gateway: GatewayProcess) -> None:
    since = now_ms()
    called(gateway)
    poll(lambda: bool(place.query("SELECT 1 FROM debug_logs WHERE created_at >= ?", since)))


@contextmanager
def killed_at(gateway: GatewayProcess, step: str, number: int, *only: Path) -> Iterator[None]:
    """Kill the gateway as one of its threads begins the n-th of these system calls from now on."""
    chosen = [argument for path in only for argument in ("-P", str(path))]
    inject = f"inject={step}:signal=KILL:when={number}"
    command = ["strace", "-f", "-o", "/dev/null", "-p", str(gateway.process.pid), *chosen]
    with subprocess.Popen(
        [*command, "-e", f"trace={step}", "-e", inject], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.kill()  # asked to end, it may wait for what it has killed


def judged(place: Place, issuer: Issuer, gateway: GatewayProcess, attack: Attack | None) -> bool:
    """Return whether the gateway that was started after an attack is signed in; sign in where it is not."""
    tried = issuer.seen("refresh_token")
    told = called(gateway)
    signed_in = LOGIN not in told
    if attack and (attack.stored or not attack.asked or issuer.set()["rotate"] == "grace"):
        assert signed_in, f"the sign-in could have been kept: {attack}"
    if not signed_in:
        assert LOGIN in called(gateway)
        assert issuer.seen("refresh_token") == tried + 1, "the old one was tried once"
        assert place.run("server", "login", "far", env=browser(place.root)).code == 0
        told = called(gateway)
    assert "result" in told, told
    return signed_in


@dataclass(frozen=True, slots=True)
class Attack:
    """What a kill left behind."""

    step: str
    number: int
    asked: bool
    """Whether the issuer has rotated the refresh token."""
    stored: bool
    """Whether the new one is in the database."""


WAL: Final = ("pwrite64", "fdatasync")
NETWORK: Final = ("sendto", "recvfrom")


def kills(
    place: Place, issuer: Issuer, steps: Sequence[str], *, most: int
) -> set[tuple[bool, bool]]:
    """Kill a gateway at each of the steps of a refresh, at most so many of a kind.

    Returns the ways it went: whether the new tokens were stored, and whether it was signed in afterwards.
    """
    ways: set[tuple[bool, bool]] = set()
    only = [place.database.with_name("gateway.db-wal")] if steps != NETWORK else []
    left, number, attack = list(steps), 1, None
    while True:
        with place.serve() as gateway:
            gateway.wait_ready()
            signed_in = judged(place, issuer, gateway, attack)
            if attack:
                ways.add((attack.stored, signed_in))
            if not left:
                return ways
            # So that each round has the same steps: no call is still to be logged, and the log is empty.
            call_and_see_it_logged(place, gateway)
            place.write("PRAGMA wal_checkpoint(TRUNCATE)")
            before, tried = stored_at(place), issuer.seen("refresh_token")
            with killed_at(gateway, left[0], number, *only):
                issuer.set(revoke=True)
                told = called(gateway)
            if not told:
                assert gateway.wait() == -signal.SIGKILL
            stored, asked = stored_at(place) != before, issuer.seen("refresh_token") > tried
            assert stored or not told, "tokens are stored before they are used"
        attack = None if told else Attack(left[0], number, asked, stored)
        number += 1
        if told or number > most:
            left, number = left[1:], 1


@pytest.mark.usefixtures("needs_strace")
def test_killed_before_and_after_the_write_of_a_token_what_is_stored_decides(
    signed: Place, issuer: Issuer
) -> None:
    ways = kills(signed, issuer, WAL[1:], most=2)
    assert ways == {(False, False), (True, True)}


@pytest.mark.nightly
@pytest.mark.usefixtures("needs_strace")
@pytest.mark.parametrize("steps", [WAL, NETWORK], ids=["the database", "the network"])
def test_killed_at_any_step_of_a_refresh_what_is_stored_decides(
    signed: Place, issuer: Issuer, steps: Sequence[str]
) -> None:
    ways = kills(signed, issuer, steps, most=99)
    assert ways >= {(False, False), (True, True)}


@pytest.mark.nightly
@pytest.mark.usefixtures("needs_strace")
def test_an_issuer_with_grace_is_asked_again_after_a_kill(signed: Place, issuer: Issuer) -> None:
    issuer.set(rotate="grace")
    ways = kills(signed, issuer, WAL, most=2)
    assert {signed_in for _, signed_in in ways} == {True}
    assert (False, True) in ways
