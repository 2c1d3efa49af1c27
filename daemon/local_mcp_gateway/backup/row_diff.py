"""Compare the rows of two database files, and carry newer rows over to a rebuilt one.

Works like a rebase: rows inserted since the base state are inserted, in the columns that their table
still has; changed values are changed again; deleted rows are deleted. Rows that the migrations
themselves make are the same in both and stay as the new ones make them. What no longer fits (a missing
table or column, a key that is taken, a violated constraint) is left behind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.backup.files import named_failures
from local_mcp_gateway.database import kept_file, reading, set_foreign_keys, uri
from local_mcp_gateway.formats import counted
from local_mcp_gateway.schema import is_engines
from local_mcp_gateway.sql import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path


ROWID_NAMES = ("rowid", "_rowid_", "oid")

Columns = Mapping[str, int]
"""The stored columns of a table, each with its place in the primary key (0: none)."""


def tables(connection: sqlite3.Connection, schema: str) -> list[str]:
    """Return the tables with user rows: not the engine's own, nor the shadow tables of a virtual one."""
    found = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = ? AND type IN ('table', 'virtual')",
        (schema,),
    )
    return sorted(str(name) for (name,) in found if not is_engines(name))


def columns(connection: sqlite3.Connection, schema: str, table: str) -> Columns:
    """Return the columns of one table in order; empty if it does not exist."""
    rows = connection.execute(f"PRAGMA {schema}.table_info({quote(table)})")
    return {str(row[1]): int(row[5]) for row in rows}


def key(connection: sqlite3.Connection, table: str, found: Mapping[str, Columns]) -> list[str]:
    """Return the columns, quoted, that identify rows of this table in every one of these schemas.

    The primary key, if all declare the same and every row has one (SQLite lets most keys be NULL, in
    any number of rows); else SQLite's rowid; else all the columns that they share.
    """
    declared = [[name for name, place in each.items() if place] for each in found.values()]
    if declared[0] and all(names == declared[0] for names in declared):
        names = [quote(name) for name in declared[0]]
        if not any(_has_null(connection, schema, table, names) for schema in found):
            return names
    taken = {name.lower() for each in found.values() for name in each}
    rowid = next((name for name in ROWID_NAMES if name not in taken), None)
    for schema in found if rowid else ():
        try:
            connection.execute(f"SELECT {rowid} FROM {schema}.{quote(table)} LIMIT 0")
        except sqlite3.OperationalError:  # WITHOUT ROWID, with another key than elsewhere
            rowid = None
            break
    return [rowid] if rowid else [quote(name) for name in shared(found)]


def _has_null(connection: sqlite3.Connection, schema: str, table: str, names: list[str]) -> bool:
    """Return whether a row is NULL in one of these; no row is read for NOT NULL columns."""
    condition = " OR ".join(f"{name} IS NULL" for name in names)
    sql = f"SELECT 1 FROM {schema}.{quote(table)} WHERE {condition} LIMIT 1"
    return connection.execute(sql).fetchone() is not None


def shared(found: Mapping[str, Columns]) -> list[str]:
    """Return the columns that all of them have, in the order of the first."""
    first, *others = found.values()
    return [name for name in first if all(name in each for each in others)]


def same(names: list[str], one: str, other: str) -> str:
    """Return the condition that two rows, by their aliases, have the same key."""
    return " AND ".join(f"{one}.{name} IS {other}.{name}" for name in names)


_DOES_NOT_FIT = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)


class _Change(NamedTuple):
    sql: str
    values: tuple[object, ...]


def rebase_rows(
    database: Path,
    base: Path,
    target: Path,
    *,
    prepare: Callable[[sqlite3.Connection], None],
    ignored: Collection[str] = (),
) -> None:
    """Write into `target` the changes from `base` to `database`.

    `target` is not in use yet, and may be lost; `base` has no writer; the caller holds the lock of
    `database`. `prepare` registers what its checks and indexes call. Triggers do not run: what they
    wrote is among the rows that are carried over.
    """
    with named_failures(target, doing="carry rows over into"), kept_file(target) as new:
        prepare(new)
        new.execute("ATTACH ? AS live", (f"{uri(database)}?mode=ro",))
        new.execute("ATTACH ? AS base", (f"{uri(base)}?mode=ro&immutable=1",))
        there = set(tables(new, "main"))
        wanted = [table for table in tables(new, "live") if table in there - set(ignored)]
        triggers = _take_triggers(new)
        set_foreign_keys(new, on=True)
        try:
            new.execute("BEGIN")
            _carry(new, wanted)
            new.execute("COMMIT")
        except sqlite3.IntegrityError:  # deferred keys: try each row by itself
            new.execute("ROLLBACK")
            _carry(new, wanted)
        _keep_sequences(new)
        for sql in triggers:
            new.execute(sql)
        for name in ("live", "base"):
            new.execute(f"DETACH {name}")


def _carry(new: sqlite3.Connection, wanted: Iterable[str]) -> None:
    """Apply every change that fits; retry one that conflicts with another's row or parent after it."""
    waiting = [change for change in _changes(new, wanted) if not _fits(new, change)]
    while waiting:
        left = [change for change in waiting if not _fits(new, change)]
        if len(left) == len(waiting):
            return
        waiting = left


def _fits(new: sqlite3.Connection, change: _Change) -> bool:
    try:
        new.execute(*change)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF not in _DOES_NOT_FIT:
            raise
        return False
    return True


def _changes(new: sqlite3.Connection, wanted: Iterable[str]) -> Iterator[_Change]:
    for table in wanted:
        there = set(tables(new, "base"))
        schemas = ("live", "main", "base") if table in there else ("live", "main")
        found = {schema: columns(new, schema, table) for schema in schemas}
        keys = key(new, table, found)
        both = [quote(name) for name in found["live"] if name in found["main"]]
        if not keys or not both:
            continue
        if table not in there:
            yield from _inserts(new, table, keys, both, "true")
            continue
        known = [quote(name) for name in found["base"]]
        absent = f"NOT EXISTS (SELECT 1 FROM {{}}.{quote(table)} b WHERE {same(keys, 'a', 'b')})"
        yield from _deletes(new, table, keys, absent.format("live"))
        yield from _updates(new, table, keys, [name for name in both if name in known])
        yield from _inserts(new, table, keys, both, absent.format("base"))


def _deletes(
    new: sqlite3.Connection, table: str, keys: list[str], condition: str
) -> Iterator[_Change]:
    name = quote(table)
    sql = f"DELETE FROM main.{name} WHERE {_is(keys)}"
    select = f"SELECT {_list(keys, 'a')} FROM base.{name} a WHERE {condition}"
    for row in new.execute(select).fetchall():
        yield _Change(sql, row)


def _updates(
    new: sqlite3.Connection, table: str, keys: list[str], names: list[str]
) -> Iterator[_Change]:
    """Yield a change for each row with changed values; the others stay as they are."""
    name = quote(table)
    names = [column for column in names if column not in keys]
    if not names:
        return
    differs = [f"a.{column} IS NOT b.{column} COLLATE BINARY" for column in names]
    select = (
        f"SELECT {_list(keys, 'a')}, {_list(names, 'a')}, {', '.join(differs)}"
        f" FROM live.{name} a JOIN base.{name} b ON {same(keys, 'a', 'b')}"
        f" WHERE {' OR '.join(differs)}"
    )
    for row in new.execute(select):
        which, rest = row[: len(keys)], row[len(keys) :]
        values, changed = rest[: len(names)], rest[len(names) :]
        wanted = [n for n, is_changed in enumerate(changed) if is_changed]
        assignments = ", ".join(f"{names[n]} = ?" for n in wanted)
        sql = f"UPDATE main.{name} SET {assignments} WHERE {_is(keys)}"
        yield _Change(sql, (*(values[n] for n in wanted), *which))


def _inserts(
    new: sqlite3.Connection, table: str, keys: list[str], names: list[str], condition: str
) -> Iterator[_Change]:
    name = quote(table)
    names = [*(column for column in keys if column not in names), *names]
    sql = f"INSERT INTO main.{name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for row in new.execute(f"SELECT {_list(names, 'a')} FROM live.{name} a WHERE {condition}"):
        yield _Change(sql, row)


def _take_triggers(new: sqlite3.Connection) -> list[str]:
    found = new.execute(
        "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger'"
    ).fetchall()
    for name, _ in found:
        new.execute(f"DROP TRIGGER main.{quote(name)}")
    return [str(sql) for _, sql in found]


def _keep_sequences(new: sqlite3.Connection) -> None:
    """Never reuse an AUTOINCREMENT number, not even of a deleted row."""
    counted = "SELECT 1 FROM {}.sqlite_schema WHERE name = 'sqlite_sequence'"
    if not all(new.execute(counted.format(schema)).fetchone() for schema in ("main", "live")):
        return
    new.execute(
        "UPDATE main.sqlite_sequence AS s SET seq = max(seq, coalesce("
        "(SELECT l.seq FROM live.sqlite_sequence l WHERE l.name = s.name), 0))"
    )


def _list(names: Iterable[str], alias: str) -> str:
    return ", ".join(f"{alias}.{name}" for name in names)


def _is(names: Iterable[str]) -> str:
    return " AND ".join(f"{name} IS ?" for name in names)


_OPS_BETWEEN_LOOKS = 20_000


@dataclass(frozen=True, slots=True)
class DataLoss:
    """What one table would lose: rows missing, outdated or back again, and values of rows that stay."""

    table: str
    gone: int = 0
    changed: int = 0
    back: int = 0
    columns: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """Describe it in words: `notes: 2 rows gone, 1 change of rows undone`."""
        said = [f"{counted(self.gone, 'row')} gone"] if self.gone else []
        said += [f"{counted(self.changed, 'change')} of rows undone"] if self.changed else []
        said += [f"{counted(self.back, 'deleted row')} back"] if self.back else []
        said += [f"{counted(count, 'value')} of {column} gone" for column, count in self.columns]
        return f"{self.table}: {', '.join(said)}"


def rows_lost(
    database: Path,
    other: Path,
    *,
    ignored: Collection[str] = (),
    locked: bool = False,
    limit_s: float | None = None,
) -> tuple[DataLoss, ...]:
    """Compare every ordinary table of the database with `other`, a file that nothing writes to.

    Tables that only `other` has do not count as lost. `locked`: the caller holds the database's lock. Raises
    Damaged and the like if one of the two cannot be read, Interrupted if it takes longer than
    `limit_s`: every row is read several times.
    """
    with named_failures(database, doing="compare"), reading(database, locked=locked) as now:
        if limit_s is not None:
            until = monotonic() + limit_s
            now.set_progress_handler(lambda: int(monotonic() > until), _OPS_BETWEEN_LOOKS)
        now.execute("ATTACH ? AS other", (f"{uri(other)}?mode=ro&immutable=1",))
        there = set(tables(now, "other"))
        compared = (
            _compare(now, table) if table in there else _whole(now, table)
            for table in tables(now, "main")
            if table not in ignored
        )
        return tuple(loss for loss in compared if loss is not None)


def _whole(connection: sqlite3.Connection, table: str) -> DataLoss | None:
    gone = _count(connection, f"SELECT count(*) FROM main.{quote(table)}")
    return DataLoss(table, gone=gone) if gone else None


def _compare(connection: sqlite3.Connection, table: str) -> DataLoss | None:
    found = {schema: columns(connection, schema, table) for schema in ("main", "other")}
    now, then = found.values()
    keys = key(connection, table, found)
    if not keys:  # no column in common: another table of the same name
        return _whole(connection, table)
    matching = same(keys, "a", "b")
    name = quote(table)
    differs = " OR ".join(_differs(quote(c)) for c in shared(found))
    joined = f"FROM main.{name} a JOIN other.{name} b ON {matching}"

    def missing(schema: str, elsewhere: str) -> int:
        absent = f"NOT EXISTS (SELECT 1 FROM {elsewhere}.{name} b WHERE {matching})"
        return _count(connection, f"SELECT count(*) FROM {schema}.{name} a WHERE {absent}")

    values = (
        (c, _count(connection, f"SELECT count(a.{quote(c)}) {joined}"))
        for c in now
        if c not in then
    )
    loss = DataLoss(
        table,
        gone=missing("main", "other"),
        changed=_count(connection, f"SELECT count(*) {joined} WHERE {differs or 'false'}"),
        back=missing("other", "main"),
        columns=tuple((column, count) for column, count in values if count),
    )
    return loss if loss != DataLoss(table) else None


def _differs(column: str) -> str:
    """Return the condition that a value is not the same: '0079' is not 79, though '79' is.

    A column of another type may have converted it, and by itself SQLite would convert it for the
    comparison too; the `+` keeps it from that. Both ways, as 0.1 + 0.2 becomes the text '0.3'.
    """
    a, b = f"a.{column}", f"b.{column}"
    return (
        f"(+{a} IS NOT +{b} COLLATE BINARY AND ({a} IS NOT {b} COLLATE BINARY"
        f" OR 'blob' IN (typeof({a}), typeof({b}))"
        f" OR CAST({a} AS TEXT) IS NOT CAST({b} AS TEXT) COLLATE BINARY))"
    )


def _count(connection: sqlite3.Connection, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])
