"""Find what SQLite reads as a string although it is in double quotes, as names are.

Where `"x"` names no column, SQLite reads it as the string 'x'. Names in backticks have no such fallback:
a statement is explained with its double-quoted tokens in backticks, and "no such column" is the finding.
(From Python 3.12 on the fallback can be switched off instead; this way works on 3.11 too.)

Not found: what follows DEFAULT, where a column cannot be named anyway, and the bodies of triggers, which
SQLite resolves when they fire.
"""

from __future__ import annotations

import re
import sqlite3

from local_mcp_gateway.sql import Token, literal, tokens

_NO_COLUMN = re.compile(r"no such column: (.+)", re.DOTALL)
_RESOLVED = frozenset({"SELECT", "WITH", "INSERT", "REPLACE", "UPDATE", "DELETE", "CREATE"})


def find_strings(connection: sqlite3.Connection, sql: str) -> list[Token]:
    """Return the double-quoted tokens of a statement that SQLite would read as strings, in order.

    The connection has the schema that the statement will meet; nothing is run. A statement with another
    error has none: running it reports the error.
    """
    if '"' not in sql:
        return []
    found = list(tokens(sql))
    doubles = [
        token
        for before, token in zip([None, *found], found, strict=False)
        if token.kind == "double" and (before is None or before.upper != "DEFAULT")
    ]
    if not doubles or found[0].upper not in _RESOLVED:
        return []
    start = _query_of_view(found) or 0
    doubles = [
        token._replace(start=token.start - start) for token in doubles if token.start >= start
    ]
    unresolved = _unresolved(connection, sql[start:], doubles)
    return [token._replace(start=token.start + start) for token in unresolved]


def in_single_quotes(connection: sqlite3.Connection, sql: str) -> str:
    """Return a statement with those strings written as strings."""
    for token in reversed(find_strings(connection, sql)):
        end = token.start + len(token.text)
        sql = f"{sql[: token.start]}{literal(token.identifier)}{sql[end:]}"
    return sql


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
