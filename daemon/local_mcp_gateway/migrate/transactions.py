"""Files that bring their own transaction: recognised, and run inside ours without it.

Real folders hold files wrapped in `BEGIN; … COMMIT;`, and files that step out of the tool's own
transaction to switch foreign keys: `COMMIT; PRAGMA foreign_keys=OFF; BEGIN; … COMMIT; PRAGMA
foreign_keys=ON; BEGIN;`. In both, what stands around the statements is what the guard does anyway:
one transaction, foreign keys off before it. Anything else (a lone COMMIT, SAVEPOINT, ROLLBACK) is left
in place for the authorizer to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from local_mcp_gateway.migrate.tokens import first_words

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.statements import Statement

# B begin, C commit, P the switch of foreign keys, X anything else.
_BALANCED = re.compile(r"(?:[XP]|B[XP]*C|CP*B)*")
_LETTERS = {"BEGIN": "B", "COMMIT": "C", "END": "C"}
_ENDINGS = ("COMMIT", "END")


def without_own_transaction(statements: Iterable[Statement]) -> Sequence[Statement]:
    """Return the statements to run: all, or all but a balanced BEGIN and COMMIT."""
    found = list(statements)
    if not any(statement.text[:6].upper().startswith(_ENDINGS) for statement in found):
        return found
    letters = [_LETTERS.get(_first_word(statement.text), "X") for statement in found]
    for at, statement in enumerate(found):
        if letters[at] == "X" and first_words(statement.text, 2) == ("PRAGMA", "FOREIGN_KEYS"):
            letters[at] = "P"
    if _BALANCED.fullmatch("".join(letters)) is None:
        return found
    return [
        statement for statement, letter in zip(found, letters, strict=True) if letter not in "BC"
    ]


def _first_word(sql: str) -> str:
    """Return the first word in capitals; a statement starts at its first token."""
    head = sql[:8].upper()
    for word in _LETTERS:
        if head.startswith(word) and not (head[len(word) : len(word) + 1].isalnum()):
            return word
    return ""
