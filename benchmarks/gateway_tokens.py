"""What a token and a policy cost on the path of a message, and what wrong tokens cost everybody else.

With and without a token: one gateway, in turns. Their own work is timed besides, by itself: it is less than what two runs
of the same thing differ by. Wrong ones: a client calls while another process floods the gateway, or a socket that
nobody reads, so that what the flood itself takes of the machine is in both.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from benchmarks.gateway import CALLS, CONNECTIONS, HEADERS, ROOT, ROUNDS, Load, cpu_s, side
from benchmarks.table import Row, Size
from local_mcp_gateway.config import Settings
from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.gateway.clients import Admission, Limiter
from local_mcp_gateway.service.options import gateway_options
from local_mcp_gateway.store import (
    ClientToken,
    Policy,
    ProfileDefinition,
    add_token,
    list_tokens,
    new_token,
)

POLICY = Policy(
    allowed=("echo", "git_*"),
    denied=("other/*", "rm*"),
    calls_per_minute=1_000_000,
    calls_at_once=1000,
)
"""Everything that is looked at for each call, and nothing that stops one."""
TURNS = 8
"""How many bursts a side has in a round."""


async def _give_token(folder: Path) -> tuple[ClientToken, dict[str, str]]:
    token, text = new_token(ClientToken("bench", policy=POLICY))
    async with ConnectionPool.open(folder / "gateway.db") as database:
        await add_token(database, token)
        (stored,) = await list_tokens(database)
    return stored, {"Authorization": f"Bearer {text}"}


def measure(size: Size) -> Iterable[Row]:
    """Compare a client that shows a token with one that shows none, and calls beside floods with calls alone."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url, _ = stack.enter_context(side("echo_server"))
        with side("gateway_process", folder, f"http:echo:{url}"):  # makes the database
            token, shown = asyncio.run(_give_token(Path(folder)))
        gateway = stack.enter_context(side("gateway_process", folder, f"http:echo:{url}"))
        yield from asyncio.run(_in_turns(*gateway, token, shown, size))
        yield from _wrong_tokens(*gateway, size)


async def _in_turns(
    url: str, pid: int, token: ClientToken, shown: dict[str, str], size: Size
) -> list[Row]:
    sides: dict[str, dict[str, str]] = {"without": {}, "with token and policy": shown}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    used: dict[str, list[float]] = {name: [] for name in sides}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        loads = [(name, Load(url, http, shown=headers)) for name, headers in sides.items()]
        for _, load in loads:
            await load.open()
        for turn in range(ROUNDS[size] * TURNS):
            for name, load in loads if turn % 2 else reversed(loads):
                before = cpu_s(pid)
                rates[name].append(await load.rate(CALLS[size]))
                used[name].append((cpu_s(pid) - before) / CALLS[size])
    (rate, rate_with), (cpu, cpu_with) = (
        [statistics.median(each) for each in found.values()] for found in (rates, used)
    )
    own = await _own_s(token, shown) - await _own_s(None, {})
    said = f"{own * 1e6:.1f} µs of {cpu * 1e6:.0f} µs"
    rate_note = f"{rate:.0f}/s without, {rate_with:.0f}/s with token and policy"
    cpu_note = f"{cpu * 1e3:.3f} ms without, {cpu_with * 1e3:.3f} ms with"
    return [
        Row("token and policy, of the CPU of a call", own / cpu, "", 0.03, None, said),
        Row("calls/s at 32, with token / without", rate_with / rate, "×", None, 0.97, rate_note),
        Row("CPU a call, with token / without", cpu_with / cpu, "×", 1.03, None, cpu_note),
    ]


async def _own_s(token: ClientToken | None, shown: dict[str, str]) -> float:
    """Return the seconds that one call takes to be admitted and counted: the least of several rounds."""
    admission, limiter = Admission(gateway_options(Settings()), lambda: None), Limiter()
    tokens = [] if token is None else [token]
    admission.replace(tokens)
    limiter.replace([ProfileDefinition("default")], tokens)
    sent = {name.lower(): value for name, value in {**HEADERS, **shown}.items()}

    def admitted() -> None:
        known = admission.admit(sent.copy())
        identity = "" if known is None else known.id
        limiter.end(limiter.begin("tools/call", "default", identity)[1])
        admission.check_again(known)

    return min(_seconds(admitted, 1000) for _ in range(20))


def _seconds(run: Callable[[], None], times: int) -> float:
    started = time.thread_time()
    for _ in range(times):
        run()
    return (time.thread_time() - started) / times


PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
WRONG: Final = (
    b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Accept: application/json, text/event-stream\r\nAuthorization: Bearer lmg_%s_%s\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (b"0" * 16, b"A" * 43, len(PING), PING)
)
A_SECOND = 10_000
SENDERS = 100
AT_ONCE = 10
PATIENT = 500
FLOODS = {
    "": "alone",
    "elsewhere": "beside the same flood elsewhere",
    "sent": "beside 10,000 sent a second",
    "patient": f"beside {PATIENT} connections that wait for each answer",
    "new": "beside a new connection for each",
}


def _wrong_tokens(url: str, pid: int, size: Size) -> Iterable[Row]:
    found = asyncio.run(_during_floods(url, pid, size))
    elsewhere = found["elsewhere"][0]
    for name in ("sent", "patient", "new"):
        p50, cpu, said = found[name]
        note = f"{p50:.1f} ms, {found[''][0]:.1f} ms alone, {elsewhere:.1f} ms elsewhere; {said}"
        goal = None if name == "new" else 1.1
        yield Row(
            f"p50 of a call, wrong tokens ({name}) / elsewhere",
            *(p50 / elsewhere, "×", goal, None, note),
        )
        goal = 0.1 if name == "sent" else None
        yield Row(f"wrong tokens ({name}), of a core", cpu, "", goal, None, FLOODS[name])


async def _during_floods(url: str, pid: int, size: Size) -> dict[str, tuple[float, float, str]]:
    """Return of each flood: p50 of a call in ms, what the flood alone takes of a core, and what was sent."""
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in FLOODS}
    async with aiohttp.ClientSession() as http:
        load = Load(url, http)
        await load.open()
        for _ in range(ROUNDS[size]):
            for name, measured in found.items():
                command = [sys.executable, "-m", "benchmarks.gateway_tokens", url, name]
                with subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                ) as flood:
                    assert flood.stdout is not None
                    flood.stdout.readline()  # it has begun
                    before, started = cpu_s(pid), time.perf_counter()
                    await asyncio.sleep(2)
                    cpu = (cpu_s(pid) - before) / (time.perf_counter() - started)
                    p50 = await load.p50_ms(CALLS[size])
                    said, _ = flood.communicate("")  # the end of its input ends it
                measured.append((p50, cpu, said.strip()))
    return {
        name: (statistics.median(p50 for p50, *_ in each), *each[-1][1:])
        for name, each in found.items()
    }


class _Sender(asyncio.Protocol):
    """One connection of a flood. What all have sent, and got as answers, is counted."""

    sent = 0
    answered = 0
    transport: asyncio.Transport

    def __init__(self, *, patient: bool) -> None:
        self._patient = patient

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._patient:
            self.send(1)

    def data_received(self, data: bytes) -> None:
        answers = data.count(b"HTTP/1.1 401")
        _Sender.answered += answers
        if self._patient and answers:
            self.send(1)

    def send(self, many: int) -> None:
        if not self.transport.get_write_buffer_size():
            self.transport.write(WRONG * many)
            _Sender.sent += many


async def _flood(url: str, name: str) -> None:
    """Send wrong tokens until the input ends; print how many were sent and answered a second."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), over.set)
    unread = socket.create_server(("127.0.0.1", 0), backlog=SENDERS)
    port = unread.getsockname()[1] if name == "elsewhere" else urlsplit(url).port or 0

    async def connect(*, patient: bool) -> _Sender:
        begun = loop.create_connection(lambda: _Sender(patient=patient), "127.0.0.1", port)
        _, sender = await begun
        return sender

    async def open_new_ones() -> None:
        while not over.is_set():
            (await connect(patient=True)).transport.close()

    many = {"": 0, "patient": PATIENT, "new": 0}.get(name, SENDERS)
    senders = [await connect(patient=name == "patient") for _ in range(many)]
    print("begun", flush=True)
    started = time.perf_counter()
    if name == "new":
        await asyncio.gather(*(open_new_ones() for _ in range(CONNECTIONS)))
    elif name in {"elsewhere", "sent"}:
        for turn, sender in enumerate(itertools.cycle(senders)):
            if over.is_set():
                break
            sender.send(AT_ONCE)
            await asyncio.sleep(started + turn * AT_ONCE / A_SECOND - time.perf_counter())
    await over.wait()
    seconds = time.perf_counter() - started
    print(f"{_Sender.sent / seconds:.0f} sent, {_Sender.answered / seconds:.0f} answered a second")


if __name__ == "__main__":
    asyncio.run(_flood(*sys.argv[1:]))
