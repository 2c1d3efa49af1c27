"""Split a migration file into statements, and parse its `-- guard:` directives.

The rules are those of SQLite's own tokenizer: a `;` ends a statement unless it is in a string, a quoted name, a comment or the body of a trigger. For
triggers `sqlite3.complete_statement` decides, which knows where `CASE … END` and the body end.
Drizzle's line `--> statement-breakpoint` ends one too, wherever it is a comment; inside a string it is
text.

One regular expression finds the few places that matter, so a file costs microseconds: a thousand files
are split at every fresh start.

    -- guard: no-transaction                    VACUUM, journal_mode, page_size, auto_vacuum only
    -- guard: foreign-keys=on                   its DELETEs and UPDATEs run the actions of foreign keys
    -- guard: accept deletes_data               a hazard by its name, reviewed and accepted
    -- guard: accept double_quoted_strings
    -- guard: assert SELECT count(*) = 0 FROM t; a sentence for where it is not so
    -- guard: accept drops_trigger NAME         of one object only; so are the others of `NAMED`
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.migrate.authorizer import CONNECTION_PRAGMAS
from local_mcp_gateway.sql import first_words, fold, quote, tokens

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.authorizer import Authorizer

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


def unfinished(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the names of the files that are empty, or whose last statement is not complete.

    A last statement without a semicolon looks like a file that is still being written.
    """
    return tuple(name for name, content in files.items() if not _is_whole(content))


def _is_whole(content: bytes) -> bool:
    text = content.decode("utf-8", "replace").strip()
    return bool(text) and (sqlite3.complete_statement(text) or text.endswith(BREAKPOINT))


def unclosed_comment(sql: str) -> int | None:
    """Return the line of a comment that never ends and has statements in it, which SQLite passes over."""
    if "/*" not in sql:
        return None
    for match in _STOP.finditer(sql):
        comment = match.group()
        if comment.startswith("/*") and not comment.endswith("*/", 2) and ";" in comment:
            return sql.count("\n", 0, match.start()) + 1
    return None


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


_SPACES = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))+"
_ALTER_COLUMN = re.compile(rf"\bALTER{_SPACES}COLUMN\b", re.IGNORECASE | re.DOTALL)


def may_alter_column(sql: str) -> bool:
    """Tell whether a text may have libSQL's ALTER COLUMN, which is carried out as a rebuild."""
    return _ALTER_COLUMN.search(sql) is not None


def expand_alter_column(
    connection: sqlite3.Connection, statement: Statement, authorizer: Authorizer | None = None
) -> Sequence[Statement]:
    """Return the statements by which SQLite does what this one says: itself, unless it is libSQL's.

    Raises sqlite3.Error where libSQL would.
    """
    if statement.text[:5].upper() != "ALTER" or not may_alter_column(statement.text):
        return (statement,)
    from local_mcp_gateway.schema import read_alter_column, rebuild_for

    asked = read_alter_column(statement.text)
    if asked is None:
        return (statement,)
    if authorizer is not None:
        authorizer.start_statement(statement.text)
    with nullcontext() if authorizer is None else authorizer.suspended():
        rebuild = rebuild_for(connection, asked)
    return [statement._replace(text=text) for text in rebuild]


def may_rebuild(sql: str) -> bool:
    """Tell whether a text may put a new table, or a new column, in the place of an old one."""
    upper = sql.upper()
    makes = any(word in upper for word in ("CREATE", "RENAME", "ADD"))
    return ("DROP" in upper and makes) or may_alter_column(sql)


NAMED = frozenset(
    {
        "drops_trigger",
        "drops_index",
        "drops_constraints",
        "loses_rows",
        "rekeys_rows",
        "changes_values",
        "cannot_run",
    }
)
"""What can be accepted only for one object, which the line names."""

_LINE = r"--[ \t]*guard:[ \t]*([^\n]*)"


class Assertion(NamedTuple):
    """What has to be true before a migration runs."""

    sql: str
    """A SELECT whose first value is the answer."""
    message: str
    line: int


class Directives(NamedTuple):
    """The directives of one migration."""

    no_transaction: bool = False
    foreign_keys: bool = False
    accept: frozenset[str] = frozenset()
    """Hazards by name; those of `NAMED` as `accepted` writes them."""
    assertions: tuple[Assertion, ...] = ()
    unknown: tuple[str, ...] = ()
    """Unknown directives: refused when the migration is to run, never ignored."""


NONE = Directives()


def accepted(kind: str, name: str) -> str:
    """Return the entry in `Directives.accept` by which a file accepts this of one object."""
    return f"{kind} {fold(name)}"


def accepting_line(kind: str, name: str) -> str:
    """Return the line by which a file accepts this hazard of this object."""
    return f"-- guard: accept {f'{kind} {quote(name)}' if kind in NAMED else kind}"


def _read_directives(sql: str) -> Directives:
    """Parse the directives in the comments at the head of a file."""
    if "guard:" not in sql.lower():
        return NONE
    head = _LEADING.match(sql)
    no_transaction = foreign_keys = False
    accept: set[str] = set()
    assertions: list[Assertion] = []
    unknown: list[str] = []
    for match in re.finditer(_LINE, head.group() if head else "", re.IGNORECASE):
        request = match.group(1).strip()
        words = request.lower().replace(",", " ").split()
        if words in (["no-transaction"], ["no_transaction"]):
            no_transaction = True
        elif "".join(words) in ("foreign-keys=on", "foreign_keys=on"):
            foreign_keys = True
        elif words[:1] == ["accept"] and len(words) > 1:
            kind = words[1].replace("-", "_")
            if kind not in NAMED:
                accept.update(word.replace("-", "_") for word in words[1:])
            elif names := _names(request):
                accept.update(accepted(kind, name) for name in names)
            else:
                unknown.append(request)
        elif words[:2] == ["assert", "select"]:
            line = sql.count("\n", 0, match.start()) + 1
            select = next(split(request[len("assert") :])).text
            message = request.partition(select)[2].strip() or "its precondition is not met"
            assertions.append(Assertion(select, message, line))
        else:
            unknown.append(request)
    return Directives(
        no_transaction, foreign_keys, frozenset(accept), tuple(assertions), tuple(unknown)
    )


def _names(request: str) -> list[str]:
    """Return the names after `accept KIND`, separated by spaces or commas; quoted as SQL quotes them."""
    names: list[str] = []
    joined = False
    after_kind = request.split(None, 2)[2:]
    for token in tokens(after_kind[0] if after_kind else ""):
        if token.text == ".":
            joined = True
        elif token.text != ",":
            names.append(
                f"{names.pop()}.{token.identifier}" if joined and names else token.identifier
            )
            joined = False
    return names


class Script(NamedTuple):
    """What a migration's file, or its down file, says; parsed once."""

    statements: tuple[Statement, ...]
    to_run: Sequence[Statement]
    """The same without a balanced BEGIN and COMMIT."""
    directives: Directives
    unclosed_comment: int | None
    """The line of a comment that never ends and has statements in it, which SQLite passes over."""
    alters_columns: bool
    """It may have libSQL's ALTER COLUMN."""


def parse(sql: str) -> Script:
    """Parse a file; nothing that is wrong with it is refused here."""
    statements = tuple(split(sql))
    return Script(
        statements,
        unwrap_transaction(statements),
        _read_directives(sql),
        unclosed_comment(sql),
        may_alter_column(sql),
    )
