"""What PRAGMAs do not tell about a table, read from its CREATE TABLE text.

SQLite accepted the text and keeps it in one shape: `CREATE TABLE name(...)`, columns added later
appended. So this walks over tokens and collects CHECK, COLLATE, generated expressions, ON CONFLICT,
DEFERRABLE, AUTOINCREMENT, WITHOUT ROWID, STRICT, the names of constraints and where each column's
definition stands; the rest is PRAGMA's business (inspect).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from local_mcp_gateway.schema.model import Check, Sql
from local_mcp_gateway.schema.tokens import (
    Token,
    closing,
    fold,
    meant,
    normal,
    tokenize,
    unquote,
)

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
    """What the text says about one column."""

    sql: str
    collation: str = "binary"
    generated: Sql | None = None
    on_conflict: str = "abort"


@dataclass(slots=True)
class KeyClause:
    """A PRIMARY KEY or UNIQUE as written: its columns by key."""

    columns: tuple[str, ...]
    on_conflict: str
    name: str | None


@dataclass(slots=True)
class TableClauses:
    """What the text says about a table; foreign keys in the order of their definition."""

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

    Remembered, since one start or one diff reads the same tables several times; do not change it.
    """
    return _Reader(sql).read()


class _Reader:
    """A cursor over the tokens of one CREATE TABLE."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens: list[Token] = tokenize(sql)
        self.at = 0
        self.end = len(self.tokens)
        self.found = TableClauses()
        self.table = ""
        self.checks: list[tuple[list[Token], str | None]] = []
        self.generated: list[tuple[ColumnClauses, list[Token]]] = []

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
        """Return the keyword at the cursor, or nothing where a quoted name or another token stands."""
        position = self.at + ahead
        if position < self.end:
            token = self.tokens[position]
            if token[0] == "word":
                return token[1]
        return ""

    def skip(self, *words: str) -> bool:
        """Step over these words if they come next."""
        if all(self.word(ahead) == word for ahead, word in enumerate(words)):
            self.at += len(words)
            return True
        return False

    def name(self) -> str:
        """Step over a name and return it as written, without quotes."""
        _, _, start, end = self.tokens[self.at]
        self.at += 1
        return unquote(self.sql[start:end])

    def group(self) -> list[Token]:
        """Step over a parenthesised group and return the tokens inside."""
        opening = self.at
        self.at = closing(self.tokens, opening) + 1
        return self.tokens[opening + 1 : self.at - 1]

    def expression(self, inside: list[Token]) -> Sql:
        """Return an expression; only after the last column, since it may name any of them."""
        columns = {*self.found.columns, "rowid", "oid", "_rowid_"}
        read = meant(inside, self.sql, self.table, columns)
        return Sql(normal(read), self.sql[inside[0][2] : inside[-1][3]])

    def conflict(self) -> str:
        if self.skip("on", "conflict"):
            self.at += 1
            return self.tokens[self.at - 1][1]
        return "abort"

    def column(self) -> None:
        start = self.tokens[self.at][2]
        clauses = ColumnClauses("")
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
        """Read one constraint, of a column or (None) of the table."""
        name = self.name() if self.skip("constraint") else None
        word = self.word()
        if name is not None and word not in _NAMED:
            return  # a name before nothing, which SQLite ignores
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
        """Read what only columns have, after its first word."""
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
