"""Prepare a server's stored definition (variables, secrets, sandbox), and open the connection that it defines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.gateway.protocol import hops
from local_mcp_gateway.gateway.upstreams.connection import HttpRefusal, UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.process import child_environment
from local_mcp_gateway.gateway.upstreams.stdio import DualVersionStdioServer
from local_mcp_gateway.log import learn, secrets_in, secrets_in_url
from local_mcp_gateway.store import ServerKind, expand_variables, has_sealed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    import aiohttp

    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.gateway.upstreams.connection import Connection, Events
    from local_mcp_gateway.gateway.upstreams.process import OrphanReaper
    from local_mcp_gateway.store import ServerDefinition

SSE_S: Final = 10.0
"""How long a URL that takes no POST may take to turn out to be of the older transport."""

Unseal = Callable[["ServerDefinition"], "ServerDefinition"]
"""Returns a server with its values decrypted. Reads files and computes, so it is called in a thread."""


async def with_values(server: ServerDefinition, unseal: Unseal) -> ServerDefinition:
    """Return the server with its values decrypted and its variables expanded; the log hides them from now on.

    Raises UpstreamDisconnected if one cannot be.
    """
    server = await _decrypted(server, unseal)
    try:
        server, used = expand_variables(server, os.environ)
    except GatewayError as error:
        raise UpstreamDisconnected(as_reason(error), unsent=True) from error
    learn(_secrets_of(server, used))
    return server


async def _decrypted(server: ServerDefinition, unseal: Unseal) -> ServerDefinition:
    if not has_sealed(server):
        return server
    try:
        return await asyncio.to_thread(unseal, server)
    except GatewayError as error:
        raise UpstreamDisconnected(as_reason(error), unsent=True) from error


def as_reason(error: GatewayError) -> str:
    """Return the message and the hint as one clause."""
    said, hint = error.message.removesuffix("."), error.hint.removesuffix(".")
    return f"{said[0].lower()}{said[1:]}; {hint[0].lower()}{hint[1:]}"


def _secrets_of(server: ServerDefinition, variables: Collection[str]) -> list[str]:
    """Return the secret values that a server is given; a file or folder name is not a secret."""
    written = [*secrets_in("\n".join(server.args))]
    for url in filter(None, (server.url, server.proxy)):
        written += secrets_in_url(url)
    values = (*server.env.values(), *server.headers.values(), *variables, *written)
    return [value for value in values if not (Path(value).is_absolute() and Path(value).exists())]


def open_connection(
    server: ServerDefinition,
    events: Events,
    reaper: OrphanReaper,
    options: GatewayOptions,
    middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
) -> AbstractAsyncContextManager[Connection]:
    """Start a server with these values, or connect to its URL; `middlewares` authorize the requests to that."""
    limit = options.max_message_bytes
    if server.kind is not ServerKind.STDIO:
        return _open_url(server, events, limit, middlewares)
    server = replace(server, env={hops.VARIABLE: events.via(), **server.env})
    boxed = in_sandbox(server, options.private_files)
    return DualVersionStdioServer.open(boxed, events, reaper, max_message_bytes=limit)


@asynccontextmanager
async def _open_url(
    server: ServerDefinition,
    events: Events,
    limit: int,
    middlewares: Sequence[aiohttp.ClientMiddlewareType],
) -> AsyncIterator[Connection]:
    """Connect to a URL; one that takes no POST is tried as a server of the older HTTP+SSE transport.

    The connection has its own pool and cookies, as one client has.
    """
    # aiohttp is the most expensive import, and startup does not need it
    from local_mcp_gateway.gateway.upstreams.legacy_sse import SseConnection
    from local_mcp_gateway.gateway.upstreams.network import client_session
    from local_mcp_gateway.gateway.upstreams.streamable_http import HttpConnection

    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(client_session(server, middlewares))
        old = SseConnection.open(server, http, events, max_message_bytes=limit)
        if server.kind is ServerKind.SSE:
            yield await stack.enter_async_context(old)
            return
        new = HttpConnection.open(server, http, events, max_message_bytes=limit)
        try:
            connection: Connection = await stack.enter_async_context(new)
        except HttpRefusal as refused:
            wants_sign_in = refused.status == HTTPStatus.UNAUTHORIZED
            if not 400 <= refused.status < 500 or wants_sign_in:
                raise
            try:
                async with asyncio.timeout(SSE_S):
                    connection = await stack.enter_async_context(old)
            except (UpstreamDisconnected, TimeoutError):
                raise refused from None
            events.stderr_line("its URL speaks the older HTTP+SSE transport")
        yield connection


def in_sandbox(server: ServerDefinition, private_files: Collection[str]) -> ServerDefinition:
    """Return the server with a command that runs its own in its sandbox; the same one if it has none.

    Raises UpstreamDisconnected if there is no such command: the launcher would start anyway.
    """
    wanted = server.sandbox
    if wanted is None:
        return server
    from shutil import which  # most servers have no sandbox, and a start does not pay for it

    from local_mcp_gateway.gateway.upstreams.sandbox import PRIVATE, sandbox_command

    assert server.command is not None, "a sandbox is for a command"
    paths = child_environment(server.env).get("PATH")
    if "/" not in server.command and which(server.command, path=paths) is None:
        raise UpstreamDisconnected(f"{server.command!r} does not exist", unsent=True)
    home = Path.home()
    hidden = [*private_files, *(str(home / name) for name in PRIVATE)]
    command, *args = sandbox_command(
        server.command, server.args, hidden, wanted.write, network=wanted.network
    )
    return replace(server, command=command, args=tuple(args))


async def same_definition(new: ServerDefinition, old: ServerDefinition, unseal: Unseal) -> bool:
    """Return whether both are the same server: a re-encrypted value may still be the same value."""
    if new == old:
        return True
    if _plain(new) != _plain(old):
        return False
    try:
        opened = [await _decrypted(each, unseal) for each in (new, old)]
    except UpstreamDisconnected:
        return False
    first, second = (replace(each, trust_annotations=False) for each in opened)
    return first == second


def _plain(server: ServerDefinition) -> ServerDefinition:
    """Return a server without what is sealed, and without what concerns its clients alone."""
    return replace(server, env={}, headers={}, trust_annotations=False)
