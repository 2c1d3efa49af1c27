"""Which migrations cannot fail on data, whatever the rows are: the only ones that `auto` leaves out.

Each statement is CREATE TABLE (not AS SELECT), CREATE VIEW or CREATE TRIGGER, or ALTER TABLE … ADD
COLUMN without a constraint or an expression. None of them reads a row that exists.
"""

from __future__ import annotations

from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.migrate.tokens import tokens

_CREATED = frozenset({"TABLE", "VIEW", "TRIGGER"})
_CONSTRAINING = frozenset(
    {"NOT", "CHECK", "GENERATED", "AS", "REFERENCES", "UNIQUE", "PRIMARY", "DEFAULT"}
)


def cannot_fail_on_data(sql: str) -> bool:
    """Tell whether every statement of a migration is one that no row can make fail."""
    return all(_is_harmless(statement.text) for statement in split(sql))


def _is_harmless(statement: str) -> bool:
    words = [token.upper for token in tokens(statement) if token.kind == "word"]
    if words[:1] == ["CREATE"]:
        kind = next((word for word in words[1:4] if word in _CREATED), None)
        return kind in ("VIEW", "TRIGGER") or (kind == "TABLE" and "SELECT" not in words)
    added = words[:2] == ["ALTER", "TABLE"] and "ADD" in words[2:5]
    return added and not _CONSTRAINING.intersection(words)
