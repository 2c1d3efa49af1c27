"""`stdio`: a bridge for clients that can only start a command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli.streams import end_when_unread
from local_mcp_gateway.errors import UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.command
@click.option("--profile", metavar="NAME", help="Profile to show; the default one if not given.")
@click.option("--url", help="Where the gateway listens, if not where its settings say.")
@click.pass_obj
def stdio(invocation: Invocation, profile: str | None, url: str | None) -> None:
    """Bridge a profile of the running gateway to a client that speaks stdio only."""
    from local_mcp_gateway.gateway.faces.bridge import Bridge

    gateway = invocation.settings.gateway
    host = f"[{gateway.host}]" if ":" in gateway.host else gateway.host
    base = (url or f"http://{host}:{gateway.port}").rstrip("/").removesuffix("/mcp")
    path = "/mcp" if profile is None else f"/mcp/{profile}"
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        bridge = Bridge(base + path, sys.stdout)
    except ValueError as error:
        raise UsageProblem(
            f"--url {url} is no address: {error}.", hint="Write http://HOST:PORT."
        ) from None
    end_when_unread(sys.stdout)
    bridge.run(sys.stdin.buffer)
    if bridge.refused is not None:
        raise UsageProblem(f"The gateway refused the client: {bridge.refused}.")
