"""List a database's tables with their columns, keys and relations, read from SQLite itself.

Everything here is synchronous and takes a connection that only reads. Names are whatever SQLite allows:
quotes, emoji, reserved words, nothing at all.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.database import Connection, Error
from local_mcp_gateway.log import is_secret_key
from local_mcp_gateway.migrate import Ledger
from local_mcp_gateway.schema import is_engines
from local_mcp_gateway.schema import read_table as read_clauses
from local_mcp_gateway.sql import fold, normal_tokens, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from local_mcp_gateway.studio.visit import Powers

MOST_COUNTED: Final = 100_000
"""Rows are counted up to here, and then said to be more."""
COUNTING_S: Final = 0.25
"""How long the counts of a list of tables may take together; the rest are not counted."""
MOST_BESIDE: Final = 200
"""How many tables are listed next to one of them."""
READING_S: Final = 3.0
"""How long one page may read; then SQLite is interrupted."""
STEPS: Final = 20_000
"""How many steps of SQLite's virtual machine run between two checks of the clock."""
ROWIDS: Final = ("rowid", "_rowid_", "oid")


def quoted(name: str) -> str:
    """Quote a name for SQL, always: a bare one could be a keyword or a function."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Column:
    """One column, in declared order."""

    name: str
    type: str
    required: bool
    default: str | None
    key: int
    """Its place in the primary key, from 1; 0 outside of it."""
    generated: bool
    masked: bool
    choices: tuple[str, ...] = ()
    """The only values that a CHECK (… IN (…)) lets it have, as one types them."""

    @property
    def is_number(self) -> bool:
        """Return whether SQLite turns a text that reads as a number into one when it is stored."""
        return self.affinity in {"integer", "real", "numeric"}

    @property
    def affinity(self) -> str:
        """Return what SQLite prefers to store in it (datatype3, section 3.1)."""
        declared = self.type.upper()
        for marks, affinity in (
            (("INT",), "integer"),
            (("CHAR", "CLOB", "TEXT"), "text"),
            (("BLOB",), "blob"),
            (("REAL", "FLOA", "DOUB"), "real"),
        ):
            if any(mark in declared for mark in marks):
                return affinity
        return "numeric" if declared and declared != "ANY" else "blob"


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key: columns here refer to columns there."""

    table: str
    columns: tuple[str, ...]
    to: str
    to_columns: tuple[str, ...]
    on_delete: str


@dataclass(frozen=True, slots=True)
class Index:
    """One index."""

    name: str
    unique: bool
    partial: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the list of tables."""

    name: str
    kind: str
    """table, view or virtual"""
    protected: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table or view with everything that hangs on it."""

    name: str
    kind: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """What identifies a row: a name of the rowid, or the columns of the primary key; nothing for a view."""
    by_rowid: bool
    protected: bool
    """Of the guard, or the audit: its rows are never changed here."""
    links: tuple[Link, ...] = ()
    indexes: tuple[Index, ...] = ()
    triggers: tuple[tuple[str, str], ...] = ()
    sql: str = ""
    problem: str = ""
    """Why its columns cannot be read."""
    searchable: bool = False
    """A table of FTS: it can be searched with MATCH."""

    def column(self, name: str) -> Column | None:
        """Return the column of that name."""
        return next((c for c in self.columns if fold(c.name) == fold(name)), None)

    @property
    def editable(self) -> bool:
        """Return whether single rows can be named and so be changed."""
        return self.kind == "table" and bool(self.key) and not self.protected

    @property
    def single_links(self) -> dict[str, Link]:
        """Return the foreign keys of one column each, by that column."""
        return {link.columns[0]: link for link in self.links if len(link.columns) == 1}

    @property
    def shown(self) -> tuple[Column, ...]:
        """Return the columns whose values are shown."""
        return tuple(column for column in self.columns if not column.masked)


@contextmanager
def opened(
    powers: Powers, limit_s: float = READING_S, is_left: Callable[[], bool] = lambda: False
) -> Iterator[Connection]:
    """Open the database for one page, with text that is not UTF-8 shown as far as it goes.

    SQLite is interrupted after a time, or once `is_left` says that nobody waits any more.
    """
    with powers.look(powers.database) as connection:
        connection.text_factory = _text
        stop_after(connection, limit_s, is_left)
        yield connection


def stop_after(
    connection: Connection, limit_s: float, is_left: Callable[[], bool] = lambda: False
) -> None:
    """Have SQLite interrupt what a connection does from now on, as `opened` says."""
    end = time.monotonic() + limit_s
    connection.set_progress_handler(lambda: is_left() or time.monotonic() > end, STEPS)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def encoding_of(connection: Connection) -> str:
    """Return how the database stores text, as Python names it."""
    return str(connection.execute("PRAGMA encoding").fetchone()[0])


def list_tables(connection: Connection) -> list[Summary]:
    """Return the tables and views, by name; not those that belong to others (indexes of FTS, SQLite's own)."""
    found = [
        Summary(name, kind, fold(name) in Ledger.TABLES)
        for name, kind in connection.execute(
            "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow'"
            " ORDER BY type = 'view', lower(name), name"
        )
        if not is_engines(name)
    ]
    return sorted(found, key=lambda table: table.protected)


@dataclass(frozen=True, slots=True)
class Beside:
    """The tables that are listed next to one of them, and how many are not."""

    listed: list[Summary]
    more: int = 0

    @classmethod
    def of(cls, tables: list[Summary], name: str) -> Beside:
        """Return all tables, or of very many those around one."""
        names = [table.name for table in tables]
        at = max(0, names.index(name) - MOST_BESIDE // 2) if name in names else 0
        listed = tables[at : at + MOST_BESIDE] if len(tables) > MOST_BESIDE else tables
        return cls(listed, len(tables) - len(listed))


def count_rows(connection: Connection, tables: list[Summary]) -> dict[str, int | None]:
    """Return the rows of each table, at most one more than MOST_COUNTED; None where it was not counted."""
    found: dict[str, int | None] = {}
    end = time.monotonic() + COUNTING_S
    for table in tables:
        found[table.name] = None
        if table.kind != "view" and time.monotonic() < end:
            try:
                found[table.name] = count(connection, quoted(table.name))
            except Error as error:  # a damaged table must not hide the others
                if "interrupted" in str(error):
                    break
    return found


def count(connection: Connection, source: str, values: tuple[object, ...] = ()) -> int:
    """Return how many rows a FROM clause gives, at most one more than MOST_COUNTED."""
    (rows,) = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT {MOST_COUNTED + 1})", values
    ).fetchone()
    return int(rows)


def read_table(
    connection: Connection,
    name: str,
    masked: frozenset[tuple[str, str]],
    protected: frozenset[str] = frozenset(),
) -> Table | None:
    """Return a table with what hangs on it; None if there is none of that name."""
    row = connection.execute(
        "SELECT type, wr FROM pragma_table_list(?) WHERE schema = 'main' AND name = ?", (name, name)
    ).fetchone()
    if row is None:
        return None
    kind, without_rowid = row[0], bool(row[1])
    sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    text = (sql or ("",))[0] or ""
    try:
        columns = _columns(connection, name, masked, _choices(text) if kind == "table" else {})
    except Error as error:  # a view may refer to what is gone
        return Table(name, kind, (), (), False, False, sql=text, problem=str(error))
    key, by_rowid = _key(columns, kind, without_rowid=without_rowid)
    return Table(
        name,
        kind,
        columns,
        key,
        by_rowid,
        fold(name) in Ledger.TABLES | protected,
        tuple(_links(connection, name)),
        tuple(_indexes(connection, name)) if kind == "table" else (),
        tuple(
            connection.execute(
                "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?",
                (name,),
            )
        ),
        text,
        searchable=kind == "virtual" and "using fts" in text.lower(),
    )


def _columns(
    connection: Connection,
    name: str,
    masked: frozenset[tuple[str, str]],
    choices: Mapping[str, tuple[str, ...]],
) -> tuple[Column, ...]:
    return tuple(
        Column(
            column,
            kind,
            bool(required),
            default,
            key,
            hidden in {2, 3},
            (name, column) in masked or is_secret_key(column),
            choices.get(fold(column), ()),
        )
        for _, column, kind, required, default, key, hidden in connection.execute(
            "SELECT * FROM pragma_table_xinfo(?)", (name,)
        )
        if hidden != 1
    )


def _choices(sql: str) -> dict[str, tuple[str, ...]]:
    """Return what each column may be where a CHECK lists it: `x IN (…)`, with or without NULL."""
    found = {}
    for check in read_clauses(sql).checks:
        words = [token[1] for token in normal_tokens(check.expression.normal)]
        for beside in (3, -3):  # x IS NULL OR x IN (…), or the other way round
            part = words[:3] if beside > 0 else words[-3:]
            if part[1:] == ["is", "null"] and "or" in words:
                words = words[4:] if beside > 0 else words[:-4]
        if words[1:3] != ["in", "("] or words[-1] != ")":
            continue
        listed = words[3:-1]
        values, commas = listed[::2], listed[1::2]
        plain = all(value[:1] == "'" or value[:1].isdigit() for value in values)
        if plain and set(commas) <= {","} and len(values) == len(commas) + 1:
            found[unquote(words[0])] = tuple(map(unquote, values))
    return found


def _key(
    columns: tuple[Column, ...], kind: str, *, without_rowid: bool
) -> tuple[tuple[str, ...], bool]:
    if kind == "view":
        return (), False
    if without_rowid:
        keyed = sorted((column for column in columns if column.key), key=lambda column: column.key)
        return tuple(column.name for column in keyed), False
    taken = {fold(column.name) for column in columns}
    free = [name for name in ROWIDS if name not in taken]
    return (free[0],) if free else (), bool(free)


def _links(connection: Connection, name: str) -> Iterator[Link]:
    """Yield the foreign keys of a table."""
    found: dict[int, list[tuple[str, str | None, str, str]]] = {}
    for number, _, to, here, there, _, on_delete, _ in connection.execute(
        "SELECT * FROM pragma_foreign_key_list(?) ORDER BY id, seq", (name,)
    ):
        found.setdefault(number, []).append((here, there, to, on_delete))
    for parts in found.values():
        to, on_delete = parts[0][2], parts[0][3]
        there = tuple(part[1] for part in parts)
        named = tuple(column for column in there if column is not None)
        if len(named) != len(there):  # it refers to the primary key without naming it
            named = tuple(
                row[0]
                for row in connection.execute(
                    "SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (to,)
                )
            )
        if len(named) == len(parts):
            yield Link(name, tuple(part[0] for part in parts), to, named, on_delete)


def links_to(connection: Connection, name: str) -> Iterator[Link]:
    """Yield the foreign keys of all tables that refer to this one; every table is read."""
    pointing = connection.execute(
        "SELECT DISTINCT m.name FROM sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS f"
        " WHERE m.type = 'table' AND lower(f.\"table\") = lower(?) ORDER BY m.name",
        (name,),
    ).fetchall()
    for (other,) in pointing:
        yield from (link for link in _links(connection, other) if fold(link.to) == fold(name))


def _indexes(connection: Connection, name: str) -> Iterator[Index]:
    for _, index, unique, _, partial in connection.execute(
        "SELECT * FROM pragma_index_list(?) ORDER BY name", (name,)
    ).fetchall():
        columns = tuple(
            row[0] or "an expression"
            for row in connection.execute("SELECT name FROM pragma_index_info(?)", (index,))
        )
        yield Index(index, bool(unique), bool(partial), columns)
