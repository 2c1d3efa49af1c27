"""Replay migrations on an in-memory database to get the schema that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.database.run import UNWATCHED, Run
from local_mcp_gateway.migrate.apply import UNOBSERVED, Observer, run_migration, supervised

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.folder import Migration


def replay(
    migrations: Iterable[Migration],
    *,
    prepare: Callable[[sqlite3.Connection], None] | None = None,
    run: Run = UNWATCHED,
    past: bool = False,
) -> sqlite3.Connection:
    """Return a database in memory with these migrations applied; the caller closes it.

    `prepare` registers what the migrations call. Files without a transaction change no schema and are
    left out. Raises what applying them raises; `past`: they ran elsewhere, so only if the schema cannot
    be made.
    """
    connection = open_scratch()
    try:
        if prepare is not None:
            prepare(connection)
        replay_on(connection, migrations, run=run, past=past)
    except BaseException:
        connection.close()
        raise
    return connection


def replay_on(
    connection: sqlite3.Connection,
    migrations: Iterable[Migration],
    *,
    run: Run = UNWATCHED,
    past: bool = False,
) -> None:
    """Apply them to this scratch database and record nothing; a failure leaves its transaction open."""
    connection.execute("BEGIN")
    with supervised(connection, run) as session:
        for migration in migrations:
            if not migration.directives.no_transaction:
                run_migration(session, migration, past=past)
    connection.execute("COMMIT")


def extend(
    connection: sqlite3.Connection, migration: Migration, observer: Observer = UNOBSERVED
) -> None:
    """Apply one more migration to a replay; raises what applying it raises, rolled back."""
    if migration.directives.no_transaction:
        return
    connection.execute("BEGIN")
    try:
        with supervised(connection, observer=observer) as session:
            run_migration(session, migration)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
