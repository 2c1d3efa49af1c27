"""`db restore`, `db reset` and `db seed`: replace or fill the content of the database."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import Invocation, guard_context, not_empty, stop_on_signals
from local_mcp_gateway.cli.ui import confirm_by_name, progress_bar
from local_mcp_gateway.errors import Exit, UsageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.backup import Backup

COMPARISON_LIMIT_S = 10.0
"""Limit for finding what a restore would lose: the question must not take longer than the restore."""

lock_timeout_option = click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds to wait for the lock.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for the database's name.")


@click.command()
@click.argument("name", default="latest", shell_complete=complete.backups)
@click.option(
    "--at",
    metavar="MOMENT",
    callback=not_empty,
    help="From the replica: local time, ISO 8601, or latest.",
)
@click.option(
    "--before",
    metavar="TAG",
    callback=not_empty,
    help="From the replica, as it was before that migration.",
)
@click.option(
    "--from",
    "url",
    metavar="URL",
    callback=not_empty,
    help="From this replica, whatever is configured.",
)
@click.option(
    "--copy-from", metavar="URL", callback=not_empty,
    help="The copy NAME off this machine, s3://… or file:///….",
)  # fmt: skip
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE",
    help="The age key that opens the copy.  [default: backup.copy_key_file]",
)  # fmt: skip
@yes_option
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def restore(
    invocation: Invocation,
    /,
    *,
    name: str,
    at: str | None,
    before: str | None,
    url: str | None,
    copy_from: str | None,
    key: Path | None,
    **how: Any,
) -> int:
    """Replace the database by a backup (NAME, a path, or the latest) or by any copy of a database.

    The backup is first read in full. The current file is kept next to it under a dated name, from which
    it can be restored too. Shows what was written since the backup before you are asked.

    With --at, --before or --from it is the replica's state at a moment, with --copy-from a copy of a backup,
    which is fetched and decrypted: both also on a machine that has no database yet.
    """
    from local_mcp_gateway.guard import find_to_restore

    replica = (at, before, url) != (None, None, None)
    if copy_from is not None:
        if replica:
            raise UsageProblem(
                "--copy-from is about copies of backups, --at, --before and --from are about a replica.",
                hint="Give one of the two.",
            )
        return restore_copy(invocation, name=name, url=copy_from, key=key, **how)
    if key is not None:
        raise UsageProblem("--key opens a copy.", hint="Give --copy-from URL too.")
    if not replica:
        backup = find_to_restore(invocation.database, name, invocation.settings.backup_folder)
        refuse_while_held(invocation.database, how["lock_timeout"])
        return _restore(invocation, backup, **how)
    if name != "latest" or (at is not None and before is not None):
        raise UsageProblem(
            "A backup, --at and --before are three ways to name one state.",
            hint="Give one of the three.",
        )
    return restore_moment(invocation, at=at or "latest", before=before, url=url, **how)


def restore_moment(
    invocation: Invocation,
    *,
    at: str,
    before: str | None = None,
    url: str | None,
    lock_timeout: float,
    **how: Any,
) -> int:
    """Replace the database by its state at a moment, from the replica; say which keys are not here.

    `before`: exactly the state before this migration, by its tag.
    """
    from datetime import UTC, datetime

    from local_mcp_gateway.database import Run
    from local_mcp_gateway.guard import find_to_restore
    from local_mcp_gateway.service.replica import Target, fetched, parse_moment, replicated_before

    target = Target.of(invocation.settings, url)
    moment = parse_moment(at, datetime.now(UTC))
    invocation.prepare_folder()
    refuse_while_held(invocation.database, lock_timeout)
    transaction = None
    with ExitStack() as removed_after:
        with stop_on_signals() as stop, progress_bar() as progress:
            run = Run(stop=stop, progress=progress)
            if before:
                transaction = replicated_before(target, invocation.database, before, run)
            state = fetched(target, invocation.database, moment=moment, txid=transaction, run=run)
            file = removed_after.enter_context(state)
        backup = find_to_restore(invocation.database, str(file), invocation.settings.backup_folder)
        code = _restore(
            invocation, backup, origin=target.url, moved=True, lock_timeout=lock_timeout, **how
        )
    _name_missing_keys(invocation)
    return code


def restore_copy(
    invocation: Invocation,
    *,
    name: str,
    url: str,
    key: Path | None,
    lock_timeout: float,
    **how: Any,
) -> int:
    """Replace the database by a copy of a backup from off this machine; say which keys are not here."""
    from local_mcp_gateway.database import Run
    from local_mcp_gateway.service import fetched_copy

    invocation.prepare_folder()
    refuse_while_held(invocation.database, lock_timeout)
    with ExitStack() as removed_after:
        with stop_on_signals() as stop, progress_bar() as progress:
            run = Run(stop=stop, progress=progress)
            copy = fetched_copy(invocation.settings, url, name, key, run)
            backup = removed_after.enter_context(copy)
        origin = f"{url.rstrip('/')}/{backup.name}"
        code = _restore(invocation, backup, origin=origin, lock_timeout=lock_timeout, **how)
    _name_missing_keys(invocation)
    return code


def _name_missing_keys(invocation: Invocation) -> None:
    """Say which sealed values do not open here: their keys travel apart from the database."""
    from local_mcp_gateway.service.secrets import check_secrets

    for state, message, hint in check_secrets(invocation.settings):
        if state == "problem":
            ui.tell(message, fg="yellow", err=True)
            ui.tell(hint, mark="→ ", err=True)


def _restore(
    invocation: Invocation,
    backup: Backup,
    *,
    origin: str | None = None,
    moved: bool = False,
    yes: bool,
    lock_timeout: float,
    as_json: bool,
) -> int:
    """Ask, restore, and say what was done. `origin`: the URL that the file comes from.

    `moved`: the file was fetched next to the database for this, and becomes the database itself.
    """
    from local_mcp_gateway.guard import restore_guarded

    database = invocation.database
    confirm_by_name(database.name, list(_losses(database, backup, origin)), yes=yes)
    with guard_context(invocation) as context:
        done = restore_guarded(context, backup, lock_timeout_s=lock_timeout, moved=moved)
    aside = None if done.aside is None else str(done.aside)
    if as_json:
        shown = backup.as_json() if origin is None else {**backup.as_json(), "path": origin}
        ui.print_json({"restored": shown, "replaced": aside})
        return Exit.OK
    ui.tell(f"Restored {database} from {origin or backup.name}.")
    if aside is not None:
        ui.tell(f"The replaced file is {aside}")
    return Exit.OK


def _losses(database: Path, backup: Backup, origin: str | None) -> Iterator[str]:
    """Describe what is in the database now and would be gone after the restore."""
    from local_mcp_gateway.backup import is_of, rows_lost
    from local_mcp_gateway.database import open_immutable, reading
    from local_mcp_gateway.errors import GatewayError, Interrupted
    from local_mcp_gateway.migrate import Ledger

    if origin is not None:
        whose = f"the state at {origin}"
    else:
        whose = "its backup" if is_of(backup, database) else f"a backup of {backup.database},"
    if not database.exists():
        yield f"{database} does not exist yet: it will be {whose} of {backup.created_at}."
        return
    yield f"{database} will be replaced by {whose} of {backup.created_at}."
    try:
        with reading(database) as reader, closing(open_immutable(backup.path)) as restored:
            applied = Ledger(reader).names()
            identities = {Ledger(each).identity() for each in (reader, restored)} - {None}
        if len(identities) > 1:
            yield "It is a state of another database than this one."
        lost = rows_lost(database, backup.path, ignored=Ledger.TABLES, limit_s=COMPARISON_LIMIT_S)
    except Interrupted:
        yield f"What was written since was not counted: that took longer than {COMPARISON_LIMIT_S:g} s."
        return
    except GatewayError as error:
        yield f"What was written since is not known: {error.message}"
        return
    undone = [tag for tag in applied if tag not in backup.applied]
    yield from (f"Migration {tag} was applied since and will be pending again." for tag in undone)
    yield from (f"Table {loss}." for loss in lost)
    if not undone and not lost:
        yield "Nothing was written since."


def refuse_while_held(database: Path, lock_timeout_s: float) -> None:
    """Raise LockHeld before any question if another process holds the lock and there is no wait for it."""
    from local_mcp_gateway.database import DatabaseLock, read_holder

    if lock_timeout_s == 0 and read_holder(database) is not None:
        with DatabaseLock(database, replaces=True):  # raises, naming the holder
            pass


@click.command()
@click.option("--seed", "with_seed", is_flag=True, help="Fill it with the demo seed.")
@yes_option
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def reset(
    invocation: Invocation, *, with_seed: bool, yes: bool, lock_timeout: float, as_json: bool
) -> int:
    """Back up the database, then replace it by a new one with every migration applied."""
    from local_mcp_gateway.guard import reset_guarded

    settings = invocation.settings
    invocation.prepare_folder()
    refuse_while_held(invocation.database, lock_timeout)
    if invocation.database.exists():
        hazards = [
            f"Every row of {invocation.database} will be deleted.",
            f"A backup is made first, in {settings.backup_folder}.",
        ]
        confirm_by_name(invocation.database.name, hazards, yes=yes)
    seeds = (demo_seed(),) if with_seed else ()
    with guard_context(invocation) as context:
        done = reset_guarded(context, seeds=seeds, lock_timeout_s=lock_timeout)
    kept = done.backup.name if done.backup else None
    if as_json:
        ui.print_json(
            {
                "database": str(invocation.database),
                "applied": [step.tag for step in done.report.applied],
                "backup": kept,
                "replaced": None if done.aside is None else str(done.aside),
            }
        )
        return Exit.OK
    count = formats.counted(len(done.report.applied), "migration")
    ui.tell(f"Reset {invocation.database}: {count} applied.")
    if kept:
        ui.tell(f"Undo it with `local-mcp-gateway db restore {kept}`.")
    if done.aside is not None:
        ui.tell(f"The old file was too damaged for a backup; it is {done.aside}")
    return Exit.OK


@click.command()
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def seed(
    invocation: Invocation, *, files: tuple[Path, ...], lock_timeout: float, as_json: bool
) -> int:
    """Run seeds on the database, all of them or none, after a backup.

    A seed is a .sql file, or a .py file with a function `seed` that takes the connection.

    Without a FILE the demo seed runs: two servers in the default profile. Running it again changes
    nothing.
    """
    from local_mcp_gateway.guard import seed_guarded

    chosen = files or (demo_seed(),)
    with guard_context(invocation) as context:
        backup = seed_guarded(context, chosen, lock_timeout_s=lock_timeout)
    if as_json:
        ui.print_json({"seeded": [str(file) for file in chosen], "backup": backup.name})
    else:
        for file in chosen:
            ui.tell(f"Seeded from {file}")
    return Exit.OK


def demo_seed() -> Path:
    """Return the seed that comes with the program."""
    from local_mcp_gateway.bundled import bundled

    return bundled("config/demo_seed.py")
