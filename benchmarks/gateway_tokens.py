"""What a token and a policy cost on the path of a message, and what wrong tokens cost everybody else.

With and without a token: two gateways, in turns. Wrong ones: a client with a right one calls while another process
floods the gateway with requests, once with wrong tokens and once with what needs none, as fast as it answers.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import aiohttp

from benchmarks.gateway import CALLS, CONNECTIONS, HEADERS, ROOT, ROUNDS, Load, compare, side
from benchmarks.table import Row, Size
from local_mcp_gateway.config import Settings
from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.gateway.clients import Admission, TokenRefused
from local_mcp_gateway.service.options import gateway_options
from local_mcp_gateway.store import ClientToken, Policy, add_token, new_token

POLICY = Policy(
    allowed=("echo", "git_*"),
    denied=("other/*", "rm*"),
    calls_per_minute=1_000_000,
    calls_at_once=1000,
)
"""Everything that is looked at for each call, and nothing that stops one."""


async def _give_token(folder: Path) -> str:
    token, text = new_token(ClientToken("bench", policy=POLICY))
    async with ConnectionPool.open(folder / "gateway.db") as database:
        await add_token(database, token)
    return text


def measure(size: Size) -> Iterable[Row]:
    """Compare a gateway whose client shows a token with one whose client shows none."""
    with ExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        url, _ = stack.enter_context(side("echo_server"))
        with side("gateway_process", folders[1], f"http:echo:{url}"):  # makes the database
            token = asyncio.run(_give_token(Path(folders[1])))
        without, with_token = (
            stack.enter_context(side("gateway_process", folder, f"http:echo:{url}"))
            for folder in folders
        )
        shown = {"token": {"Authorization": f"Bearer {token}"}}
        found = asyncio.run(compare({"without": without, "token": with_token}, size, shown=shown))
    (_, rate, cpu), (_, rate_token, cpu_token) = found["without"], found["token"]
    note = f"{rate:.0f}/s without, {rate_token:.0f}/s with token and policy"
    yield Row("calls/s at 32, with token / without", rate_token / rate, "×", None, 0.97, note)
    note = f"{cpu:.2f} ms without, {cpu_token:.2f} ms with"
    yield Row("CPU a call, with token / without", cpu_token / cpu, "×", 1.03, None, note)
    yield from _wrong_tokens(size)


PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
WRONG = {"Authorization": f"Bearer lmg_{'0' * 16}_{'A' * 43}"}
FLOODS = {"wrong tokens": ("/mcp", WRONG, 401), "other requests": ("/nothing", {}, 404)}
A_SECOND = 10_000


def _wrong_tokens(size: Size) -> Iterable[Row]:
    used_s = asyncio.run(_check_s())
    note = f"{used_s * 1e6:.1f} µs each; a request costs the rest"
    yield Row("10,000 wrong tokens a second, of a core", used_s * A_SECOND, "", 0.1, None, note)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url, _ = stack.enter_context(side("echo_server"))
        url, _ = stack.enter_context(side("gateway_process", folder, f"http:echo:{url}"))
        found = asyncio.run(_during_floods(url, size))
    (alone, _), (wrong, rate), (other, rate_other) = found.values()
    note = (
        f"{alone:.1f} ms alone, {wrong:.1f} ms beside {rate:.0f} answers to wrong tokens a second"
    )
    yield Row("p50 of a call, beside wrong tokens / alone", wrong / alone, "×", 1.1, None, note)
    note = f"{other:.1f} ms beside {rate_other:.0f} unknown addresses a second"
    yield Row("p50 of a call, beside wrong tokens / any", wrong / other, "×", note=note)


async def _check_s() -> float:
    """Return the seconds that the check of one wrong token takes."""
    admission = Admission(gateway_options(Settings()), lambda: None)
    token, _ = new_token(ClientToken("bench"))
    admission.replace([token])
    started = time.process_time()
    for _ in range(A_SECOND):
        with suppress(TokenRefused):
            admission.admit({"authorization": WRONG["Authorization"]})
    return (time.process_time() - started) / A_SECOND


async def _during_floods(url: str, size: Size) -> dict[str, tuple[float, float]]:
    """Return p50 in ms and the answers a second of the flood: alone, and in each flood."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("", *FLOODS)}
    for _ in range(ROUNDS[size]):
        for name, measured in found.items():
            command = [sys.executable, "-m", "benchmarks.gateway_tokens", url, name]
            async with aiohttp.ClientSession() as http:
                load = Load(url, http)
                await load.open()
                with subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                ) as flood:
                    assert flood.stdout is not None
                    flood.stdout.readline()  # it has begun
                    p50 = await load.p50_ms(CALLS[size])
                    said, _ = flood.communicate("")  # the end of its input ends it
            measured.append((p50, float(said)))
    return {
        name: (statistics.median(p50 for p50, _ in each), statistics.median(r for _, r in each))
        for name, each in found.items()
    }


async def _flood(url: str, name: str) -> None:
    """Send requests until the input ends, none for no name; print how many a second were answered."""
    path, shown, status = FLOODS.get(name, ("", {}, 0))
    url, over, answered = url.removesuffix("/mcp") + path, asyncio.Event(), 0
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), over.set)

    async def worker(http: aiohttp.ClientSession) -> None:
        nonlocal answered
        while not over.is_set():
            async with http.post(url, data=PING, headers={**HEADERS, **shown}) as reply:
                await reply.read()
                assert reply.status == status, reply.status
            answered += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        started = time.perf_counter()
        workers = [loop.create_task(worker(http)) for _ in range(CONNECTIONS if path else 0)]
        print("begun", flush=True)
        await over.wait()
        await asyncio.gather(*workers)
        print(answered / (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    asyncio.run(_flood(*sys.argv[1:]))
