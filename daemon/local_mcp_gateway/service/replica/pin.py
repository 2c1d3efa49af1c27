"""Send everything before a migration, so that the replica can bring back exactly that state later.

Litestream merges transactions after some minutes, and then restores only the ends of what it merged. A whole
copy (its snapshot) of the state before a migration stays restorable by its transaction number for as long as
moments are kept. So one is sent, and the number goes into the guard's history, in the migration's own transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.database import empty_log, reading
from local_mcp_gateway.errors import DatabaseBusy, GatewayError, ReplicaProblem
from local_mcp_gateway.service.replica.sent import (
    WHOLE,
    connect,
    kept_transactions,
    send_copy,
    sent_files,
)
from local_mcp_gateway.service.replica.store import ReplicaStore, Target

if TYPE_CHECKING:
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.guard import GuardContext


def pin(settings: Settings, context: GuardContext, tag: str) -> int | None:
    """Send all that is committed; return the transaction that is the state before the migration.

    The caller holds the database's lock. Raises ReplicaProblem with `replica.before_migration = wait`; else
    it is reported, and None.
    """
    try:
        transaction = _send(settings, context)
    except GatewayError as error:
        if settings.replica.before_migration == "wait":
            raise ReplicaProblem(
                f"{tag} was not applied, since the replica does not have everything: {error.message}",
                hint='Fix that, or set replica.before_migration = "warn". The database is unchanged.',
            ) from error
        context.emit("replica.not_pinned", tag=tag, message=error.message, hint=error.hint)
        return None
    context.emit("replica.pinned", tag=tag, transaction=transaction)
    return transaction


def _send(settings: Settings, context: GuardContext) -> int:
    target, database = Target.of(settings), context.database.resolve()
    with reading(database, locked=True) as reader:
        identity = context.ledger(reader).identity()
    if identity is None:
        raise ReplicaProblem(
            f"{database} was never replicated.",
            hint="The first `serve` with replica.url begins it.",
        )
    store, before = ReplicaStore(target), sent_files(target)
    store.claim(identity, database, used=bool(before.files))
    connect(target, before, database)
    if not empty_log(database):
        raise DatabaseBusy(f"Another program reads {database}.")
    send_copy(target, database, timeout_s=settings.replica.wait_s)
    sent = sent_files(target).newest(WHOLE)
    if sent not in kept_transactions(database)[-1:]:  # its exit code does not say so
        raise ReplicaProblem(f"Litestream ended before {target.url} had everything.")
    return sent
