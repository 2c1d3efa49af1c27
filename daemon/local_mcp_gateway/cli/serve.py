"""`serve`, `reload` and `stdio`: run the daemon, reload it, and bridge a client to it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import Invocation, given_globally
from local_mcp_gateway.cli.streams import end_when_unread, write_as_it_is
from local_mcp_gateway.cli.token_file import TOKEN_VARIABLE, given_token
from local_mcp_gateway.config import Settings, config_files
from local_mcp_gateway.errors import Exit, GatewayError, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.log import Emit

_TYPED = click.core.ParameterSource.COMMANDLINE


@click.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 picks one.  [default: 3001]")
@click.option("--dev", is_flag=True, help="Apply saved migrations, restart on changed code.")
@click.option(
    "--lock-timeout", type=click.FloatRange(min=0), metavar="S",
    help="Seconds to wait for the lock of the database.",
)  # fmt: skip
@click.option(
    "--auto-generate", is_flag=True, help="In dev: write the migration of a changed schema."
)
@click.option(
    "--fresh", is_flag=True,
    help="Start with a new database even if the old one is missing or empty.",
)  # fmt: skip
@click.option("--socket-fd", type=int, hidden=True, help="The dev supervisor's socket.")
@click.option("--supervisor", type=int, hidden=True, help="The dev supervisor's process.")
@click.option("--again", is_flag=True, hidden=True, help="This worker replaces another one.")
@click.pass_obj
def serve(
    invocation: Invocation,
    *,
    host: str | None,
    port: int | None,
    dev: bool,
    lock_timeout: float | None,
    auto_generate: bool,
    fresh: bool,
    socket_fd: int | None,
    supervisor: int | None,
    again: bool,
) -> int:
    """Guard the database, then serve every profile until a signal.

    Clients connect to http://127.0.0.1:3001/mcp or /mcp/PROFILE. A refused start says why and exits with
    its own exit code; the database is unchanged.
    """
    given = {
        "gateway.host": host,
        "gateway.port": port,
        "dev.auto_generate": auto_generate or None,
    }
    options = {key: value for key, value in given.items() if value is not None}
    global_options = given_globally(invocation)
    invocation = replace(invocation, options={**invocation.options, **options}, dev=dev)
    settings = invocation.settings
    emit = invocation.emitter(default_level="info")
    if dev and settings.dev.reload and socket_fd is None:
        code = _supervised(global_options, settings, emit)
        if code is not None:
            return code
    from local_mcp_gateway.service import ServeOptions
    from local_mcp_gateway.service import serve as run_service

    if supervisor is not None:
        from local_mcp_gateway.service.dev import end_with

        end_with(supervisor)
    greets = not again and (dev or sys.stdout.isatty())
    serving = ServeOptions(
        settings=settings,
        reread=lambda: replace(invocation).settings,
        lock_timeout_s=settings.guard.lock_timeout_s if lock_timeout is None else lock_timeout,
        dev=dev,
        fresh=fresh,
        socket_fd=socket_fd,
        supervisor=supervisor,
        global_options=global_options,
        config_files=tuple(file.absolute() for file in config_files(invocation.config_file)),
        greet=_greet if greets else None,
    )
    code = run_service(serving, emit)
    if code == Exit.REFUSED and socket_fd is None:
        from local_mcp_gateway.cli.original import offered

        if offered(invocation):
            return run_service(serving, emit)
    return code


def _greet(url: str, profiles: tuple[str, ...]) -> None:
    from local_mcp_gateway.service.admin import greet

    greet(url, profiles)


def _supervised(global_options: tuple[str, ...], settings: Settings, emit: Emit) -> int | None:
    """Run workers on a socket that outlives them; None if this process has to serve itself."""
    from local_mcp_gateway.service.admin import has_tokens
    from local_mcp_gateway.service.dev import Supervisor
    from local_mcp_gateway.service.http import bind, inherited

    try:
        gateway, known = settings.gateway, partial(has_tokens, settings.database_path)
        listener = inherited() or bind(gateway.host, gateway.port, has_tokens=known)
    except GatewayError:
        return None  # reported by the start, which knows who holds the lock
    with listener:
        arguments = ("serve", *_options_given(click.get_current_context()))
        auto_generate = settings.dev.auto_generate
        return Supervisor(
            global_options, arguments, listener, emit, auto_generate=auto_generate
        ).run()


def _options_given(context: click.Context) -> Iterator[str]:
    """Yield the options that this command was given, as another process takes them."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if not parameter.expose_value or context.get_parameter_source(name) is not _TYPED:
            continue
        yield parameter.opts[0]
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            yield str(context.params[name])


@click.command()
@ui.as_json_option
@click.pass_obj
def reload(invocation: Invocation, *, as_json: bool) -> int:
    """Make the running gateway re-read its configuration and apply pending migrations.

    Writers wait for a moment, no request is lost. A migration that is refused changes nothing.
    """
    from local_mcp_gateway.service.admin import NoDaemon, ask

    try:
        done = ask(invocation.database, "reload", {}, timeout_s=3600)
    except NoDaemon:
        raise UsageProblem(
            f"No gateway is running on {invocation.database}.",
            hint="Start one with `serve`, or apply what is pending with `db migrate`.",
        ) from None
    if as_json:
        ui.print_json(done)
        return Exit.OK
    for tag in done["applied"]:
        ui.tell(tag, mark="applied  ")
    for key in done["changed"]:
        later = "  (takes effect at the next start)" if key in done["needs_restart"] else ""
        ui.tell(f"{key}{later}", mark="changed  ")
    ui.tell(f"Reloaded; writers waited {formats.duration(done['paused_ms'])}.")
    return Exit.OK


@click.command
@click.option(
    "--profile",
    metavar="NAME",
    shell_complete=complete.profiles,
    help="Profile to show; the default one if not given.",
)
@click.option("--url", help="Where the gateway listens  [default: from the settings].")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help=f"File with the token of this client  [default: the variable {TOKEN_VARIABLE}].",
)
@click.pass_obj
def stdio(
    invocation: Invocation, profile: str | None, url: str | None, token_file: Path | None
) -> None:
    """Bridge a profile of the running gateway to a client that only speaks stdio."""
    from local_mcp_gateway.gateway import Bridge
    from local_mcp_gateway.service.admin import OwnAddress

    settings, files = invocation.settings, invocation.settings.tls_files
    # By its address: the certificate is known, whatever its names are and wherever those lead.
    own = OwnAddress(settings.gateway.host, settings.gateway.port, None if files is None else ())
    certificate = None
    if files is not None and (url is None or OwnAddress.of(settings).leads_here(url)):
        url, certificate = None, files[0]
    base = (url or own.url).rstrip("/").removesuffix("/mcp")
    path = "/mcp" if profile is None else f"/mcp/{profile}"
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    write_as_it_is(sys.stdout)
    try:
        token, say = given_token(token_file), partial(click.echo, err=True)
        bridge = Bridge(base + path, sys.stdout, token, say, certificate)
    except ValueError as error:
        raise UsageProblem(
            f"--url {url} is not a valid address: {error}.",
            hint="Write http://HOST:PORT, or https://…",
        ) from None
    end_when_unread(sys.stdout)
    bridge.run(sys.stdin.buffer)
    if bridge.refused is not None:
        raise UsageProblem(f"The gateway refused the client: {bridge.refused}.")
