"""The process itself: real signals to this very process, its memory and its descriptors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from local_mcp_gateway.service.process import Signals, bounded_thread_starts
from tests.fork_server import NO_UVLOOP
from tests.gateway.support import SERVERS
from tests.harness import DEADLINE_S, Place, poll


async def test_a_stop_signal_reaches_the_guard_and_the_loop() -> None:
    with Signals() as signals, anyio.fail_after(5):
        signals.attach()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.stopped()
        assert signals.stop.is_set()
        assert signals.name == "SIGTERM"


class Stillborn(threading.Thread):
    """It ends before it tells that it has begun, as a thread does that gets no memory."""

    def _bootstrap(self) -> None:
        pass


def test_a_thread_that_cannot_begin_is_not_waited_for_without_a_limit() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with bounded_thread_starts(0.05), pytest.raises(MemoryError):
        Stillborn().start()
    with bounded_thread_starts() as lift:
        threading.Thread(target=int).start()
        lift()
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("arguments", [(), ("--dev",)])
def test_a_start_can_be_stopped_as_soon_as_it_hears_signals(
    shipped: Place, arguments: tuple[str, ...]
) -> None:
    with shipped.serve(*arguments) as gateway:
        poll(lambda: catches_sigterm(gateway.process.pid))
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert "service.ready" not in gateway.names()


@pytest.mark.parametrize("arguments", [(), ("--dev",)])
def test_a_start_that_is_asked_to_reload_goes_on(
    shipped: Place, arguments: tuple[str, ...]
) -> None:
    with shipped.serve(*arguments) as gateway:
        poll(lambda: catches_sigterm(gateway.process.pid))

        def asked_again() -> bool:
            gateway.signal(signal.SIGHUP)
            return "service.ready" in gateway.names() or gateway.process.poll() is not None

        poll(asked_again)
        gateway.wait_ready()
        assert gateway.stop() == 0


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_a_signal_that_came_before_the_loop_is_seen_by_it() -> None:
    with Signals() as signals, anyio.fail_after(5):
        os.kill(os.getpid(), signal.SIGINT)
        signals.attach()
        await signals.stopped()
        assert signals.name == "SIGINT"


async def test_a_second_stop_signal_means_impatience() -> None:
    with Signals() as signals, anyio.fail_after(5):
        signals.attach()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        await signals.second_signal()


async def test_reload_requests_that_come_together_are_one() -> None:
    with Signals() as signals:
        signals.attach()
        os.kill(os.getpid(), signal.SIGHUP)
        signals.request_reload()
        with anyio.fail_after(5):
            await signals.reload()
        with anyio.move_on_after(0) as scope:
            await signals.reload()
        assert scope.cancelled_caught
        assert not signals.stop.is_set()


def test_the_previous_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


STORMED = """
from local_mcp_gateway.service.process import Signals, bounded_thread_starts
with Signals() as signals:
    print("ready", flush=True)
    while not signals._reload_wanted:
        pass
"""


def test_a_signal_in_the_middle_of_another_ones_handler_is_taken() -> None:
    with subprocess.Popen([sys.executable, "-c", STORMED], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(20_000):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()


FEW = ("sh", "-c", 'ulimit -Sn 100; exec "$@"', "sh")
NO_MORE = ("sh", "-c", 'ulimit -n 80; exec "$@"', "sh")
LOOKS = """
import anyio, os
from local_mcp_gateway.service import process
process.TRIM_EVERY_S = 0.0
async def main():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.give_memory_back)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        print("looked", flush=True)
        tasks.cancel_scope.cancel()
anyio.run(main)
"""


def open_files(pid: int) -> str:
    limits = Path(f"/proc/{pid}/limits").read_text()
    return next(
        line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")
    )


def test_more_clients_are_served_than_the_soft_limit_allows_and_children_keep_that_limit(
    shipped: Place,
) -> None:
    shipped.run("server", "add", "plain", "--", sys.executable, str(SERVERS / "plain.py"))
    with shipped.serve(prefix=FEW) as gateway, ExitStack() as clients:
        gateway.wait_ready()
        host, port = gateway.url.removeprefix("http://").split(":")
        for _ in range(200):
            clients.enter_context(socket.create_connection((host, int(port)), timeout=60))
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "pid", "arguments": {}},
        }
        request = urllib.request.Request(
            gateway.url + "/mcp",
            json.dumps(message).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            child = int(json.load(reply)["result"]["content"][0]["text"])
        assert open_files(child) == "100"


ON_EACH_LOOP = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


def env_of(loop: str) -> dict[str, str]:
    if loop == "asyncio":
        return {"PYTHONPATH": NO_UVLOOP}
    pytest.importorskip("uvloop")
    return {}


@ON_EACH_LOOP
def test_clients_beyond_every_limit_wait_and_the_log_says_so_once(
    shipped: Place, loop: str
) -> None:
    shipped.run("server", "add", "plain", "--", sys.executable, str(SERVERS / "plain.py"))
    with shipped.serve(prefix=NO_MORE, env=env_of(loop)) as gateway:
        assert gateway.wait_for("service.starting")["loop"] == loop
        gateway.wait_ready()
        host, port = gateway.url.removeprefix("http://").split(":")
        with ExitStack() as clients:
            for _ in range(300):
                clients.enter_context(socket.create_connection((host, int(port)), timeout=60))
            told = gateway.wait_for("gateway.full")
            assert told["reason"] == "the limit of open files is near"
            # A client that waits is not refused, and what clients leave is enough to start a server.
            assert shipped.run("server", "test", "plain").code == 0
        with urllib.request.urlopen(gateway.url + "/health/live", timeout=60) as reply:
            assert json.load(reply) == {"status": "alive"}
        assert gateway.stop() == 0
        assert gateway.names().count("gateway.full") == 1
        assert "library.warned" not in gateway.names()
        assert "service.refused" not in gateway.names()


LOOKS_UP = """
import asyncio, re, resource
from pathlib import Path
from local_mcp_gateway.service.process import event_loop

async def main():
    loop = asyncio.get_running_loop()
    used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), before[1]))  # a thread's stack has 8 MiB
    try:
        await loop.getaddrinfo("localhost", 80)
    except RuntimeError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, before)
    print(bool(await loop.getaddrinfo("localhost", 80)))

with asyncio.Runner(loop_factory=event_loop()) as runner:
    runner.run(main())
"""


@ON_EACH_LOOP
def test_a_name_that_no_thread_can_look_up_is_an_error_and_no_end(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOKS_UP],
        env={**os.environ, **env_of(loop)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "can't start new thread\nTrue\n"), done.stderr


@ON_EACH_LOOP
def test_a_child_has_its_three_pipes_and_nothing_else(shipped: Place, loop: str) -> None:
    """Not the lock, the database, a client, another child's pipes, or what a shell left open."""
    for name in ("one", "two"):
        shipped.run("server", "add", name, "--", sys.executable, str(SERVERS / "plain.py"))
    left_open = ("sh", "-c", 'exec 7</dev/null; exec 8<&7; exec "$@"', "sh")
    with shipped.serve(prefix=left_open, env=env_of(loop)) as gateway:
        host, port = gateway.wait_ready().url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            tools = shipped.run("tools", "--json")  # which starts both
            assert tools.code == 0, tools.stderr
            pid = gateway.wait_for("service.starting")["pid"]
            assert Path(f"/proc/{pid}/fd/8").exists()
            children = [
                int(child)
                for thread in Path(f"/proc/{pid}/task").iterdir()
                for child in (thread / "children").read_text().split()
            ]
            found = [
                {each.name for each in Path(f"/proc/{child}/fd").iterdir()} for child in children
            ]
            assert found == [{"0", "1", "2"}] * 3, "two servers and their watch"


def test_a_look_at_the_memory_that_finds_no_descriptor_is_made_again_later() -> None:
    """Once it ended the service, some seconds after clients had taken all of them."""
    command = (*NO_MORE, sys.executable, "-c", LOOKS)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert (done.returncode, done.stdout) == (0, "looked\n"), done.stderr
