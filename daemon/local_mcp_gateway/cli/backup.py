"""`db backup`: create, list, verify and prune backups, also while a gateway runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import Invocation, guard_context, stop_on_signals
from local_mcp_gateway.cli.lazy_group import LazyGroup, Target
from local_mcp_gateway.database import Run
from local_mcp_gateway.errors import Exit, GatewayError, Interrupted, NotConfirmed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from local_mcp_gateway.backup import Backup, BackupCatalog

COMMANDS = {
    "create": Target("backup:create", "Back up the database, also while a gateway runs."),
    "list": Target("backup:list_", "List the backups, and which are off this machine."),
    "verify": Target("backup:verify", "Read backups in full and check them."),
    "prune": Target("backup:prune", "Remove backups that the policy does not keep."),
    "copy": Target("copies:copy", "Copy backups off this machine, encrypted."),
    "copies": Target("copies:copies", "List the copies off this machine, and check them."),
    "key": Target("copies:key", "Make the key that opens copies."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def backup() -> None:
    """Manage backups: `BEFORE` names the migration that each was made for."""


@click.command()
@ui.as_json_option
@click.pass_obj
def create(invocation: Invocation, *, as_json: bool) -> int:
    """Back up the database, also while a gateway runs.

    The backup is flushed to the disk, read back and checked before it is listed. If an index of the
    database is damaged, it is marked as damaged, and the exit code is 6.
    """
    from local_mcp_gateway.database import REBUILD_INDEXES
    from local_mcp_gateway.guard import back_up_now

    with guard_context(invocation) as context:
        made = back_up_now(context)
    if as_json:
        ui.print_json(made.as_json())
    else:
        ui.tell(f"{made.path}  {formats.size(made.bytes)}")
    if made.damage is None:
        return Exit.OK
    message = (
        f"The database is damaged: {made.damage}. This backup is marked as such, and never offered."
    )
    ui.tell(message, fg="red", err=True)
    ui.tell(REBUILD_INDEXES, mark="→ ", err=True)
    return Exit.DAMAGED


@click.command("list")
@ui.as_json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> int:
    """List the backups, newest first, and name the files that cannot be used.

    COPIED says since when there is a copy off this machine, as the last `db backup copy` found it.
    """
    listing = _listing(invocation)
    copied = _copied(invocation)
    if as_json:
        ui.print_json(
            {
                "backups": [
                    {**item.as_json(), "copied_at": copied.get(item.name)}
                    for item in listing.backups
                ],
                "unusable": [
                    {"path": str(item.path), "reason": item.reason} for item in listing.unusable
                ],
            }
        )
        return Exit.OK
    if listing.backups:
        ui.print_table(
            ("NAME", "SIZE", "MADE", "COPIED", "BEFORE", "VERSION"),
            [
                (
                    b.name,
                    formats.size(b.bytes),
                    b.created_at,
                    copied.get(b.name),
                    b.last_before,
                    b.program_version,
                )
                for b in listing.backups
            ],
        )
    else:
        ui.tell(f"No backups in {invocation.settings.backup_folder}.")
    for made in listing.backups:
        if made.plain_secrets:
            text = (
                f"{made.name} holds keys and tokens of the original in plain:"
                " `db backup prune --plain-secrets` removes it."
            )
            ui.tell(text, fg="yellow", err=True)
    for item in listing.unusable:
        ui.tell(f"unusable {item.path}: {item.reason}", fg="yellow", err=True)
    return Exit.OK


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete.backups)
@ui.as_json_option
@click.pass_obj
def verify(invocation: Invocation, *, names: tuple[str, ...], as_json: bool) -> int:
    """Read backups in full and check size, SHA-256 and SQLite's integrity; exit 6 if one fails.

    Without a NAME all of them are read.
    """
    from local_mcp_gateway.backup import find_backup

    folder = invocation.settings.backup_folder
    if names:
        chosen: Sequence[Backup] = [find_backup(invocation.database, n, folder) for n in names]
        results: list[tuple[str, str | None]] = []
    else:
        listing = _listing(invocation)
        chosen = listing.backups
        results = [(item.path.stem, item.reason) for item in listing.unusable]
    with stop_on_signals() as stop, ui.progress_bar() as progress:
        run = Run(stop=stop, progress=progress)
        results += [(item.name, _problem_of(item, run)) for item in chosen]
    if as_json:
        ui.print_json([{"name": n, "ok": p is None, "problem": p} for n, p in results])
    else:
        for name, problem in results:
            mark = "ok      " if problem is None else "damaged "
            ui.tell(name, mark=f"{mark} ", fg=None if problem is None else "red")
            if problem is not None:
                ui.tell(problem, mark="→ ")
        if not results:
            ui.tell(f"No backups in {folder}.")
    return Exit.DAMAGED if any(problem for _, problem in results) else Exit.OK


@click.command()
@click.option("--keep-last", type=click.IntRange(min=1), help="Number of newest backups to keep.")
@click.option(
    "--keep-daily-days", type=click.IntRange(min=0), help="Days for which one backup a day is kept."
)
@click.option(
    "--plain-secrets", is_flag=True,
    help="Instead: remove every backup of the original's database, whose secrets are plain.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@ui.as_json_option
@click.pass_obj
def prune(
    invocation: Invocation,
    *,
    keep_last: int | None,
    keep_daily_days: int | None,
    plain_secrets: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove backups that the policy does not keep.

    The newest one, the newest that reads back whole and the one from before the newest migration
    always stay, except with --plain-secrets. That also removes a database of the original which a
    restore has replaced.
    """
    from local_mcp_gateway.backup import Retention, newest_good, remove, remove_backups, retained

    settings = invocation.settings.backup
    policy = Retention(
        keep_last=settings.keep_last if keep_last is None else keep_last,
        keep_daily_days=settings.keep_daily_days if keep_daily_days is None else keep_daily_days,
    )
    now = datetime.now(UTC)
    backups = _listing(invocation).backups
    if plain_secrets:
        kept = {item.name for item in backups if not _holds_plain_secrets(item)}
    else:
        kept = {item.name for item in retained(backups, policy, now)}
    if len(kept) < len(backups) and not plain_secrets:
        with stop_on_signals() as stop, ui.progress_bar() as progress:
            sound = newest_good(backups, run=Run(stop=stop, progress=progress))
        kept |= {sound.name} if sound else set()
    doomed = [item for item in backups if item.name not in kept]
    asides = _originals_beside(invocation) if plain_secrets else {}
    sizes = {**{item.name: item.bytes for item in doomed}, **asides}
    if sizes and not dry_run:
        _ask(sizes, yes=yes)
        remove_backups(doomed)
        for name in asides:
            remove(invocation.database.resolve().with_name(name))
    if as_json:
        ui.print_json(
            {"removed": [] if dry_run else list(sizes),
             "would_remove": list(sizes) if dry_run else [],
             "kept": [item.name for item in backups if item.name in kept]}
        )  # fmt: skip
        return Exit.OK
    for name in sizes:
        ui.tell(f"{'would remove' if dry_run else 'removed'}  {name}")
    size = formats.size(sum(sizes.values()))
    freed = f"{size} {'would be freed' if dry_run else 'freed'}"
    if sizes:
        ui.tell(f"{formats.counted(len(kept), 'backup')} kept, {freed}.")
    elif kept:
        ui.tell(f"Nothing to remove: {formats.counted(len(kept), 'backup')} kept.")
    else:
        ui.tell(f"No backups in {invocation.settings.backup_folder}.")
    return Exit.OK


def _originals_beside(invocation: Invocation) -> dict[str, int]:
    """Return the replaced databases that are the original's, by name, with their size in bytes."""
    from local_mcp_gateway.backup import list_asides

    found = [path for path in list_asides(invocation.database) if _is_original(path)]
    return {path.name: path.stat().st_size for path in found}


def _holds_plain_secrets(backup: Backup) -> bool:
    """Return whether a backup is marked so, or is of the original: earlier ones were not marked."""
    return backup.plain_secrets or _is_original(backup.path)


def _is_original(path: Path) -> bool:
    from contextlib import closing

    from local_mcp_gateway.backup import named_failures
    from local_mcp_gateway.database import open_immutable
    from local_mcp_gateway.migrate import find_original

    with named_failures(path, doing="read"), closing(open_immutable(path)) as reader:
        return find_original(reader) is not None


def _ask(doomed: Mapping[str, int], *, yes: bool) -> None:
    import sys

    if yes:
        return
    if sys.stdin.isatty():
        for name, size in doomed.items():
            ui.tell(f"{name}  {formats.size(size)}", err=True)
        if click.confirm(f"Remove {formats.counted(len(doomed), 'file')}?", err=True):
            return
    raise NotConfirmed("Nothing was removed: it was not confirmed.", hint="Give --yes.")


def _listing(invocation: Invocation) -> BackupCatalog:
    from local_mcp_gateway.backup import read_catalog

    return read_catalog(invocation.database, invocation.settings.backup_folder)


def _copied(invocation: Invocation) -> Mapping[str, str]:
    """Return which backups are off the machine, by name; nothing is asked of the network."""
    from local_mcp_gateway.backup import read_record

    settings = invocation.settings
    record = read_record(invocation.database, settings.backup_folder)
    return record.at(settings.backup.copy_to.rstrip("/")).copied


def _problem_of(backup: Backup, run: Run) -> str | None:
    from local_mcp_gateway.backup import verify_backup

    try:
        verify_backup(backup, run=run)
    except Interrupted:
        raise
    except GatewayError as error:
        return error.message
    return None
