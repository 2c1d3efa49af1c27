"""Split a migration file into statements, by the rules of SQLite's own tokenizer.

A `;` ends a statement unless it is in a string, a quoted name, a comment or the body of a trigger. For
triggers `sqlite3.complete_statement` decides, which knows where `CASE … END` and the body end.
Drizzle's line `--> statement-breakpoint` ends one too, wherever it is a comment; inside a string it is
text.

One regular expression finds the few places that matter, so a file costs microseconds: a thousand files
are split at every fresh start.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from local_mcp_gateway.migrate.authorizer import CONNECTION_PRAGMAS
from local_mcp_gateway.sql import first_words

BREAKPOINT = "--> statement-breakpoint"

_STOP = re.compile(
    r"""'[^']*(?:'|\Z)|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)|-->[ ]statement-breakpoint|--[^\n]*|/\*.*?(?:\*/|\Z)|;""",
    re.DOTALL,
)
_LEADING = re.compile(r"(?:[ \t\n\f\r\ufeff]+|--[^\n]*|/\*.*?(?:\*/|\Z))*", re.DOTALL)


class Statement(NamedTuple):
    """One statement of a file, its `;` included, from its first token on."""

    text: str
    line: int
    """The line of its first token, from 1."""
    number: int
    """Its number in the file, from 1; empty and comment-only pieces do not count."""


def is_complete(sql: str) -> bool:
    """Return whether the text ends where a statement ends, by SQLite's own rules."""
    return sqlite3.complete_statement(sql)


def split(sql: str) -> Iterator[Statement]:
    """Yield the statements of a file in order; pieces without a token are left out."""
    may_hold_trigger = "trigger" in sql.lower()
    start = counted = 0
    line = number = 1
    for end, resume in _ends(sql, triggers=may_hold_trigger):
        leading = _LEADING.match(sql, start, end)
        first = leading.end() if leading else start
        start = resume
        if first >= end or (end - first == 1 and sql[first] == ";"):
            continue
        line += sql.count("\n", counted, first)
        counted = first
        yield Statement(sql[first:end], line, number)
        number += 1


def _ends(sql: str, *, triggers: bool) -> Iterator[tuple[int, int]]:
    """Yield (end of a piece, start of the next) for the whole text."""
    start = 0
    for match in _STOP.finditer(sql):
        at = match.start()
        character = sql[at]
        if character == ";":
            end = at + 1
            if triggers and not _is_complete(sql[start:end]):
                continue
            yield end, end
            start = end
        elif character == "-" and sql.startswith(BREAKPOINT, at):
            yield at, match.end()
            start = match.end()
    yield len(sql), len(sql)


def _is_complete(piece: str) -> bool:
    """Distinguish the end of a statement from a `;` inside the body of a trigger."""
    return "trigger" not in piece.lower() or sqlite3.complete_statement(
        piece.replace("\ufeff", " ")
    )


# B begin, C commit, P a setting of the connection, X anything else.
_BALANCED = re.compile(r"(?:[XP]|B[XP]*C|CP*B)*")
_LETTERS = {"BEGIN": "B", "COMMIT": "C", "END": "C"}
_ENDINGS = ("COMMIT", "END")


def unwrap_transaction(statements: Iterable[Statement]) -> Sequence[Statement]:
    """Return the statements to run: all, or all but a balanced BEGIN and COMMIT."""
    found = list(statements)
    if not any(statement.text[:6].upper().startswith(_ENDINGS) for statement in found):
        return found
    letters = [_LETTERS.get(_first_word(statement.text), "X") for statement in found]
    for at, statement in enumerate(found):
        if letters[at] == "X" and pragma_name(statement.text) in CONNECTION_PRAGMAS:
            letters[at] = "P"
    if _BALANCED.fullmatch("".join(letters)) is None:
        return found
    return [
        statement for statement, letter in zip(found, letters, strict=True) if letter not in "BC"
    ]


def pragma_name(sql: str) -> str:
    """Return the name of the PRAGMA in lower case, without its schema; empty for any other statement."""
    if sql[:6].upper() != "PRAGMA":
        return ""
    words = first_words(sql, 4)
    name = words[3:4] if words[2:3] == (".",) else words[1:2]
    return "".join(name).lower()


def _first_word(sql: str) -> str:
    """Return the first word in capitals; a statement starts at its first token."""
    head = sql[:8].upper()
    for word in _LETTERS:
        if head.startswith(word) and not (head[len(word) : len(word) + 1].isalnum()):
            return word
    return ""
