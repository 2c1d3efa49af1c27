"""A gateway alone, without guard and service: `FOLDER KIND:NAME:URL-OR-COMMAND…`."""

from __future__ import annotations

import asyncio
import shlex
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import uvicorn

from local_mcp_gateway.config import Settings
from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.gateway.gateway import Gateway
from local_mcp_gateway.service.http.listening_socket import BACKLOG, bind
from local_mcp_gateway.service.http.server import KEEP_ALIVE_S, CoalescingProtocol
from local_mcp_gateway.service.options import gateway_options
from local_mcp_gateway.service.process import collect_rarely, event_loop
from local_mcp_gateway.store import queries
from local_mcp_gateway.store.model import (
    Member,
    ProfileDefinition,
    ServerDefinition,
    ServerKind,
)

MIGRATIONS = Path(__file__).parents[1] / "migrations"


def definition(text: str) -> ServerDefinition:
    kind, name, rest = text.split(":", 2)
    if kind == "stdio":
        command, *args = shlex.split(rest)
        return ServerDefinition(name, ServerKind.STDIO, command=command, args=tuple(args))
    return ServerDefinition(name, ServerKind(kind), url=rest)


async def main(folder: Path, servers: list[ServerDefinition]) -> None:
    path = folder / "gateway.db"
    fresh = not path.exists()
    if fresh:
        with closing(sqlite3.connect(path)) as connection:
            for file in sorted(MIGRATIONS.glob("*.sql")):
                if not file.name.endswith(".down.sql"):
                    connection.executescript(file.read_text())
    async with ConnectionPool.open(path) as database:
        if fresh:
            for server in servers:
                await queries.add_server(database, server)
            members = tuple(Member(server.name) for server in servers)
            await queries.add_profile(database, ProfileDefinition("default", members=members))
        async with Gateway.open(database, gateway_options(Settings())) as gateway:
            listening = bind("127.0.0.1", 0)
            print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
            config = uvicorn.Config(  # as `serve` has it
                gateway.app,
                http=CoalescingProtocol,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                log_level="warning",
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
            )
            collect_rarely()
            await uvicorn.Server(config).serve([listening])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(main(Path(sys.argv[1]), [definition(text) for text in sys.argv[2:]]))
