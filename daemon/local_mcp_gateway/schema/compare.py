"""What is different between the schema that should be there and the one that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.facts import facts
from local_mcp_gateway.schema.tokens import quote

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Schema


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; `expected` is None for what should not be there, `found` for what is missing."""

    kind: str
    object: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        """Say it in one line."""
        thing = f"{self.kind.replace('_', ' ')} {self.object}"
        if self.found is None:
            return f"{thing} is missing: {self.expected}"
        if self.expected is None:
            return f"{thing} should not be there: {self.found}"
        return f"{thing} is `{self.found}` where `{self.expected}` is expected"


def compare(expected: Schema, found: Schema) -> tuple[Difference, ...]:
    """Return every difference; none when the two behave the same.

    A table that is missing or in excess is one difference, not one for each of its columns; its
    indexes and triggers are named, since they can be dropped one by one.
    """
    both = expected.tables.keys() & found.tables.keys()
    old = facts(
        replace(
            expected, tables={key: expected.tables[key] for key in expected.tables if key in both}
        )
    )
    new = facts(
        replace(found, tables={key: found.tables[key] for key in found.tables if key in both})
    )
    tables = [
        Difference("table", quote(table.name), _columns(expected, key), _columns(found, key))
        for key, table in {**expected.tables, **found.tables}.items()
        if key not in both
    ]
    return (
        *tables,
        *(
            Difference(kind, name, old.get((kind, name)), new.get((kind, name)))
            for kind, name in {**old, **new}
            if old.get((kind, name)) != new.get((kind, name))
        ),
    )


def _columns(schema: Schema, key: str) -> str | None:
    table = schema.tables.get(key)
    return (
        None if table is None else f"({', '.join(quote(c.name) for c in table.columns.values())})"
    )
