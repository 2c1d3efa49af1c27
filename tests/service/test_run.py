"""One service from its first event to the release of the lock."""

from __future__ import annotations

import os
import signal
import socket
import stat
import urllib.error
import urllib.request

import pytest

from tests.harness import Place


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_it_with_zero_and_the_next_start_need_not_check_the_file(
    shipped: Place, number: signal.Signals
) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.signal(number)
        assert gateway.wait() == 0
    assert gateway.wait_for("service.stopping")["reason"] == number.name
    with shipped.serve() as again:
        assert again.wait_for("guard.checked")["state"] == "clean"


def test_after_a_kill_the_next_start_checks_the_file(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.kill()
    with shipped.serve() as again:
        assert again.wait_for("guard.checked")["state"] == "checked"
        again.wait_ready()


def test_what_it_writes_only_its_owner_can_read(shipped: Place) -> None:
    os.umask(0o022)
    with shipped.serve() as gateway:
        gateway.wait_ready()
        folder = shipped.database.parent
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert {name: mode for name, mode in modes.items() if mode != 0o600} == {}
    assert f"{shipped.database.name}.sock" in modes


def test_the_default_data_folder_is_made_for_its_owner_alone(shipped: Place) -> None:
    with shipped.serve(options=()) as gateway:
        gateway.wait_ready()
        folder = shipped.home / ".local-mcp-gateway-data"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "local-mcp-gateway.db").exists()


def test_a_second_start_on_the_same_port_hears_of_the_lock_not_of_the_port(shipped: Place) -> None:
    with shipped.serve() as gateway:
        port = gateway.url.rpartition(":")[2]
        second = shipped.run("--log-format", "json", "serve", "--port", port)
        assert second.code == 4
        (refusal,) = [event for event in second.events() if event["level"] == "error"]
        assert (refusal["event"], refusal["code"]) == ("guard.refused", "locked")
        assert str(gateway.process.pid) in refusal["message"]
        assert get(gateway.url + "/health/live") == 200


def test_a_second_start_that_waits_takes_over_lock_and_port_when_the_first_stops(
    shipped: Place,
) -> None:
    with shipped.serve() as first:
        port = first.url.rpartition(":")[2]
        with shipped.serve("--port", port, "--lock-timeout", "60") as second:
            assert second.wait_for("guard.waiting")["pid"] == first.process.pid
            assert first.stop() == 0
            second.wait_ready()
            assert second.url == first.url
            assert get(second.url + "/health/live") == 200


def test_a_port_in_use_is_told_before_the_database_is_touched(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = shipped.run("--log-format", "json", "serve", "--port", str(port))
    assert done.code == 7
    (refusal,) = [event for event in done.events() if event["level"] == "error"]
    assert (refusal["event"], refusal["code"]) == ("service.refused", "port_in_use")
    assert not shipped.database.exists()


def test_a_refusal_is_one_stream_of_events_and_no_other_text(shipped: Place) -> None:
    tag = shipped.folder.add("broken", "CREATE TABLE one (id INTEGER);", "CREAT TABLE two (id)")
    done = shipped.run("--log-format", "json", "serve", "--port", "0")
    assert done.code == 5
    assert len(done.events()) == len(done.stderr.splitlines())
    assert tag in done.events()[-1]["message"]


def get(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
