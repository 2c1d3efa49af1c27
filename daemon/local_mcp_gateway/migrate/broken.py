"""Find what SQLite accepts but cannot run: views, triggers, virtual tables and foreign keys.

SQLite stores the text of a view or trigger unchecked, and keeps a foreign key to a key that does not
exist. A full-text table over another one reads the names in its own text, which no RENAME carries along.
A wrong name shows only when it is used, or when an ALTER of any table fails on it; in the columns of an
`UPDATE OF`, never. So each is compiled (EXPLAIN runs nothing). A function, module or tokenizer that only
the application has is not an error.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.migrate.verify import Object, read_objects
from local_mcp_gateway.sql import fold, quote, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from local_mcp_gateway.schema import Code

_ELSEWHERE = (
    "no such function",
    "no such module",
    "no such collation",
    "no such tokenizer",
    "unknown tokenizer",
    "vtable constructor failed",
)
_ROWIDS = ("rowid", "_rowid_", "oid")
_EVENTS = frozenset({"insert", "update", "delete"})
_PARENTS = """SELECT DISTINCT m.name, printf('"%w"', m.name), k."table", lower(k."table") FROM sqlite_schema AS m
    JOIN pragma_foreign_key_list(m.name) AS k WHERE m.type = 'table' ORDER BY m.rowid"""


class Broken(NamedTuple):
    """Something that SQLite accepts but cannot run."""

    kind: str
    """view, trigger, virtual table or foreign key"""
    name: str
    """Its own; of a foreign key the child."""
    table: str
    """The trigger's table, the child; else its own name."""
    event: str
    """The trigger's event, empty if it never runs; the parent of a foreign key; else empty."""
    error: str

    @property
    def sentence(self) -> str:
        """Describe it, without a full stop."""
        match self.kind:
            case "view" | "virtual table":
                return f"The {self.kind} {quote(self.name)} cannot be read: {self.error}"
            case "trigger" if not self.event:
                return f"The trigger {quote(self.name)} of {quote(self.table)} never runs: {self.error}"
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


def find_broken(connection: sqlite3.Connection) -> tuple[Broken, ...]:
    """Compile everything; return what cannot run, the causes first.

    Foreign keys count whether or not they are enforced here. Reads the schema only, no row.
    """
    objects = read_objects(connection)
    found = [*_views(connection, objects), *_never_run(connection, objects)]
    found += _triggers(connection, objects)
    found += _virtual_tables(connection, objects)
    found += _foreign_keys(connection, objects)
    return tuple(found)


def event_of(trigger: str) -> str:
    """Return the trigger's event: insert, update or delete."""
    words = (token.text.lower() for token in tokens(trigger) if token.kind == "word")
    return next((word for word in words if word in _EVENTS), "delete")


def _watched(trigger: str) -> list[str]:
    """Return the columns of `UPDATE OF …`, folded; empty for a trigger on every update."""
    found = list(tokens(trigger))
    words = [token.upper for token in found]
    event = next(at for at, word in enumerate(words) if word in ("INSERT", "UPDATE", "DELETE"))
    if words[event + 1] != "OF":
        return []
    named = found[event + 2 : words.index("ON", event)]
    return [fold(one.identifier) for one in named if one.text != ","]


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


def _never_run(connection: sqlite3.Connection, objects: Sequence[Object]) -> Iterator[Broken]:
    """Find triggers on updates of columns that their table does not have: SQLite accepts any name there."""
    for trigger in objects:
        if trigger.kind != "trigger" or not (watched := _watched(trigger.sql)):
            continue
        with suppress(sqlite3.Error):  # a view that cannot be read
            columns = {
                fold(name)
                for (name,) in connection.execute(
                    "SELECT name FROM pragma_table_xinfo(?)", (trigger.table,)
                )
            }
            if columns and columns.union(_ROWIDS).isdisjoint(watched):
                named = " or ".join(map(quote, watched))
                error = f"there is no column {named}"
                yield Broken("trigger", trigger.name, trigger.table, "", error)


def _virtual_tables(connection: sqlite3.Connection, objects: Sequence[Object]) -> Iterator[Broken]:
    """Find full-text tables whose content, and lists of terms whose index, is not there."""
    virtual = [one for one in objects if one.is_virtual]
    if not virtual:
        return
    from local_mcp_gateway.schema import read_code  # most databases have none

    tables = {fold(one.name) for one in objects if one.kind == "table"}
    for one in virtual:
        code = read_code(one.name, one.sql)
        error = None
        if code.listed is not None and code.listed not in tables:
            error = f"there is no table {code.listed}"
        elif code.content is not None:
            error = _error(connection, _reading(connection, one.name, code))
        if error is not None:
            yield Broken("virtual table", one.name, one.name, "", error)


def _reading(connection: sqlite3.Connection, name: str, code: Code) -> str:
    """Return the query by which a full-text table reads the table that it is over."""
    content = quote(code.content or "")
    read = [quote(code.content_rowid or "rowid")]
    with suppress(sqlite3.Error):  # its module or its tokenizer is not available
        read += [
            quote(column)
            for (column,) in connection.execute(
                "SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", (name,)
            )
        ]
    return f"SELECT {', '.join(f'{content}.{one}' for one in read)} FROM {content}"


def _foreign_keys(connection: sqlite3.Connection, objects: Sequence[Object]) -> Iterator[Broken]:
    tables = {fold(one.name) for one in objects if one.kind == "table"}
    seen: set[str] = set()
    for child, quoted, parent, folded in connection.execute(_PARENTS).fetchall():
        if folded not in tables:
            yield Broken("foreign key", child, child, parent, f"there is no table {parent}")
        elif child not in seen:
            seen.add(child)
            error = _error(connection, f"PRAGMA foreign_key_check({quoted})")
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
