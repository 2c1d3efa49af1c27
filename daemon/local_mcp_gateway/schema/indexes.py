"""Indexes and keys: what PRAGMA index_xinfo says, and the text for expressions and WHERE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.schema.model import Index, Part, Sql
from local_mcp_gateway.schema.tokens import Token, closing, fold, normal, tokenize, unqualified

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_part(row: Sequence[object], expression: Sql | None = None) -> Part:
    """Return one column or expression of a key, from its row of index_xinfo."""
    _, _, _, _, cid, column, descending, collation = row
    is_column = cid != -2
    if expression is None or is_column:
        text = "rowid" if cid == -1 else str(column)
        expression = Sql(fold(text), text)
    return Part(expression, bool(descending), fold(str(collation)), is_column)


def read_index(name: str, table: str, sql: str, rows: Sequence[Sequence[object]]) -> Index:
    """Return an index that somebody created, from its text and its rows of index_xinfo."""
    mine = [row for row in rows if row[1] == name]
    tokens = tokenize(sql)
    words = [token[1] if token[0] == "word" else "" for token in tokens]
    opening = next(at for at, token in enumerate(tokens) if token[1] == "(")
    end = closing(tokens, opening)
    where = tokens[end + 2 :] if "where" in words[end:] else []
    expressions = _expressions(sql, unqualified(tokens[opening + 1 : end], fold(table)))
    return Index(
        key=fold(name),
        name=name,
        table=fold(table),
        parts=tuple(read_part(row, text) for row, text in zip(mine, expressions, strict=True)),
        unique=bool(mine[0][2]),
        where=Sql(normal(unqualified(where, fold(table))), sql[where[0][2] : where[-1][3]])
        if where
        else None,
        sql=sql,
    )


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
