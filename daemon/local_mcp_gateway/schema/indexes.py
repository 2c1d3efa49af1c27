"""Indexes and keys: what PRAGMA index_xinfo says, and the text for expressions and WHERE."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.model import Index, Part, Sql
from local_mcp_gateway.schema.tokens import Token, closing, fold, meant, normal, tokenize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local_mcp_gateway.schema.model import Table

_ROWID = -1
_EXPRESSION = -2
"""`cid` in index_xinfo, where it is no column."""


def read_part(row: Sequence[object], expression: Sql | None = None) -> Part:
    """Return one column or expression of a key, from its row of index_xinfo."""
    cid, column, descending, collation = row[4:8]
    is_column = cid != _EXPRESSION
    if expression is None or is_column:
        expression = _column_name("rowid" if cid == _ROWID else str(column))
    return Part(expression, bool(descending), _folded(str(collation)), is_column)


def read_index(name: str, table: Table, sql: str, rows: Sequence[Sequence[object]]) -> Index:
    """Return an index that somebody created, from its text and its rows of index_xinfo.

    The text is only looked into for expressions and WHERE: most indexes have neither.
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
    """Return the parts of an index as written, and what stands after WHERE."""
    tokens = tokenize(sql)
    opening = next(at for at, token in enumerate(tokens) if token[1] == "(")
    end = closing(tokens, opening)
    columns = {*table.columns, "rowid", "oid", "_rowid_"}
    parts = _expressions(sql, meant(tokens[opening + 1 : end], sql, table.key, columns))
    where = meant(tokens[end + 2 :], sql, table.key, columns)
    if not where:
        return parts, None
    return parts, Sql(normal(where), sql[where[0][2] : where[-1][3]])


def _expressions(sql: str, tokens: Sequence[Token]) -> list[Sql]:
    """Split the list of an index at its commas; order and collation are left to the PRAGMA."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token[1] == "(") - (token[1] == ")")
        if token[1] == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [_expression(sql, part) for part in parts]


def _expression(sql: str, tokens: list[Token]) -> Sql:
    if tokens[-1][0] == "word" and tokens[-1][1] in ("asc", "desc") and len(tokens) > 1:
        tokens = tokens[:-1]
    if len(tokens) > 2 and tokens[-2][0] == "word" and tokens[-2][1] == "collate":
        tokens = tokens[:-2]
    return Sql(normal(tokens), sql[tokens[0][2] : tokens[-1][3]])
