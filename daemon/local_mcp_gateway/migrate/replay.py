"""Replay migrations on an in-memory database, and compare a live schema with what they make.

A database without a ledger is found in a folder by replaying one migration after another and comparing
the schema after each. It is inspected only if the number of objects agrees, so a long folder stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_mcp_gateway.database import UNWATCHED, Run, open_scratch
from local_mcp_gateway.migrate.apply import (
    UNOBSERVED,
    WHILE_APPLIED,
    Observer,
    Step,
    run_migration,
    supervised,
)
from local_mcp_gateway.schema import compare, count_objects, inspect

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.schema import Difference


@contextmanager
def replay(
    migrations: Iterable[Migration],
    *,
    prepare: Callable[[sqlite3.Connection], None] | None = None,
    schema_only: bool = False,
) -> Iterator[sqlite3.Connection]:
    """Open a database in memory with these migrations applied.

    `prepare` registers what the migrations call. Files without a transaction change no schema and are
    left out. Raises what applying them raises; `schema_only`: they ran elsewhere, so only if the schema cannot
    be made.
    """
    with closing(open_scratch()) as connection:
        if prepare is not None:
            prepare(connection)
        replay_on(connection, migrations, schema_only=schema_only)
        yield connection


def replay_on(
    connection: sqlite3.Connection,
    migrations: Iterable[Migration],
    *,
    run: Run = UNWATCHED,
    schema_only: bool = False,
) -> None:
    """Apply them to this scratch database and record nothing; a failure leaves its transaction open."""
    connection.execute("BEGIN")
    with supervised(connection, run) as session:
        for migration in migrations:
            if not migration.directives.no_transaction:
                run.checkpoint(WHILE_APPLIED)
                run_migration(session, migration, schema_only=schema_only)
    connection.execute("COMMIT")


def extend(
    connection: sqlite3.Connection, migration: Migration, observer: Observer = UNOBSERVED
) -> Step:
    """Apply one more migration to a replay and return what ran; raises what it raises, rolled back."""
    if migration.directives.no_transaction:
        return Step(migration.tag, 0, 0.0)
    connection.execute("BEGIN")
    with connection, supervised(connection, observer=observer) as session:
        return run_migration(session, migration)


@dataclass(frozen=True, slots=True)
class Point:
    """Where a database stands in a folder."""

    count: int | None
    """How many migrations its schema has; None: no prefix of the folder makes exactly this schema."""
    earliest: int | None
    """The smallest count with the same schema: the migrations between change only data."""
    differences: tuple[Difference, ...]
    """From the nearest point, if there is no exact one."""
    nearest: int


def find_point(
    migrations: Sequence[Migration],
    live: sqlite3.Connection,
    *,
    prepare: Callable[[sqlite3.Connection], None] | None = None,
) -> Point:
    """Return how many of the migrations the live schema is the result of; reads only.

    Raises what replaying the folder raises.
    """
    found = inspect(live)
    wanted = count_objects(live)
    matches: list[int] = []
    nearest, distance = 0, wanted
    with replay((), prepare=prepare) as memory:
        for count in range(len(migrations) + 1):
            if count:
                extend(memory, migrations[count - 1])
            away = abs(count_objects(memory) - wanted)
            if away <= distance:
                nearest, distance = count, away
            if away == 0 and not compare(inspect(memory), found):
                matches.append(count)
    if matches:
        return Point(matches[-1], _run_start(matches), (), matches[-1])
    differences = differences_from(migrations[:nearest], live, prepare=prepare)
    return Point(None, None, differences, nearest)


def differences_from(
    migrations: Sequence[Migration],
    live: sqlite3.Connection,
    *,
    prepare: Callable[[sqlite3.Connection], None] | None = None,
) -> tuple[Difference, ...]:
    """Return how the live schema differs from what all these migrations make; reads only.

    Raises MigrationFailed if they cannot be replayed.
    """
    with replay(migrations, prepare=prepare, schema_only=True) as memory:
        return compare(inspect(memory), inspect(live))


def _run_start(matches: list[int]) -> int:
    """Return the first of the counts that lead to the last one without a gap."""
    start = matches[-1]
    while start - 1 in matches:
        start -= 1
    return start
