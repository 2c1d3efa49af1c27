"""Starts, restarts and reloads of the service under load: no call is refused, none is lost."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread

import pytest

from tests.gateway.support import SERVERS
from tests.harness import until
from tests.service.machine import REASON, UNIT, Installed

pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "can run here")

CLIENTS = 100


class Load:
    """Clients that call a tool over and over, each call on a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = Event()
        self._numbers = iter(range(1, 10**9))
        self.outcomes: Counter[str] = Counter()
        self.connected = 0

    def has_answered(self, calls: int) -> bool:
        return self.outcomes["answered"] >= calls

    async def _call(self) -> str:
        number = next(self._numbers)
        params = {"name": "raw", "arguments": {"n": number}}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        body = json.dumps(message).encode()
        head = (
            f"POST /mcp/p HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connected += 1
        writer.write(head.encode() + body)
        answer = (await reader.read()).decode()
        writer.close()
        status, _, rest = answer.partition("\r\n")
        if status != "HTTP/1.1 200 OK":
            return f"status {status!r}"
        return "answered" if f'"n":{number}' in rest.replace(" ", "").replace("\\", "") else rest

    async def _client(self) -> None:
        while not self._over.is_set():
            try:
                outcome = await self._call()
            except OSError as error:
                outcome = f"{type(error).__name__}: {error}"
            self.outcomes[outcome] += 1

    async def _clients(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the clients call inside of the block; after it every call has ended."""
        thread = Thread(target=lambda: asyncio.run(self._clients()))
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def test_no_call_is_refused_in_a_start_with_a_slow_migration_or_in_restarts(
    installed: Installed,
) -> None:
    installed.allow_gates()
    installed.run("service", "install", "--socket")
    server = (sys.executable, str(SERVERS / "plain.py"))
    installed.run("server", "add", "plain", "--profile", "p", "--", *server)
    installed.systemctl("stop", UNIT)
    tag = installed.add_gated_migration("slow")

    load = Load(installed.port)
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

    load = Load(installed.port)
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
