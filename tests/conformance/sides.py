"""The fixture server directly, and behind a gateway over HTTP and over stdio."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.conformance.suite import REVISIONS, Check, Checks, differences, passed, run
from tests.gateway.support import REPOSITORY, gateway_of, http

DIRECT: Final = "direct"
OVER_HTTP: Final = "over HTTP"
OVER_STDIO: Final = "over stdio"
SIDES: Final = (DIRECT, OVER_HTTP, OVER_STDIO)
MOST_REPEATED: Final = 2
"""Checks have deadlines of their own: so many scenarios may end otherwise once, and are run again, once."""
AT: Final = ("--spec-version",)
EITHER: Final = (
    "it looks at responses that are streams, and ours is JSON if nothing precedes the result: a server"
    ' "MUST either return Content-Type: text/event-stream […] or Content-Type: application/json"'
)
RESUMED: Final = (
    "it looks at a stream that the server closes before its response: the gateway is the client that"
    " \"SHOULD then 'poll' the SSE stream by attempting to reconnect\", and its client's stays open"
)
EXPECTED: Final = {
    "sep-2243-server-accepts-whitespace-header-value": (
        '"A field value does not include leading or trailing whitespace" (RFC 9110, 5.5): the gateway'
        " trims it, the server's own parser does not"
    ),
    "server-sse-streams-functional": EITHER,
    "server-sse-disconnect-resume": RESUMED,
    "server-sse-priming-event": RESUMED,
    "server-sse-retry-field": RESUMED,
}
"""Checks that end otherwise through the gateway, and the sentence of the specification that allows it.

Those of SSE are conditional: the suite skips them where what they look at does not occur.
"""
AT_FIRST: Final = {
    (OVER_STDIO, "tools-call-with-logging"): (
        "several clients have used the child, and its first log line may be for any of them: the gateway"
        ' passes it to none and serves each apart from then on, as "Implementations SHOULD […] Control'
        ' log access"'
    ),
}
"""Checks that end otherwise on a side when they first run, and the sentence of the specification that allows it.

Run again, they have to end as they do directly.
"""
MODULE: Final = ("-m", "tests.conformance.servers.everything")
EVERYTHING: Final = ServerDefinition(
    "everything",
    ServerKind.STDIO,
    command=sys.executable,
    args=MODULE,
    cwd=str(REPOSITORY),
    env={"PYTHONPATH": os.pathsep.join(sys.path)},
)


@asynccontextmanager
async def over_http() -> AsyncIterator[str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *MODULE,
        "--http",
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # it warns of what the suite does on purpose
    )
    try:
        assert child.stdout is not None
        yield (await child.stdout.readline()).decode().strip()
    finally:
        child.kill()
        await child.wait()


@asynccontextmanager
async def sides(tmp_path: Path) -> AsyncIterator[Mapping[str, str]]:
    """Yield the URL of each side. No two share a server: one run may not change another's lists."""
    async with AsyncExitStack() as stack:
        urls = {DIRECT: await stack.enter_async_context(over_http())}
        behind = http("everything", await stack.enter_async_context(over_http()))
        for side, server in zip(SIDES[1:], (behind, EVERYTHING), strict=True):
            folder = tmp_path / side.replace(" ", "-")
            folder.mkdir()
            running = await stack.enter_async_context(gateway_of(folder, server))
            urls[side] = running.url
            await running.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        yield urls


@dataclass(frozen=True, slots=True)
class Comparison:
    """The checks of each side, what ends otherwise through the gateway, and what did so once without a reason."""

    found: dict[str, Checks]
    differing: list[str]
    repeated: list[str]


async def compare(suite: tuple[str, ...], urls: Mapping[str, str], revision: str) -> Comparison:
    """Run a revision on all sides; what ends otherwise there is run again, if it is not too much."""

    async def one(side: str, *chosen: str) -> Checks:
        with tempfile.TemporaryDirectory() as folder:
            return await run(suite, urls[side], Path(folder), *chosen)

    every = await asyncio.gather(*(one(side, *REVISIONS[revision]) for side in urls))
    found = dict(zip(urls, every, strict=True))
    scenarios = {check.scenario for side in urls for check in unexpected(found, side)}
    repeated = sentences(revision, found, AT_FIRST)
    if 0 < len(scenarios) <= MOST_REPEATED:
        for scenario in sorted(scenarios):
            for side in urls:
                found[side].update(await one(side, "--scenario", scenario, *AT, revision))
    return Comparison(found, sentences(revision, found), repeated)


def sentences(
    revision: str, found: Mapping[str, Checks], known: Container[tuple[str, str]] = ()
) -> list[str]:
    """Return a sentence for each check that ends otherwise than directly and should not.

    Those that are `known`, by side and name, are left out.
    """
    return [
        f"{revision} {side}: {check.scenario}, {check.name}: {direct} directly, {through} there"
        for side in found
        for check, (direct, through) in unexpected(found, side).items()
        if (side, check.name) not in known
    ]


def unexpected(found: Mapping[str, Checks], side: str) -> dict[Check, tuple[str, str]]:
    """Return what ends otherwise on this side, without what is explained."""
    differing = differences(found[DIRECT], found[side])
    return {check: pair for check, pair in differing.items() if check.name not in EXPECTED}


def row(revision: str, found: Mapping[str, Checks]) -> str:
    """Return the line of the table in docs/gateway.md: how many checks pass on each side."""
    return f"| {revision} | {' | '.join(str(passed(checks)) for checks in found.values())} |"
