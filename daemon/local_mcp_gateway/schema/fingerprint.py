"""One short text for a whole schema: equal exactly where `compare` finds nothing."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.facts import facts

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Schema


def fingerprint(schema: Schema) -> str:
    """Return the sha256, in hex, of what the schema does (not of how it was written)."""
    lines = sorted(f"{kind}\0{name}\0{text}" for (kind, name), text in facts(schema).items())
    return sha256("\1".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
