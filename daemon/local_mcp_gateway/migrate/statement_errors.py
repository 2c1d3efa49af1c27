"""Explain a failed statement in one sentence, with file, line and the marked position.

Python's sqlite3 gives no offset, but SQLite's message often names a token; if that occurs exactly once
in the statement, it is the position.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.database import to_gateway_error
from local_mcp_gateway.errors import ForbiddenStatement, GatewayError, MigrationFailed
from local_mcp_gateway.migrate.statements import may_alter_column
from local_mcp_gateway.schema import read_alter_column
from local_mcp_gateway.sql import tokens

if TYPE_CHECKING:
    import sqlite3

    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.migrate.statements import Statement

_NEAR = re.compile(r'near "(.*)": syntax error', re.DOTALL)
_NAMED = re.compile(
    r"(?:no such (?:column|table|function|index|view|trigger|collation sequence|module)"
    r"|duplicate column name|unknown database|ambiguous column name|no such window"
    r"|wrong number of arguments to function|unrecognized token): ?\"?([^\s\"()]+)"
)
_EXISTS = re.compile(r"(?:table|index|view|trigger) [`\"\[]?([^`\"\]\s]+)[`\"\]]? already exists")
_UNKNOWN_COLUMN = re.compile(r"has no column named (\S+)")
_BINDINGS = ("Incorrect number of bindings", "You did not supply a value for binding")
_SHOWN = 120
"""How many characters of a line, or of what SQLite quotes, are shown."""


def explain_failure(
    error: sqlite3.Error,
    migration: Migration,
    statement: Statement,
    refusal: str | None,
    *,
    down: bool = False,
) -> GatewayError:
    """Return the gateway error for a failed statement of a migration."""
    name = migration.down_name if down else migration.name
    place = f"{name}, line {statement.line}, statement {statement.number}"
    where: dict[str, Any] = {
        "tag": migration.tag,
        "file": name,
        "line": statement.line,
        "statement": statement.number,
    }
    if refusal is not None:
        return ForbiddenStatement(
            f"{place}: {refusal}.", excerpt=_first_line(statement, 0), **where
        )
    machine = to_gateway_error(error, "The database")
    if machine is not None and not _is_the_authors(error):
        machine.message = f"{place}: {machine.message}"
        machine.data.update(where)
        return machine
    message = _in_our_words(str(error), statement.text)
    at = locate(message, statement.text)
    if at is not None:
        where["line"] = statement.line + statement.text.count("\n", 0, at)
        place = f"{name}, line {where['line']}, statement {statement.number}"
    return MigrationFailed(
        f"{place}: {_short(message)}.",
        hint=_hint(message, statement.text),
        sqlite_message=str(error),
        excerpt=_first_line(statement, at),
        **where,
    )


def locate(message: str, sql: str) -> int | None:
    """Return the position of the token in SQLite's message, if it occurs exactly once."""
    for pattern in (_NEAR, _NAMED, _EXISTS, _UNKNOWN_COLUMN):
        match = pattern.search(message)
        if match is None:
            continue
        wanted = match.group(1)
        found = list(tokens(sql))
        exact = [token.start for token in found if token.text == wanted]
        if not exact:
            name = wanted.rpartition(".")[2].lower()
            exact = [token.start for token in found if token.identifier.lower() == name]
        return exact[0] if len(exact) == 1 else None
    return None


def _first_line(statement: Statement, at: int | None) -> str:
    """Return the line of the position with a caret under it, or the statement's first line.

    Of a long line, such as that of a dump, the part around the position.
    """
    text = statement.text
    begin = text.rfind("\n", 0, at or 0) + 1
    end = text.find("\n", begin)
    line = text[begin : end if end >= 0 else len(text)].rstrip()
    number = statement.line + text.count("\n", 0, begin)
    left = 0 if at is None else max(0, at - begin - _SHOWN // 2)
    before, after = "…" if left else "", "…" if len(line) > left + _SHOWN else ""
    shown = f"{number} | {before}{line[left : left + _SHOWN]}{after}"
    if at is None:
        return shown
    passed = before + line[left : at - begin]
    pad = "".join("\t" if character == "\t" else " " for character in passed)
    return f"{shown}\n{' ' * len(str(number))} | {pad}^"


def _is_the_authors(error: sqlite3.Error) -> bool:
    """Distinguish an error in the statement from one of the machine where SQLite uses one code for both."""
    text = str(error)
    return "database table is locked" in text or "vtable constructor" in text


def _short(message: str) -> str:
    """Return a message without the middle of the long text that SQLite quotes in it."""
    half = _SHOWN // 2
    return message if len(message) <= 2 * _SHOWN else f"{message[:half]} … {message[-half:]}"


def _in_our_words(message: str, sql: str) -> str:
    """Name the table that an ALTER COLUMN rebuilds as it is named there; say what lacks a value."""
    if message.startswith(_BINDINGS):
        return "a migration has no values for parameters (`?`, `:name`)"
    altered = read_alter_column(sql) if may_alter_column(sql) else None
    return message if altered is None else message.replace(f"__new_{altered.table}", altered.table)


def _hint(message: str, sql: str) -> str | None:
    if "constraint failed" in message and may_alter_column(sql):
        return (
            "ALTER COLUMN is libSQL's, which leaves rows as they are. Here they have to fit the new"
            " definition: correct them first."
        )
    if message.startswith("a migration has no values"):
        return "Write the value itself into the statement; the database is unchanged."
    if message == "cannot VACUUM from within a transaction":
        return "Put VACUUM into a file of its own with the first line `-- guard: no-transaction`."
    from local_mcp_gateway.schema import missing_hint  # only errors need it

    return missing_hint(message)
