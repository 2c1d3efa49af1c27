"""Parse the `-- guard:` directives at the head of a migration file.

-- guard: no-transaction                    VACUUM, journal_mode, page_size, auto_vacuum only
-- guard: foreign-keys=on                   its DELETEs and UPDATEs run the actions of foreign keys
-- guard: accept deletes_data               a hazard by its name, reviewed and accepted
-- guard: accept double_quoted_strings
-- guard: accept drops_trigger NAME         of one object only; so are the others of `NAMED`
"""

from __future__ import annotations

import re
from functools import lru_cache

from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.sql import fold, tokens

NAMED = frozenset(
    {
        "drops_trigger",
        "drops_index",
        "loses_rows",
        "rekeys_rows",
        "changes_values",
        "cannot_run",
    }
)
"""What can be accepted only for one object, which the line names."""

# Compiled on demand: most files have no directives, and every command would pay for it.
_LINE = r"--[ \t]*guard:[ \t]*([^\n]*)"
_HEAD = r"(?:[ \t\n\f\r\ufeff]+|--[^\n]*|/\*.*?(?:\*/|\Z))*"


@frozen
class Directives:
    """The directives of one migration."""

    no_transaction: bool = False
    foreign_keys: bool = False
    accept: frozenset[str] = frozenset()
    """Hazards by name; those of `NAMED` as `accepted` writes them."""
    unknown: tuple[str, ...] = ()
    """Unknown directives: refused when the migration is to run, never ignored."""


NONE = Directives()


def accepted(kind: str, name: str) -> str:
    """Return the entry in `Directives.accept` by which a file accepts this of one object."""
    return f"{kind} {fold(name)}"


@lru_cache(maxsize=4)  # called for each statement of a file
def read_directives(sql: str) -> Directives:
    """Parse the directives in the comments at the head of a file."""
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
            kind = words[1].replace("-", "_")
            if kind not in NAMED:
                accept.update(word.replace("-", "_") for word in words[1:])
            elif names := _names(request):
                accept.update(accepted(kind, name) for name in names)
            else:
                unknown.append(request)
        else:
            unknown.append(request)
    return Directives(no_transaction, foreign_keys, frozenset(accept), tuple(unknown))


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
