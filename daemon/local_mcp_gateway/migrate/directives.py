"""What a migration asks of the guard, in comments before its first statement.

-- guard: no-transaction                    VACUUM, journal_mode, page_size, auto_vacuum only
-- guard: foreign-keys=on                   its DELETEs and UPDATEs run the actions of foreign keys
-- guard: accept deletes_data               a hazard by its name, looked at and accepted
-- guard: accept double_quoted_strings
"""

from __future__ import annotations

import re
from functools import lru_cache

from local_mcp_gateway.frozen import frozen

# Compiled when a file asks for something: most do not, and every command would pay for it.
_LINE = r"--[ \t]*guard:[ \t]*([^\n]*)"
_HEAD = r"(?:[ \t\n\f\r\ufeff]+|--[^\n]*|/\*.*?(?:\*/|\Z))*"


@frozen
class Directives:
    """The requests of one migration."""

    no_transaction: bool = False
    foreign_keys: bool = False
    accept: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    """Requests that nobody understands: refused when the migration is to run, never ignored."""


NONE = Directives()


@lru_cache(maxsize=4)  # asked for by each statement of a file
def read_directives(sql: str) -> Directives:
    """Read the requests from the comments at the head of a file."""
    if "guard:" not in sql.lower():
        return NONE
    head = re.match(_HEAD, sql, re.DOTALL)
    no_transaction = foreign_keys = False
    accept: set[str] = set()
    unknown: list[str] = []
    for match in re.finditer(_LINE, head.group() if head else "", re.IGNORECASE):
        request = match.group(1).strip()
        words = request.lower().replace(",", " ").split()
        if words in (["no-transaction"], ["no_transaction"]):
            no_transaction = True
        elif "".join(words) in ("foreign-keys=on", "foreign_keys=on"):
            foreign_keys = True
        elif words[:1] == ["accept"] and len(words) > 1:
            accept.update(word.replace("-", "_") for word in words[1:])
        else:
            unknown.append(request)
    return Directives(no_transaction, foreign_keys, frozenset(accept), tuple(unknown))
