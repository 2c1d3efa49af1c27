"""`db backup copy`, `copies` and `key`: backups off this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import Invocation, stop_on_signals
from local_mcp_gateway.cli.ui import progress_bar
from local_mcp_gateway.database import Run
from local_mcp_gateway.errors import BackupDamaged, Exit

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Copy, CopyStore


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete.backups)
@ui.as_json_option
@click.pass_obj
def copy(invocation: Invocation, *, names: tuple[str, ...], as_json: bool) -> int:
    """Copy the backups that are not at `backup.copy_to` yet, or these NAMEs; a running gateway does it too.

    Each is encrypted, sent, and read back there before it counts. Copies that neither retention nor this
    machine keeps are then removed.
    """
    from local_mcp_gateway.service import copy_now

    def show(made: Copy) -> None:
        if not as_json:
            ui.tell(f"{made.backup.name}  {formats.size(made.bytes)}", mark="copied  ")

    with stop_on_signals() as stop, progress_bar() as progress:
        done = copy_now(
            invocation.settings, names, on_copy=show, run=Run(stop=stop, progress=progress)
        )
    url = invocation.settings.backup.copy_to
    if as_json:
        ui.print_json(
            {
                "url": url,
                "copied": [made.as_json() for made in done.copies],
                "removed": list(done.removed),
                "kept": done.kept,
            }
        )
        return Exit.OK
    for name in done.removed:
        ui.tell(f"removed {name}")
    ui.tell(f"{done.kept} {'copy' if done.kept == 1 else 'copies'} at {url}.")
    return Exit.OK


@click.command()
@click.option(
    "--from", "url", metavar="URL", default="", help="Another place than `backup.copy_to`."
)
@click.option("--check", is_flag=True, help="Read each copy in full; exit 6 if one is damaged.")
@ui.as_json_option
@click.pass_obj
def copies(invocation: Invocation, *, url: str, check: bool, as_json: bool) -> int:
    """List the copies off this machine, newest first, and name what cannot be used there.

    No key is needed, not for --check either: it compares what is there with what was sent.
    """
    from local_mcp_gateway.service import store_of

    store = store_of(invocation.settings, url)
    with stop_on_signals() as stop, progress_bar() as progress:
        run = Run(stop=stop, progress=progress)
        catalog = store.read(run=run)
        problems = {
            made.object_name: _problem_of(store, made, run) for made in catalog.copies if check
        }
    if as_json:
        ui.print_json(
            {
                "url": store.url,
                "copies": [
                    {**made.as_json(), "problem": problems.get(made.object_name)}
                    for made in catalog.copies
                ],
                "unusable": [
                    {"name": item.path.stem, "reason": item.reason} for item in catalog.unusable
                ],
            }
        )
    elif catalog.copies:
        ui.print_table(
            ("NAME", "SIZE", "MADE", "COPIED", "FROM", *(("STATE",) if check else ())),
            [
                (
                    made.backup.name,
                    formats.size(made.bytes),
                    made.backup.created_at,
                    made.copied_at,
                    made.host,
                    *((("damaged" if problems[made.object_name] else "ok"),) if check else ()),
                )
                for made in catalog.copies
            ],
        )
    else:
        ui.tell(f"No copies at {store.url}.")
    for item in catalog.unusable:
        ui.tell(f"unusable {item.path.stem}: {item.reason}", fg="yellow", err=True)
    return Exit.DAMAGED if any(problems.values()) or (check and catalog.unusable) else Exit.OK


def _problem_of(store: CopyStore, copy: Copy, run: Run) -> str | None:
    try:
        store.check(copy, run=run)
    except BackupDamaged as error:
        return error.message
    return None


@click.command()
@ui.as_json_option
@click.pass_obj
def key(invocation: Invocation, *, as_json: bool) -> int:
    """Make the age key that opens copies, if there is none, and show its public half.

    The public half goes into the configuration, and encrypts. The file is needed for a restore only: keep a
    copy where a lost machine does not take it along. Without it no copy opens.
    """
    from local_mcp_gateway.service import make_key

    public, is_new = make_key(invocation.settings)
    file = invocation.settings.copy_key_file
    if as_json:
        ui.print_json({"recipient": public, "file": str(file), "created": is_new})
        return Exit.OK
    ui.tell(f"{'Made' if is_new else 'There is'} {file}. In the configuration:")
    click.echo(f'\n[backup]\ncopy_recipients = ["{public}"]\n')
    ui.tell("Keep a copy of the file off this machine: without it no copy opens.")
    return Exit.OK
