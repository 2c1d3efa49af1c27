"""Apply migrations statement by statement, in the transaction that the caller has begun.

The caller has set the pragmas, taken the write lock with BEGIN IMMEDIATE and will COMMIT. Nothing here
begins or ends a transaction, and an authorizer keeps the migrations from doing it (`authorizer`).
`executescript` is not used: it would commit first. Files are split by SQLite's rules (`statements`),
each statement is run to its end, and the first error stops everything with its file, line and
statement. Between migrations the connection is reset to its normal state, since some settings survive
even a ROLLBACK. At the end the ledger's rows are written in the same transaction: a kill at any moment
leaves all of it or nothing.

A stop is noticed between statements and, by a progress handler, inside long ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.database import UNWATCHED, Run, outside_transaction
from local_mcp_gateway.errors import ForbiddenStatement, MigrationFailed, VerificationFailed
from local_mcp_gateway.migrate.authorizer import FILE_SETTINGS, IN_MEMORY, Authorizer
from local_mcp_gateway.migrate.history import Facts
from local_mcp_gateway.migrate.statements import expand_alter_column, parse
from local_mcp_gateway.sql import first_words

if TYPE_CHECKING:
    from local_mcp_gateway.errors import GatewayError
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.ledger import Ledger
    from local_mcp_gateway.migrate.lineage import Change
    from local_mcp_gateway.migrate.plan import Batch
    from local_mcp_gateway.migrate.rebuilds import Rebuilds
    from local_mcp_gateway.migrate.referential_actions import ReferentialActions
    from local_mcp_gateway.migrate.statements import Statement


class Observer:
    """Observes migrations being applied, each on the schema that it meets; may raise to refuse one."""

    journal_mode = "memory"
    """Of the database that this one is a copy of: a copy has a journal of its own."""

    phase = "apply"
    """Of the progress."""
    total = 0
    """How many migrations it sees; 0: nobody waits for the progress."""
    begun = 0

    def found_unclosed(self, migration: Migration, line: int) -> None:
        """Observe that statements of the file are in a comment, begun here, that never ends: they would not run."""

    def before_statement(
        self, connection: sqlite3.Connection, migration: Migration, statement: Statement
    ) -> None:
        """Observe a statement before it runs."""

    def after_migration(self, connection: sqlite3.Connection, migration: Migration) -> None:
        """Observe the result of a migration, inside its transaction."""


UNOBSERVED = Observer()
_OPS_BETWEEN_LOOKS = 10_000
WHILE_APPLIED = "while the migrations were applied"


class Step(NamedTuple):
    """One migration that was applied; nothing is durable before the caller's COMMIT."""

    tag: str
    statements: int
    duration_ms: float
    changes: tuple[Change, ...] = ()
    """What was created, dropped, renamed or had rows deleted, in order."""
    written: frozenset[str] | None = None
    """Tables with rows inserted, changed or deleted since BEGIN, folded; None: nobody watched."""
    drops: frozenset[str] = frozenset()
    """The triggers and indexes that a statement of their own dropped; folded."""
    accepts: frozenset[str] = frozenset()
    """What the file accepts, as `Directives.accept` has it."""
    texts: tuple[str, ...] = ()
    """The statements that ran; an ALTER COLUMN of libSQL as its rebuild."""
    ending: tuple[str, ...] = ()
    """What else was done at its end, as statements that could stand there: ON DELETE, and the state reset."""
    passed_over: tuple[str, ...] = ()
    """The PRAGMAs that had no effect, since the guard decides them or it was so already."""
    rows_touched: int | None = None
    """See `Facts`; None: nobody counted."""
    hazards: tuple[str, ...] | None = None
    """The kinds that a rehearsal found; None: it was none."""

    def facts(self, rehearsed: Step | None) -> Facts:
        """Return what the history says of it, with what the same migration did in a rehearsal."""
        if rehearsed is None:
            return Facts(self.duration_ms, self.rows_touched)
        return Facts(self.duration_ms, self.rows_touched, rehearsed.duration_ms, rehearsed.hazards)

    def as_fields(self) -> dict[str, object]:
        """Return the fields of its event."""
        fields: dict[str, object] = {
            "tag": self.tag, "statements": self.statements, "duration_ms": self.duration_ms,
        }  # fmt: skip
        return fields | ({"passed_over": list(self.passed_over)} if self.passed_over else {})


class Supervised(NamedTuple):
    """A connection with the authorizer and the interruption in place, and its observer."""

    connection: sqlite3.Connection
    authorizer: Authorizer
    run: Run
    observer: Observer
    rebuilds: Rebuilds | None
    """Compares the tables that a migration rebuilds with what they were."""


@contextmanager
def supervised(
    connection: sqlite3.Connection,
    run: Run = UNWATCHED,
    observer: Observer = UNOBSERVED,
    rebuilds: Rebuilds | None = None,
) -> Iterator[Supervised]:
    """Install the authorizer and the interruption, and remove them afterwards.

    At the end it raises VerificationFailed for a rebuild that is not whole.
    """
    (enforced,) = connection.execute("PRAGMA foreign_keys").fetchone()
    # Asked in SQL, since the name of a file need not be text.
    (in_file,) = connection.execute(
        "SELECT file <> '' FROM pragma_database_list WHERE name = 'main'"
    ).fetchone()
    settings = IN_MEMORY
    if in_file:
        settings = {
            name: str(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in FILE_SETTINGS
        }
        if settings["journal_mode"] == IN_MEMORY["journal_mode"]:
            settings["journal_mode"] = observer.journal_mode
    authorizer = Authorizer(foreign_keys=bool(enforced), settings=settings)
    connection.set_authorizer(authorizer.decide)
    if run.stop is not None:
        connection.set_progress_handler(run.stop.is_set, _OPS_BETWEEN_LOOKS)
    try:
        yield Supervised(connection, authorizer, run, observer, rebuilds)
        if rebuilds is not None:
            rebuilds.finish()
    finally:
        connection.set_authorizer(None)
        if run.stop is not None:
            connection.set_progress_handler(None, 0)


def run_batch(
    batch: Batch,
    ledger: Ledger,
    *,
    backup: str | None = None,
    event: str = "applied",
    is_v1: bool = False,
    observer: Observer = UNOBSERVED,
    rebuilds: Rebuilds | None = None,
    rehearsed: Sequence[Step] = (),
    run: Run = UNWATCHED,
) -> tuple[Step, ...]:
    """Apply a batch in order and record it; the caller has begun the transaction and will end it.

    `backup` and `event` are their names in the history, `rehearsed` is what a rehearsal did; `is_v1`: a new
    ledger gets the format of Drizzle 1.x. What may not run in a transaction runs between two of them. Raises MigrationFailed, ForbiddenStatement,
    VerificationFailed, DiskProblem or Interrupted; the caller rolls back.
    """
    connection = ledger.connection
    steps: tuple[Step, ...]
    if batch.no_transaction:
        steps = (_apply_outside(connection, batch.migrations[0], observer, run),)
    else:
        if rebuilds is not None:
            rebuilds.accepts = {one for m in batch.migrations for one in m.directives.accept}
        with supervised(connection, run, observer, rebuilds) as session:
            steps = tuple(_apply(session, migration) for migration in batch.migrations)
    found = {step.tag: step for step in rehearsed}
    applied = [
        (migration, step.facts(found.get(migration.tag)))
        for migration, step in zip(batch.migrations, steps, strict=True)
    ]
    ledger.ensure(is_v1=is_v1)
    ledger.record(applied, event=event, backup=backup)
    return steps


def _apply(session: Supervised, migration: Migration) -> Step:
    _begin(migration, session.observer, session.run)
    if migration.directives.assertions:
        with session.authorizer.suspended():
            require_assertions(session.connection, migration)
    step = run_and_compare(session, migration)
    session.observer.after_migration(session.connection, migration)
    return step


def _begin(migration: Migration, observer: Observer, run: Run) -> None:
    """Report that a migration begins; raises Interrupted, or what refuses it."""
    run.phases.begin("apply")
    if observer.total:
        run.progress(f"{observer.phase} {migration.tag}", observer.begun, observer.total)
        observer.begun += 1
    run.checkpoint(WHILE_APPLIED)
    if migration.parsed.unclosed_comment is not None:
        observer.found_unclosed(migration, migration.parsed.unclosed_comment)


def require_assertions(connection: sqlite3.Connection, migration: Migration) -> None:
    """Raise VerificationFailed unless what the file asserts of the data is true."""
    for assertion in migration.directives.assertions:
        try:
            connection.execute("PRAGMA query_only=ON")
            row = connection.execute(assertion.sql).fetchone()
        except sqlite3.Error as error:
            raise MigrationFailed(
                f"{migration.name}, line {assertion.line}: {error} in `{assertion.sql}`.",
                hint="Correct the condition after `-- guard: assert`.",
                tag=migration.tag,
                line=assertion.line,
            ) from error
        finally:
            connection.execute("PRAGMA query_only=OFF")
        if row is None or not row[0]:
            raise VerificationFailed(
                f"{migration.name}, line {assertion.line}: {assertion.message.rstrip('.')}.",
                hint=f"`{assertion.sql.rstrip(';')}` is not true of this database: correct its data, then"
                " try again.",
                tag=migration.tag,
                line=assertion.line,
            )


def run_and_compare(session: Supervised, migration: Migration, *, down: str | None = None) -> Step:
    """Run one migration (or its down file), and compare the tables that it rebuilds."""
    if session.rebuilds is not None:
        session.rebuilds.start(migration.sql if down is None else down, session.authorizer)
    step = run_migration(session, migration, down=down)
    if session.rebuilds is not None:
        session.rebuilds.compare(step.tag)
    return step


def _apply_outside(
    connection: sqlite3.Connection, migration: Migration, observer: Observer, run: Run
) -> Step:
    """Apply a file outside of a transaction. Killed before its ledger row is committed, it runs again."""
    from local_mcp_gateway.migrate.no_transaction import run_without_transaction

    begun = perf_counter()
    _begin(migration, observer, run)
    require_assertions(connection, migration)
    with outside_transaction(connection):
        count = run_without_transaction(connection, migration, run)
    observer.after_migration(connection, migration)
    return Step(migration.tag, count, _ms_since(begun))


def run_migration(
    session: Supervised, migration: Migration, *, down: str | None = None, schema_only: bool = False
) -> Step:
    """Run the statements of one migration (or of its down file, given as text); records nothing.

    `schema_only`: it ran elsewhere, and only its schema counts here. Statements that change rows may fail
    then, since the rows are missing here, and statements that the guard would refuse are skipped.
    """
    connection, authorizer = session.connection, session.authorizer
    begun = perf_counter()
    authorizer.start_migration()
    _refuse_unknown_directives(migration, schema_only=schema_only)
    count = touched = 0
    texts: list[str] = []
    sql = migration.sql if down is None else down
    script = migration.parsed if down is None else parse(down)
    actions = _actions(connection, authorizer, sql)
    for statement in script.to_run:
        if count:
            session.run.checkpoint(WHILE_APPLIED)  # before the first one it was the caller's
        try:
            parts: Sequence[Statement] = (statement,)
            if script.alters_columns:
                parts = expand_alter_column(connection, statement, authorizer)
            for part in parts:
                texts.append(part.text)
                touched += _run_statement(session, migration, part, actions)
        except (sqlite3.Error, ValueError) as error:  # ValueError: text that SQLite cannot be given
            refusal = _blamed(error, migration, statement, authorizer, down=down is not None)
            forgiven = schema_only and connection.in_transaction
            _raise_unless(forgiven=forgiven, refusal=refusal, statement=statement, error=error)
        count += 1
    if actions is not None:
        _take(actions, migration, authorizer, down=down is not None)
    with authorizer.suspended():
        reset = authorizer.restore_state(connection)
    return Step(
        tag=migration.tag,
        statements=count,
        duration_ms=_ms_since(begun),
        changes=tuple(authorizer.changes),
        written=frozenset(authorizer.written),
        drops=frozenset(authorizer.drops),
        texts=tuple(texts),
        ending=(*(actions.said if actions is not None else ()), *reset),
        passed_over=tuple(authorizer.passed_over),
        rows_touched=touched,
        accepts=script.directives.accept,
    )


def _run_statement(
    session: Supervised,
    migration: Migration,
    statement: Statement,
    actions: ReferentialActions | None,
) -> int:
    """Run a statement; return how many rows it inserted, changed or deleted itself."""
    authorizer, connection = session.authorizer, session.connection
    session.observer.before_statement(connection, migration, statement)
    if session.rebuilds is not None:
        session.rebuilds.before_statement(statement)
    if actions is not None:
        actions.before(statement)
    authorizer.start_statement(statement.text)
    before = connection.total_changes
    cursor = connection.execute(statement.text)
    for _ in cursor:
        pass  # a SELECT or RETURNING has to be read to its end to have its effect
    touched = cursor.rowcount if connection.total_changes != before else 0
    if touched < 0:  # Python does not count what begins with WITH
        with authorizer.suspended():
            (touched,) = connection.execute("SELECT changes()").fetchone()
    if actions is not None:
        actions.after(statement)
    if authorizer.renaming:
        authorizer.follow_rename(statement.text)
    return touched


def _actions(
    connection: sqlite3.Connection, authorizer: Authorizer, sql: str
) -> ReferentialActions | None:
    """Return the emulation of foreign-key actions, if a file may need it."""
    if authorizer.foreign_keys or "delete" not in sql.lower():
        return None
    from local_mcp_gateway.migrate.referential_actions import start_referential_actions

    return start_referential_actions(connection, authorizer, sql)


def _take(
    actions: ReferentialActions, migration: Migration, authorizer: Authorizer, *, down: bool
) -> None:
    """Run the foreign-key actions; if one fails, report the statement that deleted the parent."""
    try:
        actions.take()
    except sqlite3.Error as error:
        if actions.deleting is None:
            raise
        raise _blamed(error, migration, actions.deleting, authorizer, down=down) from error


def _blamed(
    error: sqlite3.Error | ValueError,
    migration: Migration,
    statement: Statement,
    authorizer: Authorizer,
    *,
    down: bool,
) -> GatewayError:
    from local_mcp_gateway.migrate.statement_errors import explain_failure

    known = error if isinstance(error, sqlite3.Error) else sqlite3.ProgrammingError(str(error))
    return explain_failure(known, migration, statement, authorizer.refusal, down=down)


def _raise_unless(
    *, forgiven: bool, refusal: GatewayError, statement: Statement, error: Exception
) -> None:
    """Raise, unless the error is tolerated and the statement leaves the schema as it is."""
    if not forgiven or first_words(statement.text, 1)[0] in ("CREATE", "ALTER", "DROP"):
        raise refusal from error


def _refuse_unknown_directives(migration: Migration, *, schema_only: bool) -> None:
    directives = migration.directives
    if directives.unknown and not schema_only:
        raise ForbiddenStatement(
            f"{migration.name} asks the guard for `{directives.unknown[0]}`, which it does not know.",
            hint="It knows: no-transaction, foreign-keys=on, accept NAME, assert SELECT …; SENTENCE.",
            tag=migration.tag,
        )


def _ms_since(begun: float) -> float:
    return round((perf_counter() - begun) * 1000, 3)
