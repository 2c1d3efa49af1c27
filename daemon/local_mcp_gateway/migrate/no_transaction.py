"""Run `-- guard: no-transaction` migrations: the few statements that SQLite refuses in a transaction.

Such a file may hold VACUUM and the PRAGMAs below only: each can be run again after a kill, so a crash
between them and their ledger row costs only a repetition. Everything else is refused before the first
statement runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from local_mcp_gateway.database import survive_power_cut
from local_mcp_gateway.errors import ForbiddenStatement, VerificationFailed
from local_mcp_gateway.migrate.authorizer import AUTO_VACUUM, FILE_SETTINGS
from local_mcp_gateway.migrate.statement_errors import explain_failure
from local_mcp_gateway.migrate.statements import accepted, pragma_name
from local_mcp_gateway.sql import first_words, quote, tokens

if TYPE_CHECKING:
    from local_mcp_gateway.database import Run
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement


def run_without_transaction(connection: sqlite3.Connection, migration: Migration, run: Run) -> int:
    """Run a `no-transaction` migration; return the number of its statements.

    The connection is in no transaction, before and after. A journal mode that the file chose stays.
    """
    statements = checked_statements(migration)
    _refuse_new_rowids(connection, migration, statements)
    if run.stop is not None:
        connection.set_progress_handler(run.stop.is_set, 10_000)
    try:
        for statement in statements:
            try:
                connection.execute(statement.text).fetchall()
            except sqlite3.Error as error:
                raise explain_failure(error, migration, statement, None) from error
        _require_settings(connection, migration, statements)
    finally:
        connection.set_progress_handler(None, 0)
        survive_power_cut(connection)
    return len(statements)


def _refuse_new_rowids(
    connection: sqlite3.Connection, migration: Migration, statements: Sequence[Statement]
) -> None:
    """Raise VerificationFailed if a VACUUM would renumber rowids that something depends on."""
    if not any(statement.text[:6].upper() == "VACUUM" for statement in statements):
        return
    from local_mcp_gateway.migrate.rowids import renumbered_by_vacuum

    for table, users in renumbered_by_vacuum(connection):
        if accepted("rekeys_rows", table) not in migration.directives.accept:
            raise VerificationFailed(
                f"VACUUM in {migration.tag} would give the rows of {quote(table)} new rowids, and"
                f" {', '.join(users)} goes by the old ones.",
                hint="Give the table an INTEGER PRIMARY KEY or an index first, or accept it with the line"
                f" `-- guard: accept rekeys_rows {quote(table)}`.",
                table=table,
                users=list(users),
                tag=migration.tag,
            )


def _require_settings(
    connection: sqlite3.Connection, migration: Migration, statements: Sequence[Statement]
) -> None:
    """Raise ForbiddenStatement unless the settings took effect: SQLite reports no error."""
    asked: dict[str, tuple[str, Statement]] = {}
    for statement in statements:
        words = [token.identifier.upper().strip("'") for token in tokens(statement.text)]
        rest = words[words.index(".") + 1 :] if words[2:3] == ["."] else words[1:]
        if words[0] == "PRAGMA" and rest[1:2] in (["="], ["("]):
            asked[rest[0]] = (rest[2], statement)
    for name, (value, statement) in asked.items():
        found = str(connection.execute(f"PRAGMA {name}").fetchone()[0]).upper()
        if found not in (value, AUTO_VACUUM.get(value.lower()) if name == "AUTO_VACUUM" else value):
            raise ForbiddenStatement(
                f"{migration.name}, line {statement.line}, statement {statement.number}: SQLite did not"
                f" do it, {name.lower()} is still {found.lower()}.",
                hint="The page size changes with a VACUUM only, and not in WAL: write PRAGMA"
                " journal_mode=DELETE before and PRAGMA journal_mode=WAL after it.",
                tag=migration.tag,
                line=statement.line,
                statement=statement.number,
            )


def checked_statements(migration: Migration) -> tuple[Statement, ...]:
    """Return the file's statements; raise ForbiddenStatement unless all may run without transaction."""
    for statement in migration.statements:
        words = first_words(statement.text, 4)
        if words[:1] == ("VACUUM",) and "INTO" not in words:
            continue
        if pragma_name(statement.text) in FILE_SETTINGS:
            continue
        raise ForbiddenStatement(
            f"{migration.name}, line {statement.line}, statement {statement.number}: a file without"
            " transaction may hold only VACUUM and PRAGMA journal_mode, page_size and auto_vacuum.",
            hint="Move this statement into a migration of its own, without that first line.",
            tag=migration.tag,
            line=statement.line,
            statement=statement.number,
        )
    return migration.statements
