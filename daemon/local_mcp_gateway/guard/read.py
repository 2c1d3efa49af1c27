"""What is there and what is to do: the file examined, folder and ledger read, the plan resolved.

Nothing here writes. The same plan is made twice: before the write lock, where most starts end because
nothing is pending, and again under it, since only then no other program can change the answer.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import list_backups, newest_good, sweep
from local_mcp_gateway.bundled import bundled
from local_mcp_gateway.database.connect import reading
from local_mcp_gateway.database.integrity import probe
from local_mcp_gateway.errors import Damaged, DriftRefused, HistoryRefused, UsageProblem
from local_mcp_gateway.guard.drift import find_drift
from local_mcp_gateway.guard.values import Plan
from local_mcp_gateway.migrate.folder import NEW, read_folder
from local_mcp_gateway.migrate.live import resolve_live
from local_mcp_gateway.migrate.resolve import resolve
from local_mcp_gateway.migrate.seals import sealed_fingerprint, text_fingerprint

if TYPE_CHECKING:
    from local_mcp_gateway.database.connect import Connection
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.migrate.folder import Folder, Migration
    from local_mcp_gateway.migrate.resolve import Resolution
    from local_mcp_gateway.schema import Difference


def check(attempt: Attempt) -> bool:
    """Sweep a crash's left-overs and examine the file; return whether the database is new.

    Raises NotADatabase, Damaged or DatabasePathProblem.
    """
    with attempt.phases.measured("probe"):
        swept = sweep(attempt.database, attempt.backup_folder)
        try:
            found = probe(
                attempt.database,
                quick_check_limit_s=attempt.policy.quick_check_limit_s,
                stop=attempt.stop,
                progress=lambda: attempt.progress("check", 0, 0),
            )
        except Damaged as error:
            raise Damaged(error.message, hint=_way_back(attempt), **error.data) from None
    attempt.emit(
        "guard.checked",
        state=found.state,
        complete=found.complete,
        bytes=found.bytes,
        swept=len(swept),
        duration_ms=attempt.phases.ms("probe"),
    )
    return found.state == "new"


def _way_back(attempt: Attempt) -> str:
    """Return the exact command that restores the newest backup that still verifies."""
    listed = list_backups(attempt.database, attempt.backup_folder)
    good = newest_good(listed, stop=attempt.stop)
    if good is None:
        return f"There is no good backup in {attempt.backup_folder}; put a copy of your own in its place."
    words = ["local-mcp-gateway", "--database", str(attempt.database)]
    if attempt.migrations != bundled("migrations"):
        words += ["--migrations", str(attempt.migrations)]
    command = shlex.join([*words, "db", "restore", good.name])
    return f"Restore the newest good backup, of {good.created_at}: `{command}`."


def read(attempt: Attempt, *, fresh: bool) -> Plan:
    """Make the plan without a lock on the database; report it, and its drift if there is any."""
    with attempt.phases.measured("read"):
        if fresh:
            plan = _plan(attempt, _folder(attempt), None)
        else:
            with reading(attempt.database, locked=True) as reader:
                plan = _plan(attempt, _folder(attempt), reader)
    attempt.emit(
        "guard.resolved",
        applied=len(plan.resolution.applied),
        pending=[migration.tag for migration in plan.pending],
        duration_ms=attempt.phases.ms("read"),
    )
    if plan.drift:
        attempt.emit(
            "guard.drifted",
            objects=[f"{difference.kind} {difference.object}" for difference in plan.drift],
            hint="See `db diff`; write the change as a migration.",
        )
    attempt.checkpoint()
    return plan


def read_again(attempt: Attempt, live: Connection, plan: Plan) -> Plan:
    """Make the plan again; the caller holds SQLite's write lock on `live`.

    The database is what may have changed. The files stay those that were read: one look at the folder
    is what is applied, unless dev has journaled some of them since.
    """
    with attempt.phases.measured("read"):
        folder = _folder(attempt) if plan.new_files else plan.folder
        return _plan(attempt, folder, live)


def _folder(attempt: Attempt) -> Folder:
    return read_folder(attempt.migrations, journal_new_files=attempt.policy.dev)


def _plan(attempt: Attempt, folder: Folder, connection: Connection | None) -> Plan:
    allow = attempt.policy.allow_out_of_order
    if connection is None:
        resolution = resolve(folder, (), allow_out_of_order=allow)
    else:
        resolution = resolve_live(folder, connection, allow_out_of_order=allow)
    if resolution.problems:
        raise HistoryRefused(resolution.problems)
    pending = up_to(resolution, attempt.policy.to)
    now = ""
    drift: tuple[Difference, ...] = ()
    if connection is not None:
        now = sealed_fingerprint(connection) or ""
        if not now:  # somebody else changed the schema, or nobody has recorded it yet
            now = text_fingerprint(connection)
            drift = find_drift(connection, resolution, attempt.prepare)
    if drift and _refuses(attempt.policy.drift, pending=bool(pending)):
        raise DriftRefused(
            f"The schema of {attempt.database} was changed outside of its migrations: "
            + "; ".join(str(difference) for difference in drift[:3])
            + (f" and {len(drift) - 3} more." if len(drift) > 3 else "."),
            drift=[str(difference) for difference in drift],
        )
    new_files = frozenset(migration.tag for migration in pending if migration.idx == NEW)
    return Plan(folder, resolution, pending, new_files, now, drift)


def up_to(resolution: Resolution, tag: str | None) -> tuple[Migration, ...]:
    """Return the pending migrations up to and with `tag`; raises UsageProblem for an unknown one."""
    if tag is None:
        return resolution.pending
    for number, migration in enumerate(resolution.pending, 1):
        if migration.tag == tag:
            return resolution.pending[:number]
    if any(entry.tag == tag for entry in resolution.applied):
        return ()
    raise UsageProblem(
        f"There is no migration `{tag}` in the folder.",
        hint="`db status` lists the tags; give one of them to --to.",
    )


def _refuses(policy: str, *, pending: bool) -> bool:
    return policy == "refuse" or (policy == "auto" and pending)
