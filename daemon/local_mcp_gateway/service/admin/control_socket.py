"""The control socket: the Unix socket over which commands reach the daemon that holds the database.

The socket has mode 0600 and lies in a 0700 folder: whoever can connect could also open the database.
A connection carries one request, the JSON line `{"verb", "arguments"}`, and one response, the JSON line
`{"result"}` or `{"error"}`: the same object that `--json` prints.

The socket file may outlive a killed daemon, so only an accepted connection proves that one runs. Only
the holder of the database's lock replaces the file.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import DiskProblem, Exit, GatewayError, LockHeld
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.service.runtime_paths import (
    prepare_socket_path,
    remove_socket,
    socket_address,
    socket_path,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from local_mcp_gateway.log import Emit

    Answer = Callable[[str, dict[str, Any]], Awaitable[object]]

MOST_BYTES = 64 * 1024 * 1024


class NoDaemon(Exception):
    """No daemon answers at the control socket. Not an error: the command then runs offline."""


def ask(database: Path, verb: str, arguments: Mapping[str, object], *, timeout_s: float) -> Any:
    """Send a request to the daemon. Raises NoDaemon if there is none, or the GatewayError it reports."""
    path = socket_path(database)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            with socket_address(path) as address:
                connection.connect(address)
            question = json.dumps({"verb": verb, "arguments": dict(arguments)})
            connection.sendall(question.encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoDaemon from None
        except TimeoutError:
            raise LockHeld(
                f"The gateway did not answer `{verb}` within {timeout_s:.0f} s.",
                hint="See `logs`; it may be migrating or its machine may be busy.",
            ) from None
        except (ConnectionResetError, BrokenPipeError):
            line = b""
    if not line:
        raise LockHeld("The gateway ended before it answered.", hint="Try again in a moment.")
    reply: dict[str, Any] = parse_json(line)
    if "error" in reply:
        raise relayed(reply["error"])
    return reply["result"]


def relayed(error: Mapping[str, Any]) -> GatewayError:
    """Return the error that the daemon reported, with its code and exit code."""
    kind = type(
        "Relayed", (GatewayError,), {"code": error["code"], "exit_code": Exit(error["exit_code"])}
    )
    problem: GatewayError = kind(error["message"], hint=error["hint"])
    return problem


@asynccontextmanager
async def answering(database: Path, answer: Answer, emit: Emit) -> AsyncIterator[None]:
    """Answer requests while the block runs; the caller holds the database's lock.

    On exit, cancel requests in progress and wait for them: afterwards nothing uses the database.
    """
    import asyncio  # the client side of this module needs no event loop

    import anyio

    path = socket_path(database)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = prepare_socket_path(database)
        with socket_address(path) as address:
            listener.bind(address)
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise DiskProblem(
            f"The control socket {path} cannot be created: {error.strerror}."
        ) from error

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, ValueError):
                line = await reader.readline()
                if line:
                    writer.write(json.dumps(await _reply(line, answer, emit)).encode() + b"\n")
                    await writer.drain()
        finally:
            writer.close()

    async with anyio.create_task_group() as tasks:
        # asyncio would cancel its own task without waiting for the thread that works for it.
        server = await asyncio.start_unix_server(
            lambda reader, writer: tasks.start_soon(serve, reader, writer),
            sock=listener,
            limit=MOST_BYTES,
        )
        emit("control.listening", path=str(path))
        try:
            yield
        finally:
            server.close()
            remove_socket(database, path)
            tasks.cancel_scope.cancel()


async def _reply(line: bytes, answer: Answer, emit: Emit) -> dict[str, object]:
    start = time.perf_counter()
    verb = "?"
    try:
        question = parse_json(line)
        verb, arguments = str(question["verb"]), dict(question["arguments"])
        reply: dict[str, object] = {"result": await answer(verb, arguments)}
    except GatewayError as error:
        reply = {"error": error.as_json()}
    except Exception as error:  # noqa: BLE001  a failing command never ends the daemon
        from local_mcp_gateway.service.exit_status import reported_error, root_cause

        reply = {"error": reported_error(root_cause(error)).as_json()}
    duration = round((time.perf_counter() - start) * 1000, 3)
    emit(
        "control.answered",
        verb=verb,
        duration_ms=duration,
        outcome="error" if "error" in reply else "ok",
    )
    return reply
