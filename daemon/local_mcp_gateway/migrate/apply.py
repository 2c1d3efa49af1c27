"""Apply migrations, statement by statement, in the transaction that the caller has begun.

Theory of operation. The caller has set the pragmas, taken the write lock with BEGIN IMMEDIATE and
will COMMIT; here nothing begins or ends a transaction, and an authorizer keeps the migrations from
doing it (`authority`). `executescript` is not used: it would commit first. Statements are cut by
SQLite's rules (`statements`), each is run to its end, and the first error stops everything with its
file, line and statement. Between migrations the connection is put back into its normal state, since
some settings survive even a ROLLBACK. At the end the ledger's rows are written, in the same
transaction: a kill at any moment leaves all of it or nothing.

A stop is seen between statements and, by a progress handler, inside long ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import ForbiddenStatement, Interrupted
from local_mcp_gateway.migrate.authorizer import Authorizer
from local_mcp_gateway.migrate.directives import read_directives
from local_mcp_gateway.migrate.ledger import Entry, ensure_ledger, record_all
from local_mcp_gateway.migrate.statements import split, unwrap_transaction
from local_mcp_gateway.migrate.tokenizer import first_words, renamed

if TYPE_CHECKING:
    import threading

    from local_mcp_gateway.errors import GatewayError
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.lineage import Change
    from local_mcp_gateway.migrate.rebuilds import Rebuilds
    from local_mcp_gateway.migrate.referential_actions import ReferentialActions
    from local_mcp_gateway.migrate.statements import Statement


Inspector = Callable[[sqlite3.Connection, "Migration", "Statement"], None]
"""Called before each statement runs, on the schema that it will meet; may raise to refuse it."""

_OPS_BETWEEN_LOOKS = 10_000


class Step(NamedTuple):
    """One migration that was applied; nothing is durable before the caller's COMMIT."""

    tag: str
    statements: int
    duration_ms: float
    changes: tuple[Change, ...] = ()
    """What was created, dropped, renamed or had rows deleted, in order."""
    drops: frozenset[str] = frozenset()
    """The triggers and indexes that a statement of their own dropped; folded."""
    accepts: frozenset[str] = frozenset()
    """What the file accepts, as `Directives.accept` has it."""

    def as_fields(self) -> dict[str, object]:
        """Return what an event says of it."""
        return {"tag": self.tag, "statements": self.statements, "duration_ms": self.duration_ms}


def apply_pending(
    connection: sqlite3.Connection,
    pending: Sequence[Migration],
    *,
    backup: str | None,
    program_version: str,
    fingerprint: str | None = None,
    event: str = "applied",
    stamped: bool = False,
    inspect: Inspector | None = None,
    begun: Callable[[str], None] = lambda _tag: None,
    ended: Callable[[str], None] = lambda _tag: None,
    stop: threading.Event | None = None,
    rebuilds: Rebuilds | None = None,
) -> tuple[Step, ...]:
    """Apply `pending` in order and record each; the caller has begun the transaction and will end it.

    `backup` and `fingerprint` (the schema's after the last one, where a rehearsal has found it) go to
    the history. `begun` and `ended` are called around each, with its tag. `rebuilds` looks after the
    rows of rebuilt tables. Raises MigrationFailed, ForbiddenStatement, VerificationFailed, DiskProblem or
    Interrupted; the caller rolls back.
    """
    steps: list[Step] = []
    with supervised(connection, stop) as authority:
        for migration in pending:
            begun(migration.tag)
            steps.append(
                run_watched(connection, migration, authority, rebuilds, inspect=inspect, stop=stop)
            )
            ended(migration.tag)
        authority.off = True
        ensure_ledger(connection, stamped=stamped)
        record_all(
            connection,
            [Entry(m, step.duration_ms) for m, step in zip(pending, steps, strict=True)],
            backup=backup,
            program_version=program_version,
            fingerprint=fingerprint,
            event=event,
        )
    return tuple(steps)


def run_watched(
    connection: sqlite3.Connection,
    migration: Migration,
    authority: Authorizer,
    rebuilds: Rebuilds | None,
    *,
    inspect: Inspector | None = None,
    stop: threading.Event | None = None,
    down: str | None = None,
) -> Step:
    """Run one migration (or its way back) as `run` does, and compare the tables that it rebuilds."""
    if rebuilds is None:
        return run(connection, migration, authority, inspect=inspect, stop=stop, down=down)
    rebuilds.start(migration.sql if down is None else down, authority)
    look = rebuilds.inspector(inspect)
    step = run(connection, migration, authority, inspect=look, stop=stop, down=down)
    rebuilds.compare(step)
    return step


@contextmanager
def supervised(
    connection: sqlite3.Connection, stop: threading.Event | None = None
) -> Iterator[Authorizer]:
    """Put the authorizer and the interruption in place, and take them away again."""
    (enforced,) = connection.execute("PRAGMA foreign_keys").fetchone()
    authority = Authorizer(foreign_keys=bool(enforced))
    connection.set_authorizer(authority.decide)
    if stop is not None:
        connection.set_progress_handler(stop.is_set, _OPS_BETWEEN_LOOKS)
    try:
        yield authority
    finally:
        connection.set_authorizer(None)
        if stop is not None:
            connection.set_progress_handler(None, 0)


def run(
    connection: sqlite3.Connection,
    migration: Migration,
    authority: Authorizer,
    *,
    inspect: Inspector | None = None,
    stop: threading.Event | None = None,
    down: str | None = None,
    past: bool = False,
) -> Step:
    """Run the statements of one migration (or of its way back, given as text); records nothing.

    `past`: it ran elsewhere, and only its schema counts here. What changes rows may fail then, on rows
    that are not here, and what the guard would not run is passed over.
    """
    begun = perf_counter()
    authority.start_migration()
    _refuse_unknown_directives(migration, past=past)
    count = 0
    sql = migration.sql if down is None else down
    actions = _actions(connection, authority, sql)
    execute = connection.execute
    for statement in unwrap_transaction(split(sql)):
        if stop is not None and stop.is_set():
            raise Interrupted("Stopped by a signal; the migrations were rolled back.")
        if inspect is not None:
            inspect(connection, migration, statement)
        if actions is not None:
            actions.before(statement)
        authority.start_statement(replacing=_replaces(statement.text))
        try:
            for _ in execute(statement.text):
                pass  # a SELECT or RETURNING has to be read to its end to have its effect
        except (sqlite3.Error, ValueError) as error:  # ValueError: text that SQLite cannot be given
            told = _blamed(error, migration, statement, authority, down=down is not None)
            forgiven = past and connection.in_transaction
            _raise_unless(forgiven=forgiven, told=told, statement=statement, error=error)
        count += 1
        if actions is not None:
            actions.after(statement)
        if authority.renaming:
            authority.renaming = False
            _follow_rename(authority, statement)
    if actions is not None:
        _take(actions, migration, authority, down=down is not None)
    authority.off = True
    restore_state(connection, authority)
    authority.off = False
    return Step(
        tag=migration.tag,
        statements=count,
        duration_ms=round((perf_counter() - begun) * 1000, 3),
        changes=tuple(authority.changes),
        drops=frozenset(authority.drops),
        accepts=read_directives(sql).accept,
    )


def _actions(
    connection: sqlite3.Connection, authority: Authorizer, sql: str
) -> ReferentialActions | None:
    """Return what looks after the actions of foreign keys, where a file may need them."""
    if authority.foreign_keys or "delete" not in sql.lower():
        return None
    from local_mcp_gateway.migrate.referential_actions import start_referential_actions

    return start_referential_actions(connection, authority, sql)


def _take(
    actions: ReferentialActions, migration: Migration, authority: Authorizer, *, down: bool
) -> None:
    """Run the actions; where one fails, the statement that deleted the parent is told."""
    try:
        actions.take()
    except sqlite3.Error as error:
        if actions.deleting is None:
            raise
        raise _blamed(error, migration, actions.deleting, authority, down=down) from error


def _follow_rename(authority: Authorizer, statement: Statement) -> None:
    names = renamed(statement.text)
    if names is not None:
        authority.follow(*names)


def _blamed(
    error: sqlite3.Error | ValueError,
    migration: Migration,
    statement: Statement,
    authority: Authorizer,
    *,
    down: bool,
) -> GatewayError:
    from local_mcp_gateway.migrate.statement_errors import explain_failure

    told = error if isinstance(error, sqlite3.Error) else sqlite3.ProgrammingError(str(error))
    return explain_failure(told, migration, statement, authority.refusal, down=down)


def restore_state(connection: sqlite3.Connection, authority: Authorizer) -> None:
    """Put back what a migration changed of the connection: it would change what the next one means."""
    if authority.touched_state:
        for name in ("legacy_alter_table", "ignore_check_constraints", "recursive_triggers"):
            connection.execute(f"PRAGMA {name}=OFF")
            if connection.execute(f"PRAGMA {name}").fetchone()[0]:
                raise RuntimeError(f"PRAGMA {name} could not be switched off again")
        connection.execute("PRAGMA defer_foreign_keys=OFF")
    if authority.made_temporary:
        for kind, name in connection.execute(
            "SELECT type, name FROM sqlite_temp_schema WHERE type IN ('trigger', 'view', 'table')"
            " AND name NOT LIKE 'sqlite_%' ORDER BY type = 'table'"
        ).fetchall():
            quoted = name.replace('"', '""')
            connection.execute(f'DROP {kind} IF EXISTS temp."{quoted}"')


def _raise_unless(
    *, forgiven: bool, told: GatewayError, statement: Statement, error: Exception
) -> None:
    """Raise, unless it is forgiven and the statement leaves the schema as it is."""
    if not forgiven or first_words(statement.text, 1)[0] in ("CREATE", "ALTER", "DROP"):
        raise told from error


def _replaces(sql: str) -> bool:
    """Tell `UPDATE OR REPLACE`, which removes the rows that stand in its way, from a plain UPDATE."""
    return sql[:6].upper() == "UPDATE" and first_words(sql, 3) == ("UPDATE", "OR", "REPLACE")


def _refuse_unknown_directives(migration: Migration, *, past: bool) -> None:
    directives = migration.directives
    if directives.unknown and not past:
        raise ForbiddenStatement(
            f"{migration.path.name} asks the guard for `{directives.unknown[0]}`, which it does not know.",
            hint="It knows: no-transaction, foreign-keys=on, accept NAME.",
            tag=migration.tag,
        )


def first_group(pending: Sequence[Migration]) -> tuple[Migration, ...]:
    """Return the first migrations of a non-empty sequence that are committed together."""
    first = pending[0].directives
    if first.no_transaction:
        return (pending[0],)
    end = 1
    for migration in pending[1:]:
        directives = migration.directives
        if directives.no_transaction or directives.foreign_keys != first.foreign_keys:
            break
        end += 1
    return tuple(pending[:end])


def wants_foreign_keys(group: Sequence[Migration]) -> bool:
    """Tell whether the group runs with foreign keys enforced; to be set before its BEGIN."""
    return bool(group) and group[0].directives.foreign_keys
