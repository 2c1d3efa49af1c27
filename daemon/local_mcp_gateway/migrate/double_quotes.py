"""Refuse what SQLite would silently read as a string: a rebuild can copy that text into every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import DoubleQuotedString
from local_mcp_gateway.schema import find_strings

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement

ACCEPTED = "double_quoted_strings"


class Finding(NamedTuple):
    """One double-quoted token that would become a string."""

    name: str
    line: int


def find_double_quoted(connection: sqlite3.Connection, statement: Statement) -> tuple[Finding, ...]:
    """Return the double-quoted tokens of a statement that SQLite would read as strings, in order."""
    return tuple(
        Finding(token.identifier, statement.line + statement.text.count("\n", 0, token.start))
        for token in find_strings(connection, statement.text)
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
