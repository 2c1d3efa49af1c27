"""`serve` and `reload`: the daemon, and how to make it look again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 picks one.  [default: 3001]")
@click.option("--dev", is_flag=True, help="Apply saved migrations, restart on changed code.")
@click.option(
    "--lock-timeout", type=click.FloatRange(min=0), metavar="S",
    help="Seconds to wait for another holder of the database.",
)  # fmt: skip
@click.option("--socket-fd", type=int, hidden=True, help="The dev supervisor's socket.")
@click.pass_obj
def serve(
    invocation: Invocation,
    *,
    host: str | None,
    port: int | None,
    dev: bool,
    lock_timeout: float | None,
    socket_fd: int | None,
) -> int:
    """Guard the database, then serve every profile until a signal.

    Clients connect to http://127.0.0.1:3001/mcp or /mcp/PROFILE. A start that is refused says why and
    exits with a code of its own; the database is then as it was.
    """
    from local_mcp_gateway.service.greeting import greet
    from local_mcp_gateway.service.run import Serving
    from local_mcp_gateway.service.run import serve as run_service

    given = {"gateway.host": host, "gateway.port": port}
    options = {key: value for key, value in given.items() if value is not None}
    invocation = replace(invocation, options={**invocation.options, **options})
    settings = invocation.settings
    serving = Serving(
        settings=settings,
        reread=lambda: replace(invocation).settings,
        lock_timeout_s=settings.guard.lock_timeout_s if lock_timeout is None else lock_timeout,
        dev=dev,
        socket_fd=socket_fd,
        greet=greet if dev else None,
    )
    return run_service(serving, invocation.emitter(default_level="info"))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def reload(invocation: Invocation, *, as_json: bool) -> int:
    """Make the running gateway re-read its configuration and apply pending migrations.

    Writers wait for a moment, no request is lost. A migration that is refused changes nothing.
    """
    from local_mcp_gateway.service.control import NoDaemon, ask

    try:
        done = ask(invocation.database, "reload", {}, timeout_s=3600)
    except NoDaemon:
        raise UsageProblem(
            f"No gateway is running on {invocation.database}.",
            hint="Start one with `serve`, or apply what is pending with `db migrate`.",
        ) from None
    if as_json:
        render.print_json(done)
        return Exit.OK
    for tag in done["applied"]:
        click.echo(f"applied  {tag}")
    for key in done["changed"]:
        later = "  (takes effect at the next start)" if key in done["needs_restart"] else ""
        click.echo(f"changed  {key}{later}")
    click.echo(f"Reloaded; writers waited {render.duration(done['paused_ms'])}.")
    return Exit.OK
