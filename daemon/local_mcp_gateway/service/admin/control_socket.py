"""The control socket: how a command reaches the daemon that holds the database.

A unix socket (0600, see `places`; in a 0700 folder: who can connect could open the database
just as well). One connection is one question: a JSON line `{"verb", "arguments"}`, answered by a JSON
line `{"result"}` or `{"error"}`, the same object that `--json` prints.

The socket may outlive a killed daemon: its file says nothing, only a connection that is accepted does.
The lock's holder is the only one to replace it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import DiskProblem, Exit, GatewayError, LockHeld
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.service.runtime_paths import make_socket_folder, remove_socket, socket_path

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from local_mcp_gateway.log import Emit

    Answer = Callable[[str, dict[str, Any]], Awaitable[object]]

MOST_BYTES = 64 * 1024 * 1024
LONGEST_ADDRESS = 100
"""A socket's path is limited to 107 bytes; longer ones go through the folder's descriptor."""


class NoDaemon(Exception):
    """Nobody answers at the control socket: no error, the command then works by itself."""


def ask(database: Path, verb: str, arguments: Mapping[str, object], *, timeout_s: float) -> Any:
    """Ask the daemon; raises NoDaemon when there is none, and the daemon's own GatewayError."""
    path = socket_path(database)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            with _address(path) as address:
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
    """Return the error that the daemon described, with its own code and exit code."""
    kind = type(
        "Relayed", (GatewayError,), {"code": error["code"], "exit_code": Exit(error["exit_code"])}
    )
    told: GatewayError = kind(error["message"], hint=error["hint"])
    return told


@asynccontextmanager
async def answering(database: Path, answer: Answer, emit: Emit) -> AsyncIterator[None]:
    """Answer commands inside the block; the caller holds the database's lock.

    At its end, what is still being done is cancelled and waited for: nothing uses the database after it.
    """
    import asyncio  # the client's side of this module runs without a loop

    import anyio

    path = socket_path(database)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = make_socket_folder(database)
        with _address(path) as address:
            listener.bind(address)
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise DiskProblem(f"The control socket {path} cannot be made: {error.strerror}.") from error

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
        # A task of asyncio's own would be cancelled without waiting for the thread that works for it.
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
    except Exception as error:  # noqa: BLE001  a bad command never ends the daemon
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


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give the path in a form that fits into a socket address, whatever its length."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
