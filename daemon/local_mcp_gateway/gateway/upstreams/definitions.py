"""Prepare a server's stored definition for use: fill in variables, decrypt secrets, set up its sandbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.gateway.upstreams.connection import UpstreamDisconnected
from local_mcp_gateway.gateway.upstreams.process import child_environment
from local_mcp_gateway.log import learn, secrets_in, secrets_in_url
from local_mcp_gateway.store import expand_variables, has_sealed

if TYPE_CHECKING:
    from local_mcp_gateway.store import ServerDefinition

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
