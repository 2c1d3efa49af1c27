"""What was written to a database since a certain state of it, brought into one that is made anew.

As a rebase brings changes onto another commit: a row that came since is inserted, in the columns that
its table still has; a value that was changed is changed again; a row that was deleted is deleted. What
came out of the migrations themselves is the same in both and left as the new ones make it. What no
longer fits (a table or column that is gone, a key that is taken, a rule that is broken) stays behind.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.backup.durable import named_failures
from local_mcp_gateway.backup.rows import columns, key, quoted, same, tables
from local_mcp_gateway.database.connections import open_scratch, set_foreign_keys, uri

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

_DOES_NOT_FIT = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)


class _Change(NamedTuple):
    sql: str
    values: tuple[object, ...]


def carry_over(
    database: Path,
    base: Path,
    target: Path,
    *,
    prepare: Callable[[sqlite3.Connection], None],
    ignored: Collection[str] = (),
) -> None:
    """Write into `target` what `database` has and `base`, the state to compare it with, has not.

    `target` is nobody's yet, and may be lost; `base` has no writer; of `database` the caller holds the
    lock. `prepare` registers what its checks and indexes call. Its triggers do not run: what they wrote
    is among the rows that are carried.
    """
    with named_failures("carry rows over into", target), closing(open_scratch(target)) as new:
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
        except sqlite3.IntegrityError:  # deferred keys: each row has to prove itself
            new.execute("ROLLBACK")
            _carry(new, wanted)
        _keep_sequences(new)
        for sql in triggers:
            new.execute(sql)


def _carry(new: sqlite3.Connection, wanted: Iterable[str]) -> None:
    """Write every change that fits; one that meets another's row or parent is tried again after it."""
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
        both = [quoted(name) for name in found["live"] if name in found["main"]]
        if not keys or not both:
            continue
        if table not in there:
            yield from _inserts(new, table, keys, both, "true")
            continue
        known = [quoted(name) for name in found["base"]]
        absent = f"NOT EXISTS (SELECT 1 FROM {{}}.{quoted(table)} b WHERE {same(keys, 'a', 'b')})"
        yield from _deletes(new, table, keys, absent.format("live"))
        yield from _updates(new, table, keys, [name for name in both if name in known])
        yield from _inserts(new, table, keys, both, absent.format("base"))


def _deletes(
    new: sqlite3.Connection, table: str, keys: list[str], condition: str
) -> Iterator[_Change]:
    name = quoted(table)
    sql = f"DELETE FROM main.{name} WHERE {_is(keys)}"
    select = f"SELECT {_list(keys, 'a')} FROM base.{name} a WHERE {condition}"
    for row in new.execute(select).fetchall():
        yield _Change(sql, row)


def _updates(
    new: sqlite3.Connection, table: str, keys: list[str], names: list[str]
) -> Iterator[_Change]:
    """Yield a change for each row of which values were changed; the others stay as they are made."""
    name = quoted(table)
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
    name = quoted(table)
    names = [*(column for column in keys if column not in names), *names]
    sql = f"INSERT INTO main.{name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for row in new.execute(f"SELECT {_list(names, 'a')} FROM live.{name} a WHERE {condition}"):
        yield _Change(sql, row)


def _take_triggers(new: sqlite3.Connection) -> list[str]:
    found = new.execute(
        "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger'"
    ).fetchall()
    for name, _ in found:
        new.execute(f"DROP TRIGGER main.{quoted(name)}")
    return [str(sql) for _, sql in found]


def _keep_sequences(new: sqlite3.Connection) -> None:
    """Give no AUTOINCREMENT number a second time, also one whose row was deleted."""
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
