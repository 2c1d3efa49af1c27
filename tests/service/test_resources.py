"""A system that gives no thread, memory or file: the start ends in one sentence, and never hangs."""

from __future__ import annotations

import os
import signal

import pytest

from local_mcp_gateway.service.process import LEAST_FILES
from tests.harness import GatewayProcess, Place


def refused(gateway: GatewayProcess) -> bool:
    """Wait until it serves, or has ended with the one sentence; tell which."""
    if gateway.serves():
        os.kill(gateway.wait_for("service.starting")["pid"], signal.SIGTERM)  # strace hears none
        assert gateway.wait() == 0
        return False
    assert gateway.wait() == 9
    event = gateway.events[-1]
    assert (event["event"], event["code"]) == ("service.refused", "no_resources"), event
    assert event["message"].startswith("The system")
    assert "ulimit" in event["hint"]
    return True


def test_whichever_thread_cannot_be_had_is_told(shipped: Place, needs_strace: None) -> None:
    told = 0
    for number in range(1, 30):
        trace = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=clone3,clone")
        inject = ("-e", f"inject=clone3:error=EAGAIN:when={number}+")
        with shipped.serve(prefix=(*trace, *inject)) as gateway:
            if not refused(gateway):
                break
        told += 1
    assert 4 < told < 29


@pytest.mark.parametrize("megabytes", [84, 120, 160, 200, 223])
def test_a_start_without_memory_is_told(shipped: Place, megabytes: int) -> None:
    limit = f'ulimit -v {megabytes * 1024}; exec "$@"'
    with shipped.serve(prefix=("sh", "-c", limit, "sh")) as gateway:
        refused(gateway)
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0


@pytest.mark.parametrize("files", [16, 40, LEAST_FILES - 1])
def test_a_start_without_files_is_told(shipped: Place, files: int) -> None:
    with shipped.serve(prefix=limited_to(files)) as gateway:
        assert refused(gateway)


def test_the_least_that_a_start_wants_of_files_is_enough_for_a_client(shipped: Place) -> None:
    with shipped.serve(prefix=limited_to(LEAST_FILES)) as gateway:
        assert gateway.wait_ready().is_live()
        assert gateway.stop() == 0
        assert "gateway.full" not in gateway.names()


def limited_to(files: int) -> tuple[str, ...]:
    return ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh")
