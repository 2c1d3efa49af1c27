"""What a declared type means to SQLite (datatype3 §3.1, stricttables §2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Column

_WHOLE = re.compile(r"[+-]?\d+")
_STRICT_LITERALS = {
    "int": _WHOLE,
    "integer": _WHOLE,
    "real": re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?", re.IGNORECASE),
    "text": re.compile(r"'.*'", re.DOTALL),
    "blob": re.compile(r"x'.*'", re.IGNORECASE),
}


def affinity(declared: str) -> str:
    """Return the affinity of a declared type (lower case), by the five rules in their order."""
    if "int" in declared:
        return "integer"
    if any(part in declared for part in ("char", "clob", "text")):
        return "text"
    if "blob" in declared or not declared:
        return "blob"
    if any(part in declared for part in ("real", "floa", "doub")):
        return "real"
    return "numeric"


def default_fits(column: Column) -> bool:
    """Tell whether a default is plainly of the column's type, as a STRICT table insists; NULL always is."""
    if column.default is None or column.default.normal == "null":
        return True
    literal = _STRICT_LITERALS.get(column.type.normal)
    return literal is None or literal.fullmatch(column.default.text) is not None
