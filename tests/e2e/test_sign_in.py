"""A refresh of a token that a stop, a restart or a restore meets, by real processes.

The issuer rotates: each refresh token is taken once. So what is on the disk decides: with the new tokens
nobody has to sign in again, and with the old ones that is asked for once, and said.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local_mcp_gateway.formats import now_ms
from tests.cli.sealed import ran
from tests.harness import Finished, Place, new_place
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
