"""`db adopt`, `db repair` and `db renumber`: take over a database or a folder, or correct its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway.cli import complete, ui
from local_mcp_gateway.cli.context import Invocation, guard_context
from local_mcp_gateway.cli.restore import lock_timeout_option, refuse_while_held, yes_option
from local_mcp_gateway.cli.ui import confirm_by_name
from local_mcp_gateway.errors import DatabasePathProblem, Exit, GatewayError, UsageProblem
from local_mcp_gateway.formats import now_ms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local_mcp_gateway.migrate import Converted, Edited, Migration


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "plain", "journal", "updown", "dbmate", "goose", "diesel"]),
    help="Make a plain folder ours first: what its files look like.",
)
@click.option(
    "--to",
    metavar="TAG",
    shell_complete=complete.tags,
    help="Where the database stands, if nothing in it says so.",
)
@click.option("--trust-files", is_flag=True, help="Take edited files as what was applied.")
@click.option(
    "--from",
    "original",
    type=click.Choice(["local-mcp-gateway"]),
    help="Bring over what a database of this program's original has.",
)
@click.option("--logs", is_flag=True, help="With --from: its log of calls too.")
@yes_option
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def adopt(
    invocation: Invocation,
    *,
    form: str | None,
    to: str | None,
    trust_files: bool,
    original: str | None,
    logs: bool,
    yes: bool,
    lock_timeout: float,
    as_json: bool,
) -> int:
    """Take over a folder or a database from another tool, or from none.

    With --format the folder is converted: a journal is written, up and down migrations are separated,
    and the originals are kept in meta/adopted. In a database the ledger of the other tool (goose, dbmate,
    golang-migrate, sqlx, Flyway, Alembic, Prisma, Knex, D1, Diesel, ...) says what is applied, and the
    schema must agree. Without one, the migrations that give exactly its schema are marked as applied.
    In a database of ours those are marked that were applied by hand, if the schema alone shows it.
    With --trust-files the edited files of a taken-over database are accepted.

    With --from the original's profiles, servers, order, tool settings and tokens come over into a new
    database, which takes the place of the old one: all of it or nothing, after a backup.
    """
    if (original is None and logs) or (original is not None and (form or to or trust_files)):
        raise UsageProblem(
            "--from goes with --logs, and with none of --format, --to, --trust-files."
        )
    if original is not None:
        return _take_over_original(
            invocation, logs=logs, yes=yes, lock_timeout=lock_timeout, as_json=as_json
        )
    touches_database = _touches_database(invocation, form, trust=trust_files)
    if touches_database:
        refuse_while_held(invocation.database, lock_timeout)
    result: dict[str, Any] = {
        "journaled": [],
        "left_out": [],
        "adopted": [],
        "trusted": [],
        "taken_over": None,
    }
    if form is not None:
        converted = _convert(invocation, form)
        result["journaled"] = [entry.tag for entry in converted.entries]
        result["left_out"] = converted.left_out
    if touches_database:
        try:
            what, tags = _take_over(
                invocation, to=to, trust=trust_files, yes=yes, timeout_s=lock_timeout
            )
        except GatewayError as error:
            if result["journaled"]:
                error.hint += " The folder itself is taken over: only the database is not."
            raise
        result[what] = tags
    if as_json:
        ui.print_json(result)
    else:
        _print(result)
    return Exit.OK


def _take_over_original(
    invocation: Invocation, *, logs: bool, yes: bool, lock_timeout: float, as_json: bool
) -> int:
    from local_mcp_gateway.cli.original import print_taken_over, take_over

    done = take_over(invocation, logs=logs, yes=yes, lock_timeout=lock_timeout)
    if as_json:
        nothing: dict[str, object] = {
            key: [] for key in ("journaled", "left_out", "adopted", "trusted")
        }
        ui.print_json({**nothing, "taken_over": done})
    else:
        print_taken_over(done)
    return Exit.OK


def _print(result: dict[str, Any]) -> None:
    for done, of in result.items():
        for tag in of or ():
            ui.tell(f"{done.replace('_', ' ')}  {tag}")
    if result["left_out"]:
        ui.tell("What was left out takes nothing back here: it is kept in meta/adopted.")
    if not any(result.values()):
        ui.tell("Nothing to adopt.")


def _touches_database(invocation: Invocation, form: str | None, *, trust: bool) -> bool:
    """Tell whether the database needs work too: a folder alone is taken over while a gateway serves."""
    from local_mcp_gateway.database import reading
    from local_mcp_gateway.migrate import Ledger

    if not _has_content(invocation):
        if form is None:
            raise DatabasePathProblem(
                f"There is no database at {invocation.database} to adopt.",
                hint="Give it with --database; for the folder alone, `db adopt --format auto`.",
            )
        return False
    if form is None or trust:
        return True
    with reading(invocation.database) as reader:
        return not Ledger(reader).rows()


def _take_over(
    invocation: Invocation, *, to: str | None, trust: bool, yes: bool, timeout_s: float
) -> tuple[str, tuple[str, ...]]:
    """Correct the ledger; return what was done, as a word, and the tags."""
    from local_mcp_gateway.guard import repairing

    def confirm(lines: Sequence[str]) -> None:
        confirm_by_name(invocation.database.name, lines, yes=yes)

    with (
        guard_context(invocation) as context,
        repairing(context, lock_timeout_s=timeout_s) as repair,
    ):
        if trust and repair.has_ledger:
            return "trusted", repair.trust_files(confirm)
        return "adopted", repair.adopt(confirm, to=to, trust_files=trust)


@click.command()
@click.option(
    "--accept-edited",
    "edited",
    metavar="TAG",
    shell_complete=complete.tags,
    help="Accept the edit of this migration.",
)
@click.option(
    "--mark-applied",
    "by_hand",
    metavar="TAG",
    shell_complete=complete.tags,
    help="Mark what is pending, up to this one.",
)
@click.option("--reindex", is_flag=True, help="Rebuild the indexes of a damaged database.")
@yes_option
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def repair(
    invocation: Invocation,
    *,
    edited: str | None,
    by_hand: str | None,
    reindex: bool,
    yes: bool,
    lock_timeout: float,
    as_json: bool,
) -> int:
    """Accept the edit of an applied migration, mark what was applied by hand, or rebuild indexes.

    An edit is accepted after the difference is shown. Pending migrations are marked as applied, up to
    the one given, only if the schema is exactly what they make; nothing of them runs. Indexes are
    rebuilt from their tables, after a backup, and the result must be sound. All are recorded in the
    history.
    """
    from local_mcp_gateway.guard import rebuild_indexes, repairing

    if (edited is not None) + (by_hand is not None) + reindex != 1:
        raise UsageProblem("Give one of --accept-edited TAG, --mark-applied TAG and --reindex.")
    if not _has_content(invocation):
        raise DatabasePathProblem(f"There is no database at {invocation.database}.")

    def confirm(lines: Sequence[str]) -> None:
        confirm_by_name(invocation.database.name, lines, yes=yes)

    def confirm_edit(entry: Edited, old: str | None) -> None:
        confirm(_difference(entry.migration.tag, old, entry.migration.sql))

    marked: tuple[Migration, ...] = ()
    facts: dict[str, object] = dict.fromkeys(("tag", "previous_hash", "hash", "backup"))
    with guard_context(invocation) as context:
        if edited is not None:
            with repairing(context, lock_timeout_s=lock_timeout) as repair:
                entry = repair.accept_edited(edited, confirm_edit)
            facts |= {"tag": edited, "previous_hash": entry.row.hash, "hash": entry.migration.hash}
        elif by_hand is not None:
            with repairing(context, lock_timeout_s=lock_timeout) as repair:
                marked = repair.mark_applied(by_hand, confirm)
            facts |= {"tag": by_hand, "hash": marked[-1].hash}
        else:
            backup = rebuild_indexes(context, lock_timeout_s=lock_timeout)
            facts["backup"] = backup.name
    result = {**facts, "marked": [migration.tag for migration in marked]}
    if as_json:
        ui.print_json(result)
    else:
        _print_repair(result)
    return Exit.OK


def _print_repair(result: Mapping[str, Any]) -> None:
    for tag in result["marked"]:
        ui.tell(tag, mark="marked  ")
    if result["previous_hash"]:
        ui.tell(result["tag"], mark="accepted  ")
    if result["backup"]:
        ui.tell(f"Every index is rebuilt; the backup from before is {result['backup']}.")


@click.command()
@lock_timeout_option
@ui.as_json_option
@click.pass_obj
def renumber(invocation: Invocation, *, lock_timeout: float, as_json: bool) -> int:
    """Move pending migrations with a duplicate number or an early date to the end."""
    from local_mcp_gateway.guard import repairing
    from local_mcp_gateway.migrate import plan_renumber, read_folder, renumber, resolve

    if _has_content(invocation):
        with (
            guard_context(invocation) as context,
            repairing(context, lock_timeout_s=lock_timeout) as repair,
        ):
            moves = repair.renumber(now_ms=now_ms())
    else:
        folder = read_folder(invocation.migrations)
        moves = plan_renumber(folder, resolve(folder, ()), now_ms=now_ms())
        renumber(folder.path, moves)
    if as_json:
        ui.print_json({"moved": [{"from": m.migration.tag, "to": m.tag} for m in moves]})
        return Exit.OK
    for move in moves:
        ui.tell(f"{move.migration.tag} → {move.tag}", mark="renumbered  ")
    if not moves:
        ui.tell("Nothing to renumber.")
    return Exit.OK


def _convert(invocation: Invocation, form: str) -> Converted:
    from local_mcp_gateway.migrate import Converted, FolderFormat, convert, detect, read_folder

    if form == "auto":
        folder = read_folder(invocation.migrations)
        if folder.migrations and not folder.problems and not folder.unjournaled:
            return Converted((), ())  # it is ours as it is
    chosen = detect(invocation.migrations) if form == "auto" else FolderFormat(form)
    return convert(invocation.migrations, chosen, now_ms=now_ms())


def _has_content(invocation: Invocation) -> bool:
    from local_mcp_gateway.database import has_content

    return has_content(invocation.database)


def _difference(tag: str, old: str | None, new: str) -> list[str]:
    """Return a unified diff as result; without the applied text there is nothing to show."""
    from difflib import unified_diff

    if old is None:
        return [
            f"The text of {tag} as it was applied is not known. This is its current text:",
            new,
        ]
    result = unified_diff(
        old.splitlines(), new.splitlines(), f"{tag} as applied", f"{tag} as it is now", lineterm=""
    )
    return list(result) or [f"Only line ends or spaces at the end of {tag} differ."]
