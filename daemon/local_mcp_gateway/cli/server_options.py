"""The options that say how a server is shared, reached, restricted and signed in to: of `server add` and `edit`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import click

from local_mcp_gateway.cli.context import with_options
from local_mcp_gateway.cli.login import client_of
from local_mcp_gateway.errors import UsageProblem

sharing_options = with_options(
    click.option(
        "--share",
        type=click.Choice(["auto", "never", "always"]),
        help="Whether clients share one connection: auto [default] separates them once the server asks"
        " a client something or opens a session.",
    ),
    click.option(
        "--max-clients",
        type=click.IntRange(min=1),
        help="How many clients may have a connection of their own at once [default: 32].",
    ),
    click.option(
        "--idle-stop",
        "idle_stop_s",
        type=click.IntRange(min=0),
        metavar="SECONDS",
        help="Stop it after so long without a call; 0 never [default: upstream.idle_stop_s].",
    ),
)
"""The options that say how clients share a server."""


network_options = with_options(
    click.option(
        "--timeout",
        "timeout_s",
        type=click.IntRange(min=1),
        metavar="SECONDS",
        help="How long a call may take [default: upstream.call_timeout_s].",
    ),
    click.option(
        "--proxy",
        metavar="URL",
        help="HTTP proxy to its URL, or `none` [default: HTTP_PROXY, HTTPS_PROXY, NO_PROXY].",
    ),
    click.option(
        "--ca",
        type=click.Path(exists=True, path_type=Path),
        help="File or folder of certificates to trust, beside the system's.",
    ),
    click.option(
        "--insecure/--secure",
        default=None,
        help="Accept any certificate: anyone on the network path can read and change everything.",
    ),
    click.option(
        "--header-from-client",
        "client_headers",
        multiple=True,
        metavar="NAME",
        help="Header that each call copies from the client's request. Give all of them again.",
    ),
    click.option(
        "--trust-annotations/--distrust-annotations",
        "trust_annotations",
        default=None,
        help="Believe its tools when they say that they change nothing: read-only tokens and profiles"
        " then show them.",
    ),
)
"""The options that say how a server is reached."""


sandbox_options = with_options(
    click.option(
        "--sandbox/--no-sandbox",
        default=None,
        help="Let the command read most files, write none and reach no other program's socket.",
    ),
    click.option(
        "--writable",
        multiple=True,
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        help="Folder that it may write in its sandbox, such as ~/.npm for npx.",
    ),
    click.option(
        "--no-network", is_flag=True, help="No network in its sandbox, not even this machine's."
    ),
)
"""The options that say what the command may do."""


def sandbox_of(options: dict[str, Any]) -> dict[str, Any] | Literal[False] | None:
    """Take the options of `sandbox_options` out of all; None without any, False for no sandbox."""
    wanted = options.pop("sandbox")
    writable, no_network = options.pop("writable"), options.pop("no_network")
    if not wanted:
        if writable or no_network:
            raise UsageProblem(
                "--writable and --no-network belong to a sandbox.", hint="Add --sandbox."
            )
        return None if wanted is None else False
    from local_mcp_gateway.gateway import NoSandbox, sandbox_gaps

    with suppress(NoSandbox):  # that is refused where the server is stored
        for gap in sandbox_gaps():
            click.secho(f"note: in the sandbox {gap}.", fg="yellow", err=True)
    return {"write": [str(path.absolute()) for path in writable], "network": not no_network}


client_options = with_options(
    click.option(
        "--client-id",
        metavar="ID",
        help="Sign in as this client, which you have registered there [default: it registers itself].",
    ),
    click.option(
        "--client-secret",
        is_flag=True,
        help="The client has a secret: asked for, or read from stdin or LMG_CLIENT_SECRET. Sealed.",
    ),
    click.option(
        "--client-credentials",
        is_flag=True,
        help="Id and secret are enough; nobody signs in (a machine's client).",
    ),
)
"""The options that say as whom the gateway signs in."""


def client_of_options(options: dict[str, Any]) -> dict[str, Any] | None:
    """Take the options of `client_options` out of all, and return the client that they give."""
    given, secret = options.pop("client_id"), options.pop("client_secret")
    return client_of(given, secret=secret, credentials=options.pop("client_credentials"))


def network_of(options: dict[str, Any]) -> dict[str, Any]:
    """Return what the options of `network_options` say; warn of what they give up."""
    if options["insecure"]:
        warning = "The certificate of this server is not checked: its answers can be forged."
        click.secho(f"warning: {warning}", fg="red", bold=True, err=True)
    ca = options["ca"]
    return {
        **options,
        "ca": str(ca.absolute()) if ca else None,
        "client_headers": list(options["client_headers"]) or None,
    }
