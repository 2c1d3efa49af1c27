"""Whether the views and triggers of a schema can run: SQLite takes their text unread.

A wrong name in one shows when it is used, or when an ALTER of any table trips over it. So each is
compiled (EXPLAIN runs nothing) on a copy in memory. A function or module that only the application
has is no mistake.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema.plan import schema_copy
from local_mcp_gateway.schema.tokens import quote, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.schema.model import Code, Schema

_ELSEWHERE = ("no such function", "no such module", "no such collation")


def require_sound(schema: Schema) -> None:
    """Raise SchemaProblem for the first view or trigger that names what is not there."""
    if not schema.views and not schema.triggers:
        return
    with closing(schema_copy(schema, may_lack=schema.virtual_tables)) as connection:
        for what, statement in _uses(connection, schema):
            try:
                connection.execute(f"EXPLAIN {statement}")
            except sqlite3.Error as error:
                if not str(error).startswith(_ELSEWHERE):
                    raise SchemaProblem(
                        f"{what} cannot run: {error}.",
                        hint="SQLite says so only when it is used; correct it, nothing was written.",
                    ) from None


def _uses(connection: sqlite3.Connection, schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield a statement that compiles each view, and one for each event that has triggers."""
    for view in schema.views.values():
        yield f"The view {view.name}", f"SELECT * FROM {quote(view.name)}"
    for event, table in sorted({(_event(t), t.table or "") for t in schema.triggers.values()}):
        names = [t.name for t in schema.triggers.values() if (_event(t), t.table) == (event, table)]
        yield f"The trigger {' or '.join(names)}", _firing(connection, event, quote(table))


def _event(trigger: Code) -> str:
    words = [token[1] for token in tokenize(trigger.sql)]
    return next((word for word in words if word in {"insert", "update", "delete"}), "delete")


def _firing(connection: sqlite3.Connection, event: str, table: str) -> str:
    if event == "delete":
        return f"DELETE FROM {table}"
    columns = [
        quote(name)
        for _, name, _, _, _, _, hidden in connection.execute(f"PRAGMA table_xinfo({table})")
        if not hidden
    ]
    if event == "insert":
        return f"INSERT INTO {table} ({columns[0]}) VALUES (NULL)"
    return f"UPDATE {table} SET " + ", ".join(f"{column} = {column}" for column in columns)
