"""Check whether views, triggers and foreign keys can still run.

SQLite stores the text of a view or trigger unchecked, and keeps a foreign key to a key that does not
exist. A wrong name shows only when it is used, or when an ALTER of any table fails on it. So each is
compiled (EXPLAIN runs nothing). A function, module or tokenizer that only the application has is no
error.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.sql import fold, quote, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ELSEWHERE = (
    "no such function",
    "no such module",
    "no such collation",
    "no such tokenizer",
    "unknown tokenizer",
    "vtable constructor failed",
)
_EVENTS = frozenset({"insert", "update", "delete"})
_OBJECTS = (
    "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"
)
_PARENTS = """SELECT DISTINCT m.name, k."table" FROM sqlite_schema AS m
    JOIN pragma_foreign_key_list(m.name) AS k WHERE m.type = 'table' ORDER BY m.rowid"""


class Object(NamedTuple):
    """A row of `sqlite_schema` that has SQL text."""

    kind: str
    """table, index, view or trigger"""
    name: str
    table: str
    """The table that an index or trigger is on; else its own name."""
    sql: str


class Broken(NamedTuple):
    """Something that SQLite accepts but cannot run."""

    kind: str
    """view, trigger or foreign key"""
    name: str
    """Of the view or the trigger; of a foreign key the child."""
    table: str
    """The view, the trigger's table, the child."""
    event: str
    """The trigger's event; the parent of a foreign key; empty for a view."""
    error: str

    @property
    def sentence(self) -> str:
        """Describe it, without a full stop."""
        match self.kind:
            case "view":
                return f"The view {quote(self.name)} cannot be read: {self.error}"
            case "trigger":
                done = {"insert": "INSERT into", "update": "UPDATE of", "delete": "DELETE from"}
                return (
                    f"The trigger {quote(self.name)} cannot run, so every {done[self.event]}"
                    f" {quote(self.table)} would fail: {self.error}"
                )
            case _:
                return (
                    f"The foreign key of {quote(self.table)} to {quote(self.event)} cannot work, so writes"
                    f" to both would fail: {self.error}"
                )


def read_objects(connection: sqlite3.Connection) -> tuple[Object, ...]:
    """Return every schema object with SQL text, in the order of creation; includes uncommitted changes."""
    return tuple(Object(*row) for row in connection.execute(_OBJECTS))


def find_broken(connection: sqlite3.Connection) -> tuple[Broken, ...]:
    """Compile every view, trigger and foreign key; return those that cannot run, the causes first.

    Foreign keys count whether or not they are enforced here. Reads the schema only, no row.
    """
    objects = read_objects(connection)
    found = [*_views(connection, objects), *_triggers(connection, objects)]
    found += _foreign_keys(connection, objects)
    return tuple(found)


def event_of(trigger: str) -> str:
    """Return the trigger's event: insert, update or delete."""
    words = (token.text.lower() for token in tokens(trigger) if token.kind == "word")
    return next((word for word in words if word in _EVENTS), "delete")


def _views(connection: sqlite3.Connection, objects: Sequence[Object]) -> Iterator[Broken]:
    for view in objects:
        if view.kind == "view":
            error = _error(connection, f"SELECT * FROM {quote(view.name)}")
            if error:
                yield Broken("view", view.name, view.name, "", error)


def _triggers(connection: sqlite3.Connection, objects: Sequence[Object]) -> list[Broken]:
    """Compile statements that fire the triggers; one that fails through another comes after that one."""
    on: dict[str, list[Object]] = {}
    for trigger in objects:
        if trigger.kind == "trigger":
            on.setdefault(fold(trigger.table), []).append(trigger)
    found: dict[bool, list[Broken]] = {True: [], False: []}
    for triggers in on.values():
        for event, statement in _firing(connection, triggers[0].table):
            error = _error(connection, statement)
            fired = [trigger for trigger in triggers if error and event_of(trigger.sql) == event]
            if error and fired:
                missing = fold(error.rpartition(" ")[2].rpartition(".")[2])
                guilty = [trigger for trigger in fired if missing in fold(trigger.sql)]
                name, table, _ = (guilty or fired)[0][1:]
                found[bool(guilty)].append(Broken("trigger", name, table, event, error))
    return found[True] + found[False]


def _firing(connection: sqlite3.Connection, table: str) -> Iterator[tuple[str, str]]:
    """Yield (event, statement) that fires every trigger of a table or view."""
    name = quote(table)
    yield "delete", f"DELETE FROM {name}"
    try:
        columns = [
            quote(column)
            for (column,) in connection.execute(
                "SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", (table,)
            )
        ]
    except sqlite3.Error:  # a view that cannot be read
        return
    if columns:
        yield "insert", f"INSERT INTO {name} ({columns[0]}) VALUES (NULL)"
        same = ", ".join(f"{column} = {column}" for column in columns)
        yield "update", f"UPDATE {name} SET {same}"


def _foreign_keys(connection: sqlite3.Connection, objects: Sequence[Object]) -> Iterator[Broken]:
    tables = {fold(one.name) for one in objects if one.kind == "table"}
    seen: set[str] = set()
    for child, parent in connection.execute(_PARENTS).fetchall():
        if fold(parent) not in tables:
            yield Broken("foreign key", child, child, parent, f"there is no table {parent}")
        elif child not in seen:
            seen.add(child)
            error = _error(connection, f"PRAGMA foreign_key_check({quote(child)})")
            if error:
                named = error.rpartition(' referencing "')[2].rstrip('"') or parent
                yield Broken("foreign key", child, child, named, _no_key(named))


def _no_key(parent: str) -> str:
    return f"what it names is neither the primary key nor a unique key of {parent}"


def _error(connection: sqlite3.Connection, statement: str) -> str | None:
    try:
        connection.execute(f"EXPLAIN {statement}")
    except sqlite3.Error as error:
        said = str(error)
        return None if said.startswith(_ELSEWHERE) else said
    return None


def copy_of(objects: Sequence[Object]) -> sqlite3.Connection:
    """Return a database in memory with these objects and no rows, as far as they can be created here.

    For comparisons only: an object whose module or function is not available is left out. The caller
    closes it.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for one in sorted(objects, key=lambda one: _ORDER[one.kind]):
        try:
            connection.execute(one.sql)
        except sqlite3.Error:  # SQLite's own table, a shadow table, or something unavailable here
            continue
    return connection


_ORDER: Mapping[str, int] = {"table": 0, "index": 1, "view": 2, "trigger": 3}
