"""What a folder makes of an empty database: the schema that there should be, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from local_mcp_gateway.database.connections import open_scratch
from local_mcp_gateway.migrate.apply import Inspector, run, supervised

if TYPE_CHECKING:
    import sqlite3
    import threading

    from local_mcp_gateway.migrate.folder import Migration


def replay(
    migrations: Iterable[Migration],
    *,
    prepare: Callable[[sqlite3.Connection], None] | None = None,
    inspect: Inspector | None = None,
    stop: threading.Event | None = None,
    past: bool = False,
) -> sqlite3.Connection:
    """Return a database in memory with these migrations applied; the caller closes it.

    `prepare` registers what the migrations call. Files without a transaction change no schema and are
    left out. Raises what applying them raises; `past`: they ran elsewhere, so only where the schema
    cannot be made.
    """
    connection = open_scratch()
    try:
        if prepare is not None:
            prepare(connection)
        replay_on(connection, migrations, inspect=inspect, stop=stop, past=past)
    except BaseException:
        connection.close()
        raise
    return connection


def replay_on(
    connection: sqlite3.Connection,
    migrations: Iterable[Migration],
    *,
    inspect: Inspector | None = None,
    stop: threading.Event | None = None,
    past: bool = False,
) -> None:
    """Apply them to this scratch database and record nothing; a failure leaves its transaction open."""
    connection.execute("BEGIN")
    with supervised(connection, stop) as authority:
        for migration in migrations:
            if not migration.directives.no_transaction:
                run(connection, migration, authority, inspect=inspect, stop=stop, past=past)
    connection.execute("COMMIT")


def extend(
    connection: sqlite3.Connection, migration: Migration, *, inspect: Inspector | None = None
) -> None:
    """Apply one more migration to a replay; raises what applying it raises, rolled back."""
    if migration.directives.no_transaction:
        return
    connection.execute("BEGIN")
    try:
        with supervised(connection) as authority:
            run(connection, migration, authority, inspect=inspect)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
