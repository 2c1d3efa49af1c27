"""SQL as SQLite's tokenizer cuts it (tokenize.c), as far as the engine has to look into a statement.

Only what is asked is recognised: words, quoted names, strings, comments, single characters. Nothing
here parses; whether a statement is right is for SQLite to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

# In SQLite a quote is doubled to stand inside quotes, `[` ends at the first `]`, and a comment or
# string that is never closed reaches to the end of the text.
_GRAMMAR = r"""(?P<space>[ \t\n\f\r]+|--[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<string>[xX]?'[^']*(?:''[^']*)*(?:'|\Z))
      | (?P<double>"[^"]*(?:""[^"]*)*(?:"|\Z))
      | (?P<name>`[^`]*(?:``[^`]*)*(?:`|\Z) | \[[^\]]*(?:\]|\Z))
      | (?P<word>[A-Za-z_\x80-\U0010ffff$][\w$\x80-\U0010ffff]*)
      | (?P<number>[0-9][\w.]*)
      | (?P<sign>.)"""
_QUOTES = {'"': '"', "`": "`", "[": "]"}


class Token(NamedTuple):
    """One token that is not space or comment."""

    kind: str
    """string, double (a name in double quotes), name (in backticks or brackets), word, number, sign"""
    text: str
    start: int

    @property
    def identifier(self) -> str:
        """Return the name that this token means, without its quotes."""
        closing = _QUOTES.get(self.text[:1])
        if closing is None:
            return self.text
        inner = self.text[1:-1] if self.text.endswith(closing) else self.text[1:]
        return inner if closing == "]" else inner.replace(closing * 2, closing)

    @property
    def upper(self) -> str:
        """Return the text in capitals, to compare with keywords."""
        return self.text.upper()


@cache
def _pattern() -> re.Pattern[str]:
    """Compile at the first use: it costs milliseconds, and most starts look into no statement."""
    return re.compile(_GRAMMAR, re.DOTALL | re.VERBOSE)


def fold(name: str) -> str:
    """Return the form under which SQLite compares names: it folds ASCII letters only."""
    return name.encode().lower().decode()


def quoted(name: str) -> str:
    """Write a name so that SQLite reads it as that name."""
    return '"' + name.replace('"', '""') + '"'


def shown(name: str) -> str:
    """Write a name for people: in quotes only where it would not be read as one word."""
    return name if name.isidentifier() and name.isascii() else quoted(name)


def tokens(sql: str) -> Iterator[Token]:
    """Yield the tokens of one statement, in order."""
    for match in _pattern().finditer(sql):
        kind = match.lastgroup
        if kind != "space" and kind is not None:
            yield Token(kind, match.group(), match.start())


def first_words(sql: str, count: int) -> tuple[str, ...]:
    """Return the first tokens in capitals: enough to know what kind of statement it is."""
    found = []
    for token in tokens(sql):
        found.append(token.upper)
        if len(found) == count:
            break
    return tuple(found)


def dropped(sql: str) -> str | None:
    """Return the name in `DROP TABLE name`, else None."""
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


def renamed(sql: str) -> tuple[str, str] | None:
    """Return (old, new) of `ALTER TABLE old RENAME TO new`, else None."""
    if "RENAME" not in sql.upper():
        return None
    found = list(tokens(sql))
    words = [token.upper for token in found]
    if words[:2] != ["ALTER", "TABLE"]:
        return None
    at = 4 if words[3:4] == ["."] else 2
    if words[at + 1 : at + 3] != ["RENAME", "TO"] or len(found) < at + 4:
        return None
    return found[at].identifier, found[at + 3].identifier
