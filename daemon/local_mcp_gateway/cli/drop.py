"""`db drop`: take the newest migration back, to fix the schema and generate it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import render
from local_mcp_gateway.errors import Exit

if TYPE_CHECKING:
    from local_mcp_gateway.cli.context import Invocation

REWIND_S = 300.0
"""How long the gateway may take to take a migration back: a large database may have to be restored."""


@click.command()
@click.argument("tag", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def drop(invocation: Invocation, *, tag: str | None, yes: bool, as_json: bool) -> int:
    """Take back the newest migration: files, snapshot and journal entry.

    Refused when the database at hand has applied it (exit 8); where `serve --dev` runs on it, the
    gateway takes it back in the database first.
    """
    from local_mcp_gateway.cli.confirm import confirm_by_name  # noqa: PLC0415  --help does not pay
    from local_mcp_gateway.migrate import drop as dropping  # noqa: PLC0415
    from local_mcp_gateway.migrate.folder import read_folder  # noqa: PLC0415

    folder = read_folder(invocation.migrations)
    newest = dropping.newest(folder, tag)
    applied = dropping.has_applied(invocation.database, newest)
    in_dev = _watched_by_dev(invocation)
    if applied and not in_dev:
        raise dropping.applied_here(invocation.database, newest.tag)
    lost = [f"{newest.path} will be deleted."]
    if applied:
        lost.insert(0, f"{newest.tag} is applied: {invocation.database} goes back to before it.")
    confirm_by_name(newest.tag, lost, yes=yes)
    if in_dev:
        done = _ask(invocation, "dev.drop", tag=newest.tag)
    else:
        files = dropping.drop_migration(folder, newest).files
        done = {
            "tag": newest.tag,
            "files": [str(file) for file in files],
            "rewound_by": None,
            "lost": [],
        }
    _show(done, as_json=as_json)
    return Exit.OK


def _watched_by_dev(invocation: Invocation) -> bool:
    """Tell whether a gateway in dev mode serves this database from this folder."""
    from local_mcp_gateway.service.admin.control import NoDaemon  # noqa: PLC0415

    try:
        watched = _ask(invocation, "dev.watched")
    except NoDaemon:
        return False
    return bool(watched == str(invocation.migrations.resolve()))


def _ask(invocation: Invocation, verb: str, **arguments: str) -> Any:
    from local_mcp_gateway.service.admin.control import ask  # noqa: PLC0415  --help does not pay for it

    return ask(invocation.database, verb, arguments, timeout_s=REWIND_S)


def _show(done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.print_json(done)
        return
    if done["rewound_by"]:
        click.echo(f"Taken back in the database, by {done['rewound_by']}.")
    if done["lost"]:
        click.secho(f"Lost: {'; '.join(done['lost'])}.", fg="yellow")
    names = ", ".join(file.rpartition("/")[2] for file in done["files"])
    click.echo(f"Dropped {done['tag']}: {names}.")
