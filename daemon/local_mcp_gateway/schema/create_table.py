"""Parse CREATE TABLE and CREATE INDEX for what SQLite's PRAGMAs do not report.

SQLite accepted the text and keeps it in one form: `CREATE TABLE name(...)`, with columns added later
appended. This module walks over the tokens and collects CHECK, COLLATE, generated expressions, ON
CONFLICT, DEFERRABLE, AUTOINCREMENT, WITHOUT ROWID, STRICT, constraint names and the position of each
column's definition. The PRAGMAs provide the rest (inspect).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.model import Check, Column, Index, Part, Sql, Table
from local_mcp_gateway.sql import (
    NormalToken,
    as_sqlite_reads,
    closing,
    fold,
    normal,
    normal_tokens,
    unquote,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


_STARTS = frozenset(
    [
        "constraint",
        "primary",
        "not",
        "null",
        "unique",
        "check",
        "default",
        "collate",
        "references",
        "generated",
        "as",
    ]
)
_TABLE_CONSTRAINTS = frozenset({"constraint", "primary", "unique", "check", "foreign"})
_NAMED = (_STARTS | _TABLE_CONSTRAINTS) - {"constraint"}
_SIGNS = frozenset({"+", "-"})


@dataclass(slots=True)
class ColumnClauses:
    """The clauses of one column."""

    sql: str
    start: int = 0
    """Where its definition begins in the statement."""
    collation: str = "binary"
    generated: Sql | None = None
    on_conflict: str = "abort"


@dataclass(slots=True)
class KeyClause:
    """A PRIMARY KEY or UNIQUE as written, with its columns' keys."""

    columns: tuple[str, ...]
    on_conflict: str
    name: str | None


@dataclass(slots=True)
class TableClauses:
    """The clauses of a table; foreign keys in the order of their definition."""

    columns: dict[str, ColumnClauses] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    keys: list[KeyClause] = field(default_factory=list)
    primary: KeyClause | None = None
    foreign_keys: list[tuple[str | None, bool]] = field(default_factory=list)
    """Each one's name, and whether it is deferred."""
    autoincrement: bool = False
    without_rowid: bool = False
    strict: bool = False


@lru_cache(maxsize=1024)
def read_table(sql: str) -> TableClauses:
    """Collect the clauses of a CREATE TABLE statement as sqlite_schema holds it.

    The result is cached, because a start or a diff reads the same tables several times: do not modify it.
    """
    return _Reader(sql).read()


class _Reader:
    """A cursor over the tokens of one CREATE TABLE."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens: list[NormalToken] = normal_tokens(sql)
        self.at = 0
        self.end = len(self.tokens)
        self.found = TableClauses()
        self.table = ""
        self.checks: list[tuple[list[NormalToken], str | None]] = []
        self.generated: list[tuple[ColumnClauses, list[NormalToken]]] = []

    def read(self) -> TableClauses:
        self.table = unquote(self.tokens[2][1])
        while self.tokens[self.at][1] != "(":
            self.at += 1
        self.end = closing(self.tokens, self.at)
        self.at += 1
        while self.at < self.end:
            if self.word() in _TABLE_CONSTRAINTS:
                self.constraint(column=None)
            elif self.tokens[self.at][1] == ",":
                self.at += 1
            else:
                self.column()
        self.found.checks = [Check(self.expression(inside), name) for inside, name in self.checks]
        for clauses, inside in self.generated:
            clauses.generated = self.expression(inside)
        rest = [token[1] for token in self.tokens[self.end + 1 :]]
        self.found.without_rowid = "rowid" in rest
        self.found.strict = "strict" in rest
        return self.found

    def word(self, ahead: int = 0) -> str:
        """Return the keyword at the cursor, or "" at a quoted name or another token."""
        position = self.at + ahead
        if position < self.end:
            token = self.tokens[position]
            if token[0] == "word":
                return token[1]
        return ""

    def skip(self, *words: str) -> bool:
        """Skip these words if they come next."""
        if all(self.word(ahead) == word for ahead, word in enumerate(words)):
            self.at += len(words)
            return True
        return False

    def name(self) -> str:
        """Consume a name and return it as written, without quotes."""
        _, _, start, end = self.tokens[self.at]
        self.at += 1
        return unquote(self.sql[start:end])

    def group(self) -> list[NormalToken]:
        """Consume a parenthesised group and return the tokens inside."""
        opening = self.at
        self.at = closing(self.tokens, opening) + 1
        return self.tokens[opening + 1 : self.at - 1]

    def expression(self, inside: list[NormalToken]) -> Sql:
        """Return an expression; only after the last column, since it may name any column."""
        columns = {*self.found.columns, "rowid", "oid", "_rowid_"}
        read = as_sqlite_reads(inside, self.sql, self.table, columns)
        return Sql(normal(read), self.sql[inside[0][2] : inside[-1][3]])

    def conflict(self) -> str:
        if self.skip("on", "conflict"):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return "abort"

    def column(self) -> None:
        start = self.tokens[self.at][2]
        clauses = ColumnClauses("", start)
        key = fold(self.name())
        self.found.columns[key] = clauses
        while self.at < self.end and self.word() not in _STARTS and self.tokens[self.at][1] != ",":
            self.at = (
                self.at + 1 if self.tokens[self.at][1] != "(" else closing(self.tokens, self.at) + 1
            )
        while self.at < self.end and self.tokens[self.at][1] != ",":
            self.constraint(column=key)
        clauses.sql = self.sql[start : self.tokens[self.at - 1][3]]

    def constraint(self, *, column: str | None) -> None:
        """Read one constraint of a column or (None) of the table."""
        name = self.name() if self.skip("constraint") else None
        word = self.word()
        if name is not None and word not in _NAMED:
            return  # a constraint name without a constraint, which SQLite ignores
        self.at += 1
        if word == "check":
            self.checks.append((self.group(), name))
            self.conflict()
        elif word in ("primary", "unique"):
            self.key(word, column, name)
        elif word == "references":
            self.references(name)
        elif word == "foreign":
            self.at += 1
            self.group()
            self.at += 1
            self.references(name)
        elif column is not None:
            self.attribute(word, self.found.columns[column])

    def key(self, word: str, column: str | None, name: str | None) -> None:
        if word == "primary":
            self.at += 1
        if column is None:
            columns = self.key_columns()
        else:
            columns = (column,)
            _ = self.skip("asc") or self.skip("desc")
        clause = KeyClause(columns, self.conflict(), name)
        self.found.autoincrement |= self.skip("autoincrement")
        if word == "primary":
            self.found.primary = clause
        else:
            self.found.keys.append(clause)

    def key_columns(self) -> tuple[str, ...]:
        inside = self.group()
        if any(token[1] == "autoincrement" and token[0] == "word" for token in inside):
            self.found.autoincrement = True
        starts = [0] + [at + 1 for at, token in enumerate(inside) if token[1] == ","]
        return tuple(fold(unquote(self.sql[inside[at][2] : inside[at][3]])) for at in starts)

    def references(self, name: str | None) -> None:
        self.name()
        if self.at < self.end and self.tokens[self.at][1] == "(":
            self.group()
        deferred = False
        while self.at < self.end:
            if self.word() == "on":
                self.at += 2
                _ = self.skip("set") or self.skip("no")
                self.at += 1
            elif self.skip("match"):
                self.at += 1
            elif self.skip("not", "deferrable"):
                _ = self.skip("initially", "deferred") or self.skip("initially", "immediate")
            elif self.skip("deferrable"):
                deferred = self.skip("initially", "deferred")
                self.skip("initially", "immediate")
            else:
                break
        self.found.foreign_keys.append((name, deferred))

    def attribute(self, word: str, clauses: ColumnClauses) -> None:
        """Read a clause that only columns have, after its first word."""
        if word == "default":
            if self.tokens[self.at][1] == "(":
                self.group()
            else:
                self.at += 2 if self.tokens[self.at][1] in _SIGNS else 1
        elif word == "collate":
            clauses.collation = fold(self.name())
        elif word == "not" and self.skip("null"):
            clauses.on_conflict = self.conflict()
        elif word == "deferrable" and self.found.foreign_keys:
            name, _ = self.found.foreign_keys.pop()
            self.found.foreign_keys.append((name, self.skip("initially", "deferred")))
        elif word == "null":
            self.conflict()
        elif word == "as":
            self.generated.append((clauses, self.group()))
            _ = self.skip("stored") or self.skip("virtual")


_WHOLE = re.compile(r"[+-]?\d+")
_STRICT_LITERALS = {
    "int": _WHOLE,
    "integer": _WHOLE,
    "real": re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?", re.IGNORECASE),
    "text": re.compile(r"'.*'", re.DOTALL),
    "blob": re.compile(r"x'.*'", re.IGNORECASE),
}


def affinity(declared: str) -> str:
    """Return the affinity of a declared type (lower case), by the five rules in their order."""
    if "int" in declared:
        return "integer"
    if any(part in declared for part in ("char", "clob", "text")):
        return "text"
    if "blob" in declared or not declared:
        return "blob"
    if any(part in declared for part in ("real", "floa", "doub")):
        return "real"
    return "numeric"


def default_fits(column: Column) -> bool:
    """Tell whether a default is clearly of the column's type, as a STRICT table requires; NULL always is."""
    if column.default is None or column.default.normal == "null":
        return True
    literal = _STRICT_LITERALS.get(column.type.normal)
    return literal is None or literal.fullmatch(column.default.text) is not None


_ROWID = -1
_EXPRESSION = -2
"""`cid` in index_xinfo for an expression."""


def read_part(row: Sequence[object], expression: Sql | None = None) -> Part:
    """Return one column or expression of a key from its row of index_xinfo."""
    cid, column, descending, collation = row[4:8]
    is_column = cid != _EXPRESSION
    if expression is None or is_column:
        expression = _column_name("rowid" if cid == _ROWID else str(column))
    return Part(expression, bool(descending), _folded(str(collation)), is_column)


def read_index(name: str, table: Table, sql: str, rows: Sequence[Sequence[object]]) -> Index:
    """Return a created index from its text and its rows of index_xinfo.

    The text is only parsed for expressions and WHERE: most indexes have neither.
    """
    mine = [row for row in rows if row[1] == name]
    expressions: Sequence[Sql | None] = [None] * len(mine)
    where = None
    if mine[0][8] or any(row[4] == _EXPRESSION for row in mine):
        expressions, where = _read_text(sql, table)
    return Index(
        key=fold(name),
        name=name,
        table=table.key,
        parts=tuple(read_part(row, text) for row, text in zip(mine, expressions, strict=True)),
        unique=bool(mine[0][2]),
        where=where,
        sql=sql,
    )


@lru_cache(maxsize=512)
def _column_name(text: str) -> Sql:
    return Sql(fold(text), text)


@lru_cache(maxsize=64)
def _folded(collation: str) -> str:
    return fold(collation)


def _read_text(sql: str, table: Table) -> tuple[list[Sql], Sql | None]:
    """Return an index's parts as written, and the text after WHERE."""
    tokens = normal_tokens(sql)
    opening = next(at for at, token in enumerate(tokens) if token[1] == "(")
    end = closing(tokens, opening)
    columns = {*table.columns, "rowid", "oid", "_rowid_"}
    parts = _expressions(sql, as_sqlite_reads(tokens[opening + 1 : end], sql, table.key, columns))
    where = as_sqlite_reads(tokens[end + 2 :], sql, table.key, columns)
    if not where:
        return parts, None
    return parts, Sql(normal(where), sql[where[0][2] : where[-1][3]])


def _expressions(sql: str, tokens: Sequence[NormalToken]) -> list[Sql]:
    """Split the list of an index at its commas; order and collation are left to the PRAGMA."""
    parts: list[list[NormalToken]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token[1] == "(") - (token[1] == ")")
        if token[1] == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [_expression(sql, part) for part in parts]


def _expression(sql: str, tokens: list[NormalToken]) -> Sql:
    if tokens[-1][0] == "word" and tokens[-1][1] in ("asc", "desc") and len(tokens) > 1:
        tokens = tokens[:-1]
    if len(tokens) > 2 and tokens[-2][0] == "word" and tokens[-2][1] == "collate":
        tokens = tokens[:-2]
    return Sql(normal(tokens), sql[tokens[0][2] : tokens[-1][3]])
