"""Clients that call a tool without a pause, each call on a connection of its own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Event, Thread

from tests.harness import DEADLINE_S


class Load:
    """What they do, to profile `p`, whose one server is `plain.py`."""

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self.clients = clients
        self._over = Event()
        self._numbers = iter(range(1, 10**9))
        self.outcomes: Counter[str] = Counter()
        self.connected = 0
        self._changed = Condition()

    def wait_for(self, answers: int) -> None:
        """Wait until so many calls were answered."""
        self._wait(lambda: self.outcomes["answered"] >= answers)

    def wait_connected(self) -> None:
        """Wait until every client has connected once."""
        self._wait(lambda: self.connected >= self.clients)

    def _wait(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(holds, DEADLINE_S), (self.connected, self.outcomes)

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
        with self._changed:
            self.connected += 1
            self._changed.notify_all()
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
            with self._changed:
                self.outcomes[outcome] += 1
                self._changed.notify_all()

    async def _clients(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

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
