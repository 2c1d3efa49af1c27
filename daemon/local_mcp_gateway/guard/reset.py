"""Reset a database to an empty one with all migrations, and run seeds (`db reset`, `db seed`).

The fresh one is built beside the old one by the same guard, with every migration (and seed), and
replaces it in one rename: a kill at any point leaves the old database or the finished new one, and a
migration that fails leaves the old one. Seeds are `.sql` or `.py` files, all of them applied or none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_mcp_gateway.backup.files import aside_path, named_failures, remove, staged_path
from local_mcp_gateway.backup.restore import prune_asides, swap
from local_mcp_gateway.database.connections import has_content
from local_mcp_gateway.database.lock import lock_path
from local_mcp_gateway.database.transactions import staged_transaction
from local_mcp_gateway.errors import Damaged, DatabasePathProblem, NotADatabase
from local_mcp_gateway.guard.guard import guarded
from local_mcp_gateway.guard.restore import back_up_now
from local_mcp_gateway.guard.transaction import exclusive, write_transaction
from local_mcp_gateway.migrate.seeds import named_deferred_keys, require_files, run_seeds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.guard.context import GuardContext, GuardReport


@dataclass(frozen=True, slots=True)
class Reset:
    """A finished reset, and where the old rows are."""

    report: GuardReport
    backup: Backup | None
    aside: Path | None
    """The old file, kept only if it was too damaged for a backup."""


def reset_guarded(
    context: GuardContext, *, seeds: Sequence[Path] = (), lock_timeout_s: float = 0.0
) -> Reset:
    """Back the database up, build a fresh one beside it, and swap them."""
    require_files(seeds)
    real = context.database.resolve()
    with exclusive(context, lock_timeout_s=lock_timeout_s, replaces=True):
        backup, aside = _saved(context, real)
        staged = staged_path(real)
        try:
            with named_failures("put a fresh database at", real):
                remove(staged)
                policy = replace(context.policy, fresh=True)  # a killed reset leaves a lock file
                with guarded(
                    staged, context.migrations, policy=policy, stop=context.stop
                ) as report:
                    _finish(context, staged, backup, seeds)
                swap(real, staged, aside=aside)
        finally:
            with suppress(OSError):  # the next start tries again
                remove(staged)
                lock_path(staged).unlink(missing_ok=True)
        prune_asides(real, max(context.policy.keep_aside, 1))
    context.emit(
        "database.reset", database=str(context.database), backup=backup.name if backup else None
    )
    return Reset(report, backup, aside)


def _saved(context: GuardContext, real: Path) -> tuple[Backup | None, Path | None]:
    """Back the old database up; if it is damaged, return the name to keep its file under."""
    if not has_content(real):
        return None, None
    try:
        return back_up_now(context), None
    except (Damaged, NotADatabase):
        return None, aside_path(real, datetime.now(UTC))


def _finish(
    context: GuardContext, staged: Path, backup: Backup | None, seeds: Sequence[Path]
) -> None:
    """Seed the fresh database, complete its history, and leave it as one flushed file."""
    with (
        named_deferred_keys(),
        staged_transaction(staged, foreign_keys=True, run=context) as fresh,
    ):
        context.prepare(fresh)
        ledger = context.ledger(fresh)
        ledger.ensure()
        ledger.note("reset", backup=backup.name if backup else None)
        if seeds:
            _apply_seeds(context, fresh, seeds, backup)


def seed_guarded(
    context: GuardContext, files: Sequence[Path], *, lock_timeout_s: float = 0.0
) -> Backup:
    """Back the database up, then run every seed in one transaction; return the backup.

    A seed that fails leaves the database as it was.
    """
    require_files(files)
    if not context.database.exists():
        raise DatabasePathProblem(
            f"There is no database at {context.database}.",
            hint="Create it with `db migrate` first.",
        )
    with (
        exclusive(context, lock_timeout_s=lock_timeout_s),
        write_transaction(context, foreign_keys=True) as transaction,
    ):
        backup = transaction.back_up(before=None)
        _apply_seeds(context, transaction.connection, files, backup)
        with named_deferred_keys():
            transaction.commit()
    context.emit(
        "database.seeded", database=str(context.database), files=[str(file) for file in files]
    )
    return backup


def _apply_seeds(
    context: GuardContext, connection: Connection, files: Sequence[Path], backup: Backup | None
) -> None:
    """Run the seeds inside the caller's transaction, and record them."""
    run_seeds(connection, files)
    ledger = context.ledger(connection)
    ledger.ensure()
    ledger.note("seeded", backup=backup.name if backup else None)
