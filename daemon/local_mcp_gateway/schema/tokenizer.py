"""SQL as tokens: enough to compare two ways of writing the same thing, and no parser.

Everything that comes here was accepted by SQLite first, so nothing is validated. A token is the
tuple (kind, normal, start, end): `normal` is equal for every spelling that SQLite treats alike
(case of keywords and names, kind of quotes, spaces, comments), start and end are offsets into the
text as written. Tuples and one regular expression, because this runs at every start.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

Token = tuple[str, str, int, int]

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\n\f\r]+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<blob>[xX]'[0-9a-fA-F]*')
    |(?P<string>'[^']*(?:''[^']*)*')
    |(?P<name>"[^"]*(?:""[^"]*)*"|`[^`]*(?:``[^`]*)*`|\[[^\]]*\])
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
    |(?P<other>->>|->|\|\||<<|>>|<=|>=|<>|!=|==|.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,  # to SQLite whatever is not ASCII is a letter
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE | re.ASCII)
_SAME = {"==": "=", "<>": "!="}

RESERVED = frozenset(
    """abort action add after all alter always analyze and as asc attach autoincrement before begin
    between by cascade case cast check collate column commit conflict constraint create cross current
    current_date current_time current_timestamp database default deferrable deferred delete desc detach
    distinct do drop each else end escape except exclude exclusive exists explain fail filter first
    following for foreign from full generated glob group groups having if ignore immediate in index
    indexed initially inner insert instead intersect into is isnull join key last left like limit match
    materialized natural no not nothing notnull null nulls of offset on or order others outer over
    partition plan pragma preceding primary query raise range recursive references regexp reindex release
    rename replace restrict returning right rollback row rows savepoint select set table temp temporary
    then ties to transaction trigger true false unbounded union unique update using vacuum values view
    virtual when where window with without""".split()  # noqa: SIM905  a list of 140 strings is no easier to read
)
"""Words that are quoted where they are names: SQLite's keywords, reserved or not, and true and false."""


def fold(name: str) -> str:
    """Return the form under which SQLite compares names: it folds ASCII letters only."""
    return name.lower() if name.isascii() else name.translate(_ASCII_LOWER)


_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def unquote(name: str) -> str:
    """Take the quotes of any kind off a name or string as written."""
    mark = name[:1]
    if mark in ('"', "`", "'"):
        return name[1:-1].replace(mark * 2, mark)
    return name[1:-1] if mark == "[" else name


def quote(name: str) -> str:
    """Write a name so that SQLite reads it as that name: bare where it can stand bare."""
    if _PLAIN.fullmatch(name) and name.lower() not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write text as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def tokenize(sql: str) -> list[Token]:
    """Return the tokens of `sql` without spaces and comments."""
    tokens: list[Token] = []
    add = tokens.append
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind == "skip" or kind is None:
            continue
        text = match.group()
        if kind == "word":
            text = text.lower() if text.isascii() else fold(text)
        elif kind == "name":
            text = quote(fold(unquote(text)))
        elif kind == "other":
            text = _SAME.get(text, text)
        elif kind != "string":
            text = text.lower()
        add((kind, text, match.start(), match.end()))
    return tokens


def normal(tokens: Sequence[Token]) -> str:
    """Join tokens to the text under which two spellings are equal, without enclosing parentheses."""
    first, last = 0, len(tokens)
    while last - first >= 2 and tokens[first][1] == "(" and closing(tokens, first) == last - 1:
        first, last = first + 1, last - 1
    return " ".join([token[1] for token in tokens[first:last]])


def meant(tokens: Sequence[Token], sql: str, table: str, columns: Container[str]) -> list[Token]:
    """Return the tokens of an expression over one table as SQLite reads them.

    The table's own name before a column says nothing. And `"x"` is a string where no column has that
    name: the misfeature that Debian's SQLite still has (sqlite.org/quirks §8).
    """
    mark = quote(table)
    found: list[Token] = []
    for at, token in enumerate(tokens):
        kind, text, start, end = token
        if text == mark and at + 1 < len(tokens) and tokens[at + 1][1] == ".":
            continue
        if text == "." and at > 0 and tokens[at - 1][1] == mark:
            continue
        if kind == "name" and sql[start] == '"' and fold(unquote(sql[start:end])) not in columns:
            token = ("string", literal(unquote(sql[start:end])), start, end)  # noqa: PLW2901
        found.append(token)
    return found


def closing(tokens: Sequence[Token], opening: int) -> int:
    """Return the position of the parenthesis that closes the one at `opening`; the end if none does."""
    depth = 0
    for position in range(opening, len(tokens)):
        text = tokens[position][1]
        if text == "(":
            depth += 1
        elif text == ")":
            depth -= 1
            if depth == 0:
                return position
    return len(tokens)
