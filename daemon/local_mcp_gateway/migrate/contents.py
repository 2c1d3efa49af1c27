"""Read the contents of tables as sums, to compare a table with what a rebuild makes of it.

The sums do not depend on the order of the rows. A value counts the same as a number and as its text,
since a rebuild may change a column's type; a blob and a text are two values. A virtual table is counted by its rows, or where its rows are
another table's, by what it has indexed.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from operator import mul
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


_AT_ONCE = 2_000
_NEXT = 3
_PRIME = 1_000_003
_BLOB = 1 << 80
"""What a blob counts besides its hash, which is that of a text with the same bytes."""
_ROWIDS = ("rowid", "_rowid_", "oid")


class Column(NamedTuple):
    """A column, as far as its values matter here."""

    name: str
    generated: bool
    default: str | None
    """The SQL of its default."""


class Shape(NamedTuple):
    """How the rows of a table can be read."""

    name: str
    columns: Mapping[str, Column]
    """By folded name."""
    rowid: str | None
    """A name of the rowid; None if there is none, or columns have taken all its names."""
    key: str | None
    """The folded name of the column that is the rowid itself."""
    primary_key: tuple[str, ...]
    """The folded names of its columns."""


class Sums(NamedTuple):
    """The checksums of one column."""

    values: int
    with_rowid: int
    """Each value together with the rowid of its row; 0 where there is none."""


class Link(NamedTuple):
    """A column, and others that say in which row each of its values stands."""

    columns: tuple[str, ...]
    """The primary key, or where there is none, a column near it; folded, as the other one."""
    column: str


class Contents(NamedTuple):
    """The contents of a table."""

    shape: Shape
    rows: int
    complete: bool
    """False: there are more values than the limit, so SQLite counted those of each column that are not NULL."""
    columns: Mapping[str, Sums]
    """By folded name, without generated ones."""
    rowids: int
    """The sum of the rowids themselves."""
    links: Mapping[Link, int]
    """The sum of each value together with those of its link."""

    def has_values(self, key: str) -> bool:
        """Return whether a column has anything but NULL; of a generated one that is assumed."""
        nothing = self.rows * hash(None) if self.complete else 0
        return key not in self.columns or self.columns[key].values != nothing

    def plus(self, other: Contents, *, times: int = 1) -> Contents:
        """Return the contents of the rows of both; with -1, of what is in this one and not in the other."""
        return self._replace(
            rows=self.rows + times * other.rows,
            complete=self.complete and other.complete,
            columns={
                key: Sums(
                    sums.values + times * other.columns[key].values,
                    sums.with_rowid + times * other.columns[key].with_rowid,
                )
                for key, sums in self.columns.items()
                if key in other.columns
            },
            rowids=self.rowids + times * other.rowids,
            links={
                link: total + times * other.links[link]
                for link, total in self.links.items()
                if link in other.links
            },
        )


def shape_of(connection: sqlite3.Connection, table: str) -> Shape:
    """Return how the rows of an ordinary table can be read."""
    columns = {}
    found: dict[int, str] = {}
    for name, hidden, default, place in connection.execute(
        "SELECT name, hidden, dflt_value, pk FROM pragma_table_xinfo(?)", (table,)
    ):
        columns[fold(name)] = Column(name, hidden in (2, 3), default)
        if place:
            found[place] = fold(name)
    keys = tuple(found[place] for place in sorted(found))
    (without,) = connection.execute(
        "SELECT max(wr) FROM pragma_table_list WHERE schema = 'main' AND lower(name) = ?",
        (fold(table),),
    ).fetchone()
    if without:
        return Shape(table, columns, None, None, keys)
    indexed = connection.execute(
        "SELECT 1 FROM pragma_index_list(?) WHERE origin = 'pk'", (table,)
    ).fetchone()
    rowid = next((name for name in _ROWIDS if name not in columns), None)
    alias = keys[0] if len(keys) == 1 and indexed is None else None
    if rowid is None and alias is not None:
        rowid = quote(columns[alias].name)
    return Shape(table, columns, rowid, alias, keys)


def row_count(connection: sqlite3.Connection, table: str) -> int:
    """Count the rows of a table."""
    (rows,) = connection.execute(f"SELECT count(*) FROM main.{quote(table)}").fetchone()
    return int(rows)


def read_contents(
    connection: sqlite3.Connection,
    table: str,
    *,
    limit: int,
    links: Iterable[Link] | None = None,
) -> Contents:
    """Count a table's rows and sum up its columns; with more values than `limit`, count those only.

    `links`: those of another table to be compared with, as far as this one has their columns.
    """
    shape = shape_of(connection, table)
    source = f"main.{quote(table)}"
    rows = row_count(connection, table)
    names = [key for key, column in shape.columns.items() if not column.generated]
    if rows * len(names) > limit:
        return _counted(connection, shape, rows, names)
    wanted = _links(shape, names) if links is None else links
    linked = {
        link: 0
        for link in wanted
        if {*link.columns, link.column} <= shape.columns.keys() & {*names}
    }
    by_rowid = {link for link in linked if link.columns == (shape.key,)}
    read = [shape.rowid or "0", *(quote(shape.columns[key].name) for key in names)]
    values, together = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    rowids = 0
    with _as_bytes(connection):
        cursor = connection.execute(f"SELECT {', '.join(read)} FROM {source}")
        while found := cursor.fetchmany(_AT_ONCE):
            numbers, *columns = zip(*found, strict=True)
            rowids += sum(map(hash, numbers))
            hashes = dict(zip(names, map(_hashes, columns), strict=True))
            of_rows = hashes[shape.key] if shape.key is not None else _hashes(numbers)
            for name in names:
                values[name] += sum(hashes[name])
                if shape.rowid is not None:
                    together[name] += _sum_together(of_rows, hashes[name])
            for link in linked.keys() - by_rowid:
                key = [hashes[name] for name in link.columns]
                of_key = key[0] if len(key) == 1 else list(map(hash, zip(*key, strict=True)))
                linked[link] += _sum_together(of_key, hashes[link.column])
    linked |= {link: together[link.column] for link in by_rowid}
    if rows:
        asked = ", ".join(f"sum(typeof({one}) = 'blob')" for one in read[1:])
        blobs = connection.execute(f"SELECT {asked} FROM {source}").fetchone()
        for name, number in zip(names, blobs, strict=True):
            values[name] += number * _BLOB
    sums = {name: Sums(values[name], together[name]) for name in names}
    return Contents(shape, rows, True, sums, rowids, linked)


def _counted(
    connection: sqlite3.Connection, shape: Shape, rows: int, names: Sequence[str]
) -> Contents:
    """Count the values of each column in one pass of SQLite's, and sum the rowids without an overflow."""
    asked = [f"count({quote(shape.columns[key].name)})" for key in names]
    asked.append(f"sum({shape.rowid} % {_PRIME})" if shape.rowid is not None else "0")
    *values, rowids = connection.execute(
        f"SELECT {', '.join(asked)} FROM main.{quote(shape.name)}"
    ).fetchone()
    sums = {key: Sums(value, 0) for key, value in zip(names, values, strict=True)}
    return Contents(shape, rows, False, sums, rowids or 0, {})


def _links(shape: Shape, names: Sequence[str]) -> Iterator[Link]:
    """Yield what ties the values of a row together: its primary key, or each column the next ones.

    A rebuild may drop or change a column, so each is tied to more than one.
    """
    if shape.primary_key:
        yield from (Link(shape.primary_key, one) for one in names if one not in shape.primary_key)
        return
    for at, name in enumerate(names):
        yield from (Link((name,), one) for one in names[at + 1 : at + 1 + _NEXT])


def _sum_together(keys: Sequence[int], values: Sequence[int]) -> int:
    """Return a sum that is another one if two values change places.

    A sum of the hashes of pairs would often be the same: those of tuples hardly mix their two halves.
    """
    return sum(map(mul, keys, values))


def _hashes(values: Sequence[int | float | bytes | None]) -> list[int]:
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(hash, map(str.encode, map(str, values))))
    if not kinds.isdisjoint((int, float)):
        return [hash(_text(value)) for value in values]
    return list(map(hash, values))


def _text(value: float | bytes | None) -> bytes | None:
    match value:
        case float() if value.is_integer():
            return str(int(value)).encode()
        case float() | int():
            return str(value).encode()
        case _:
            return value


def count_missing(connection: sqlite3.Connection, old: Shape, new: Shape) -> int:
    """Count the rows of a table that another one with the same primary key does not have, by that key."""
    if not old.primary_key or old.primary_key != new.primary_key:
        return 0
    same = " AND ".join(
        f"new.{quote(new.columns[key].name)} IS old.{quote(old.columns[key].name)}"
        for key in old.primary_key
    )
    (missing,) = connection.execute(
        f"SELECT count(*) FROM main.{quote(old.name)} AS old"
        f" WHERE NOT EXISTS (SELECT 1 FROM main.{quote(new.name)} AS new WHERE {same})"
    ).fetchone()
    return int(missing)


class Stored(NamedTuple):
    """What a virtual table holds itself."""

    rows: int
    rowids: float
    """Their sum."""


def read_stored(connection: sqlite3.Connection, table: str) -> Stored | None:
    """Count the rows of a virtual table, of a full-text table those that it has indexed.

    None: its module or tokenizer is not available, or it has no rowids.
    """
    shadows = {
        fold(name)
        for (name,) in connection.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow'"
        )
    }
    sizes = f"{table}_docsize"  # SQLite's FTS: a row for each one that is indexed
    counted = sizes if fold(sizes) in shadows else table
    try:
        if (
            counted == table
            and fold(f"{table}_idx") in shadows
            and not _has_terms(connection, table)
        ):
            return Stored(0, 0.0)  # FTS5 with columnsize=0 counts the rows that it could read
        row = connection.execute(
            f"SELECT count(*), total(rowid) FROM main.{quote(counted)}"
        ).fetchone()
    except sqlite3.Error:
        return None
    return Stored(*row)


def _has_terms(connection: sqlite3.Connection, table: str) -> bool:
    """Return whether an FTS5 table has indexed anything."""
    terms = "temp.local_mcp_gateway_terms"
    connection.execute(f"CREATE VIRTUAL TABLE {terms} USING fts5vocab (main, {quote(table)}, row)")
    try:
        return connection.execute(f"SELECT 1 FROM {terms} LIMIT 1").fetchone() is not None
    finally:
        connection.execute(f"DROP TABLE {terms}")


@contextmanager
def _as_bytes(connection: sqlite3.Connection) -> Iterator[None]:
    """Read text as it is stored: it need not be UTF-8."""
    before, connection.text_factory = connection.text_factory, bytes
    try:
        yield
    finally:
        connection.text_factory = before
