"""Tokenize and quote SQL by the rules of SQLite's own tokenizer (tokenize.c).

Nothing here parses or validates: SQLite decides whether a statement is valid. `tokens` splits any text;
`normal_tokens` splits text that SQLite has accepted and gives equivalent spellings the same form.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

# A quote inside quotes is doubled, `[` ends at the first `]`, and a comment or string that is
# never closed extends to the end of the text. SQLite treats every non-ASCII character as a letter.
_GRAMMAR = r"""(?P<space>[ \t\n\f\r]+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<blob>[xX]'[^']*(?:'|\Z))
    |(?P<string>'[^']*(?:''[^']*)*(?:'|\Z))
    |(?P<double>"[^"]*(?:""[^"]*)*(?:"|\Z))
    |(?P<name>`[^`]*(?:``[^`]*)*(?:`|\Z)|\[[^\]]*(?:\]|\Z))
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[A-Za-z_\x80-\U0010ffff$][\w$\x80-\U0010ffff]*)
    |(?P<sign>->>|->|\|\||<<|>>|<=|>=|<>|!=|==|.)"""
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE | re.ASCII)
_QUOTES = {'"': '"', "`": "`", "[": "]", "'": "'"}
_SAME = {"==": "=", "<>": "!="}
_MOST_ARGUMENTS = 100
"""Of a call of a function; SQLite takes 127 at least."""
_COPYING = ("INSERT", "REPLACE", "CREATE", "WITH")

DESCRIBING_PRAGMAS = frozenset(
    {
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
        "foreign_key_check",
        "database_list",
        "collation_list",
        "function_list",
    }
)
"""PRAGMAs that describe a database and change nothing, whatever their argument."""

NormalToken = tuple[str, str, int, int]
"""(kind, normal text, start, end): a plain tuple, because a start makes thousands of them."""

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


class Token(NamedTuple):
    """One token, neither white space nor a comment."""

    kind: str
    """blob, string, double (a name in double quotes), name (in backticks or brackets), word, number, sign"""
    text: str
    start: int

    @property
    def identifier(self) -> str:
        """Return the name that this token denotes, without its quotes."""
        return unquote(self.text)

    @property
    def upper(self) -> str:
        """Return the text in upper case, to compare with keywords."""
        return self.text.upper()


@cache
def _pattern() -> re.Pattern[str]:
    """Compile on first use: it takes milliseconds, and most starts tokenize nothing."""
    return re.compile(_GRAMMAR, re.DOTALL | re.VERBOSE | re.ASCII)


def fold(name: str) -> str:
    """Return the form under which SQLite compares names: it folds ASCII letters only."""
    return name.lower() if name.isascii() else name.encode().lower().decode()


def fold_all(names: Iterable[str]) -> list[str]:
    """Return each name as `fold` does."""
    return [fold(name) for name in names]


def unquote(name: str) -> str:
    """Remove the quotes of any kind from a name or string; the closing one may be missing."""
    closing_quote = _QUOTES.get(name[:1])
    if closing_quote is None:
        return name
    inner = name[1:-1] if len(name) > 1 and name.endswith(closing_quote) else name[1:]
    return inner if closing_quote == "]" else inner.replace(closing_quote * 2, closing_quote)


def quote(name: str) -> str:
    """Quote a name for SQL, only where it needs quotes."""
    if _PLAIN.fullmatch(name) and name.lower() not in RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def quote_all(names: Iterable[str]) -> list[str]:
    """Quote each name as `quote` does."""
    return [quote(name) for name in names]


def literal(text: str) -> str:
    """Quote text as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def spelled(text: str, safe: Callable[[str], bool]) -> str:
    """Return text as an SQL expression, each character that is not `safe` by its number.

    The bytes of a text, cast, would be another text in a database of another encoding.
    """
    parts: list[str] = []
    for is_safe, run in itertools.groupby(text, safe):
        piece = "".join(run)
        parts += [literal(piece)] if is_safe else map(_by_number, _cut(piece))
    return joined(parts or ["''"])


def joined(parts: list[str]) -> str:
    """Concatenate texts that are SQL expressions, with as little nesting as SQLite's limit asks for."""
    while len(parts) > 1:
        pairs = itertools.zip_longest(parts[::2], parts[1::2])
        parts = [f"({one} || {other})" if other else one for one, other in pairs]
    return parts[0]


def _cut(text: str) -> Iterator[str]:
    return (text[at : at + _MOST_ARGUMENTS] for at in range(0, len(text), _MOST_ARGUMENTS))


def _by_number(text: str) -> str:
    return f"char({', '.join(str(ord(character)) for character in text)})"


def tokens(sql: str) -> Iterator[Token]:
    """Yield the tokens of one statement, in order."""
    for match in _pattern().finditer(sql):
        kind = match.lastgroup
        if kind != "space" and kind is not None:
            yield Token(kind, match.group(), match.start())


def normal_tokens(sql: str) -> list[NormalToken]:
    """Return the tokens of SQL that SQLite has accepted, each in its normal form.

    The normal form is the same for every spelling that SQLite treats alike: the case of keywords and
    names, the kind of quotes, spaces, comments.
    """
    found: list[NormalToken] = []
    add = found.append
    for match in _pattern().finditer(sql):
        kind = match.lastgroup
        if kind == "space" or kind is None:
            continue
        text = match.group()
        if kind == "word":
            text = text.lower() if text.isascii() else fold(text)
        elif kind in {"name", "double"}:
            kind, text = "name", quote(fold(unquote(text)))
        elif kind == "sign":
            text = _SAME.get(text, text)
        elif kind != "string":
            text = text.lower()
        add((kind, text, match.start(), match.end()))
    return found


def normal(tokens: Sequence[NormalToken]) -> str:
    """Join tokens to a text that is the same for equivalent spellings, without enclosing parentheses."""
    first, last = 0, len(tokens)
    while last - first >= 2 and tokens[first][1] == "(" and closing(tokens, first) == last - 1:
        first, last = first + 1, last - 1
    return " ".join([token[1] for token in tokens[first:last]])


def as_sqlite_reads(
    tokens: Sequence[NormalToken], sql: str, table: str, columns: Container[str]
) -> list[NormalToken]:
    """Return the tokens of an expression over one table as SQLite reads them.

    The table's own name before a column is dropped. `"x"` is a string where no column has that name: a
    misfeature that Debian's SQLite still has (sqlite.org/quirks §8).
    """
    mark = quote(table)
    found: list[NormalToken] = []
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


def closing(tokens: Sequence[NormalToken], opening: int) -> int:
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


def first_words(sql: str, count: int) -> tuple[str, ...]:
    """Return the first tokens in upper case: enough to identify the kind of statement."""
    found = []
    for token in tokens(sql):
        found.append(token.upper)
        if len(found) == count:
            break
    return tuple(found)


def dropped(sql: str) -> str | None:
    """Return the table's name in `DROP TABLE name`, else None."""
    if sql[:4].upper() != "DROP":
        return None
    found = list(tokens(sql))
    words = [token.upper for token in found]
    if words[:2] != ["DROP", "TABLE"]:
        return None
    at = 4 if words[2:4] == ["IF", "EXISTS"] else 2
    if words[at + 1 : at + 2] == ["."]:
        at += 2
    return found[at].identifier if len(found) > at else None


class Copy(NamedTuple):
    """A statement that fills a table with rows that it reads."""

    table: str
    columns: tuple[str, ...] | None
    """Those that it names; None: it fills all of them."""
    creates: bool
    """It is CREATE TABLE … AS."""


def copied(sql: str) -> Copy | None:
    """Read `INSERT INTO table (columns) SELECT … FROM …` or `CREATE TABLE table AS SELECT … FROM …`."""
    if not sql[:7].upper().startswith(_COPYING) or "FROM" not in sql.upper():
        return None
    creates = sql[:6].upper() == "CREATE"
    depth, words = 0, tokens(sql)
    for token in words:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.upper == ("TABLE" if creates else "INTO"):
            break
    table = None
    for token in words:
        if token.upper in ("IF", "NOT", "EXISTS"):
            continue
        if token.text == "." or table is None:
            table = None if token.text == "." else token.identifier
        elif token.text == "(" and not creates:
            inside = itertools.takewhile(lambda one: one.text != ")", words)
            return Copy(table, tuple(one.identifier for one in inside if one.text != ","), False)
        elif token.upper == "AS" and not creates:
            next(words, None)
        else:
            creating = creates and token.upper == "AS"
            return Copy(table, None, creating) if creating or not creates else None
    return None


def renamed(sql: str) -> tuple[str, str] | None:
    """Return (old, new) of `ALTER TABLE old RENAME TO new`, else None; None for `temp.old` as well."""
    if "RENAME" not in sql.upper():
        return None
    found = list(tokens(sql))
    words = [token.upper for token in found]
    if words[:2] != ["ALTER", "TABLE"]:
        return None
    at = 4 if words[3:4] == ["."] else 2
    if at == 4 and words[2] == "TEMP":
        return None
    if words[at + 1 : at + 3] != ["RENAME", "TO"] or len(found) < at + 4:
        return None
    return found[at].identifier, found[at + 3].identifier


def altered_column(sql: str) -> tuple[str, str, str | None] | None:
    """Return (table, old, new) of `ALTER TABLE table RENAME COLUMN old TO new`; new is None of a DROP COLUMN."""
    if sql[:5].upper() != "ALTER":
        return None
    found = list(tokens(sql))
    words = [token.upper for token in found]
    at = 4 if words[3:4] == ["."] else 2
    what, column = words[at + 1 : at + 3] or ("", ""), at + 2
    column += what[-1] == "COLUMN"
    if words[:2] != ["ALTER", "TABLE"] or len(found) <= column:
        return None
    table, old = found[at].identifier, found[column].identifier
    if what[0] == "DROP":
        return table, old, None
    if what[0] != "RENAME" or what[-1] == "TO" or words[column + 1 : column + 2] != ["TO"]:
        return None
    return table, old, found[column + 2].identifier
