"""Find double-quoted names that SQLite would silently read as strings.

Where `"x"` names no column, SQLite reads it as the string 'x', so a rebuild can copy that text into
every row. Names in backticks have no such fallback: each statement is explained with its double-quoted
tokens in backticks, and "no such column" is the finding. (From Python 3.12 on the fallback can be
switched off instead; this way works on 3.11 too.)

Not checked: what follows DEFAULT, where a column cannot be named anyway, and the bodies of triggers,
which SQLite resolves when they fire.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import DoubleQuotedString
from local_mcp_gateway.sql import Token, tokens

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement

ACCEPTED = "double_quoted_strings"

_NO_COLUMN = re.compile(r"no such column: (.+)", re.DOTALL)
_RESOLVED = frozenset({"SELECT", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE"})


class Finding(NamedTuple):
    """One double-quoted token that would become a string."""

    name: str
    line: int


def find_double_quoted(connection: sqlite3.Connection, statement: Statement) -> tuple[Finding, ...]:
    """Return the double-quoted tokens of a statement that SQLite would read as strings, in order.

    The connection has the schema that the statement will meet; nothing is run. A statement with another
    error has no findings: running it reports the error.
    """
    sql = statement.text
    if '"' not in sql:
        return ()
    found = list(tokens(sql))
    doubles = [
        token
        for before, token in zip([None, *found], found, strict=False)
        if token.kind == "double" and (before is None or before.upper != "DEFAULT")
    ]
    if not doubles or found[0].upper not in _RESOLVED:
        return ()
    query_from = _query_of_view(found)
    if query_from is not None:
        sql = sql[query_from:]
        doubles = [
            Token(token.kind, token.text, token.start - query_from)
            for token in doubles
            if token.start >= query_from
        ]
    unresolved = _unresolved(connection, sql, doubles)
    offset = query_from or 0
    return tuple(
        Finding(
            token.identifier,
            statement.line + statement.text.count("\n", 0, token.start + offset),
        )
        for token in unresolved
    )


def double_quoted(
    connection: sqlite3.Connection, migration: Migration, statement: Statement
) -> DoubleQuotedString | None:
    """Return the error for a statement's findings; None if there are none, or if the file accepts them."""
    if '"' not in statement.text or ACCEPTED in migration.directives.accept:
        return None
    findings = find_double_quoted(connection, statement)
    if not findings:
        return None
    name, line = findings[0].name, findings[0].line
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return DoubleQuotedString(
        f'{migration.name}, line {line}, statement {statement.number}: "{name}" is not a column here,'
        f" so SQLite would read it as the text '{name}'{more}.",
        tag=migration.tag,
        line=line,
        statement=statement.number,
        names=[finding.name for finding in findings],
    )


def _unresolved(connection: sqlite3.Connection, sql: str, doubles: list[Token]) -> list[Token]:
    """Return the tokens that give "no such column", restoring each before going on."""
    unresolved: list[Token] = []
    while True:
        strict = _rewritten(sql, [token for token in doubles if token not in unresolved])
        try:
            connection.execute(f"EXPLAIN {strict}").fetchall()
        except sqlite3.Error as error:
            match = _NO_COLUMN.match(str(error))
            name = match.group(1).lower() if match else None
            more = [t for t in doubles if t not in unresolved and t.identifier.lower() == name]
            if not more:
                return []
            unresolved += more
        else:
            return sorted(unresolved, key=lambda token: token.start)


def _rewritten(sql: str, strict: list[Token]) -> str:
    """Return the statement with these tokens in backticks."""
    parts = []
    at = 0
    for token in strict:
        parts += [sql[at : token.start], "`", token.identifier.replace("`", "``"), "`"]
        at = token.start + len(token.text)
    return "".join([*parts, sql[at:]])


def _query_of_view(found: list[Token]) -> int | None:
    """Return where the query of CREATE VIEW begins: SQLite resolves it only when it is read."""
    words = [token.upper for token in found[:3]]
    if words[:1] != ["CREATE"] or "VIEW" not in words:
        return None
    for at, token in enumerate(found):
        if token.kind == "word" and token.upper == "AS" and at + 1 < len(found):
            return found[at + 1].start
    return None
