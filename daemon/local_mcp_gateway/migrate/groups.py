"""Which pending migrations are one transaction: all, unless a file asks for something of its own.

`-- guard: no-transaction` runs outside of one, `-- guard: foreign-keys=on` needs a PRAGMA that works
only before BEGIN. Such a file ends the group before it; neighbours that ask for the same foreign keys
share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Migration


def first_group(pending: Sequence[Migration]) -> tuple[Migration, ...]:
    """Return the first migrations of a non-empty sequence that are committed together."""
    first = pending[0].directives
    if first.no_transaction:
        return (pending[0],)
    end = 1
    for migration in pending[1:]:
        directives = migration.directives
        if directives.no_transaction or directives.foreign_keys != first.foreign_keys:
            break
        end += 1
    return tuple(pending[:end])


def wants_foreign_keys(group: Sequence[Migration]) -> bool:
    """Tell whether the group runs with foreign keys enforced; to be set before its BEGIN."""
    return bool(group) and group[0].directives.foreign_keys
