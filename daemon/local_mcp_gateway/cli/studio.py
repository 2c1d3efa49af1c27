"""`open` and `db studio`: the pages of the gateway, or of any database, in a browser."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli import ui
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation


@click.command("open")
@click.option("--print", "print_only", is_flag=True, help="Print the address, open nothing.")
@ui.as_json_option
@click.pass_obj
def open_(invocation: Invocation, *, print_only: bool, as_json: bool) -> int:
    """Open the pages of the running gateway in a browser, or print their address.

    The address works once, for ten minutes. Where there is no browser, as over ssh, open it in one that
    reaches this machine's port.
    """
    from local_mcp_gateway.service.admin import NoDaemon, ask

    try:
        url = ask(invocation.database, "studio.open", {}, timeout_s=30)["url"]
    except NoDaemon:
        raise UsageProblem(
            f"No gateway is running on {invocation.database}.",
            hint="Start one with `serve`; `db studio` shows a database without one.",
        ) from None
    if as_json:
        ui.print_json({"url": url})
        return Exit.OK
    show(url, print_only=print_only)
    return Exit.OK


@click.command()
@click.option(
    "--database", type=click.Path(path_type=Path), help="Any SQLite file; else this database."
)
@click.option("--write", is_flag=True, help="Rows can be changed too.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port  [default: a free one]."
)
@click.option("--print", "print_only", is_flag=True, help="Print the address, open nothing.")
@click.pass_obj
def db_studio(
    invocation: Invocation, *, database: Path | None, write: bool, port: int, print_only: bool
) -> int:
    """Show a database in a browser: its rows, structure and migrations. Needs no gateway.

    Takes no lock, and only reads unless --write is given. The migrations of another database than the
    gateway's are shown if their folder is given with --migrations. Ctrl+C ends it.
    """
    import anyio  # --help does not pay for it

    from local_mcp_gateway.service import serve_database
    from local_mcp_gateway.service.http import bind

    path = (database or invocation.database).absolute()
    own = database is None and "database.path" not in invocation.options
    folder = invocation.migrations if own or "migrations.folder" in invocation.options else None

    def ready(url: str) -> None:
        show(url, print_only=print_only)
        ui.tell(
            f"{path} is open for {'reading and writing' if write else 'reading'}. Ctrl+C ends it.",
            err=True,
        )

    with bind("127.0.0.1", port) as listener:
        anyio.run(
            partial(
                serve_database,
                path,
                listener,
                migrations=folder,
                backups=invocation.settings.backup_folder if own else None,
                writable=write,
                emit=invocation.emitter(),
                ready=ready,
            )
        )
    return Exit.OK


@click.command()
@click.option("--around", metavar="TABLE", help="Only this table and those linked with it.")
@click.pass_obj
def diagram(invocation: Invocation, *, around: str | None) -> int:
    """Draw the tables and their foreign keys, and print the drawing: db diagram > schema.svg.

    A table is to the left of those that refer to it. A foot is many, a bar one, a circle none. Only reads.
    """
    from local_mcp_gateway.studio import draw_database

    click.echo(draw_database(invocation.database, around), nl=False)
    return Exit.OK


def show(url: str, *, print_only: bool) -> None:
    """Open an address in the browser of this desktop, if there is one, and print it either way."""
    opened = not print_only and has_desktop() and _open(url)
    click.echo(url)
    if not opened and not print_only and sys.stdout.isatty():
        ui.tell("Open this address in a browser; it works once, for ten minutes.", err=True)


def has_desktop() -> bool:
    """Tell whether a browser would come up where the person sits."""
    if os.environ.get("SSH_CONNECTION"):
        return False
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))


def _open(url: str) -> bool:
    import webbrowser

    return webbrowser.open(url)
