"""What a token and a policy cost on the path of a message: two gateways, with and without, in turns."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.gateway import compare, side
from benchmarks.table import Row, Size
from local_mcp_gateway.database import ConnectionPool
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
