"""What a database holds that another one, which is to take its place, does not: row by row.

Rows are told apart by their primary key, or by SQLite's rowid where there is none, and compared in
the columns that both have; so what was changed in place is counted too, and what was deleted and
would come back.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from local_mcp_gateway.backup.durable import named_failures
from local_mcp_gateway.database.connect import reading, uri

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_OPS_BETWEEN_LOOKS = 20_000
_ROWID_NAMES = ("rowid", "_rowid_", "oid")


@dataclass(frozen=True, slots=True)
class Loss:
    """How one table would differ: rows gone, with older values, or back; and values of rows that stay."""

    table: str
    gone: int = 0
    changed: int = 0
    back: int = 0
    columns: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """Say it in words: `notes: 2 rows gone, 1 change of rows undone`."""
        said = [f"{_number(self.gone, 'row')} gone"] if self.gone else []
        said += [f"{_number(self.changed, 'change')} of rows undone"] if self.changed else []
        said += [f"{_number(self.back, 'deleted row')} back"] if self.back else []
        said += [f"{_number(count, 'value')} of {column} gone" for column, count in self.columns]
        return f"{self.table}: {', '.join(said)}"


def losses(
    database: Path,
    other: Path,
    *,
    ignored: Collection[str] = (),
    locked: bool = False,
    limit_s: float | None = None,
) -> tuple[Loss, ...]:
    """Compare every ordinary table of the database with `other`, a file that nothing writes to.

    Tables that only `other` has are no loss. `locked`: the caller holds the database's lock. Raises
    Damaged and the like where one of the two cannot be read, Interrupted where it takes longer than
    `limit_s`: every row is read several times.
    """
    with named_failures("compare", database), reading(database, locked=locked) as now:
        if limit_s is not None:
            until = monotonic() + limit_s
            now.set_progress_handler(lambda: int(monotonic() > until), _OPS_BETWEEN_LOOKS)
        now.execute("ATTACH ? AS other", (f"{uri(other)}?mode=ro&immutable=1",))
        there = set(_tables(now, "other"))
        compared = (
            _compare(now, table) if table in there else _whole(now, table)
            for table in _tables(now, "main")
            if table not in ignored
        )
        return tuple(loss for loss in compared if loss is not None)


def _tables(connection: sqlite3.Connection, schema: str) -> list[str]:
    """Return the tables that hold a person's rows: not SQLite's own, nor what is behind a virtual one."""
    found = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = ? AND type IN ('table', 'virtual')",
        (schema,),
    )
    return sorted(str(name) for (name,) in found if not name.startswith("sqlite_"))


def _whole(connection: sqlite3.Connection, table: str) -> Loss | None:
    gone = _count(connection, f"SELECT count(*) FROM main.{_quoted(table)}")
    return Loss(table, gone=gone) if gone else None


def _compare(connection: sqlite3.Connection, table: str) -> Loss | None:
    now, then = (_columns(connection, schema, table) for schema in ("main", "other"))
    key = _key(connection, table, now, then)
    both = [name for name in now if name in then]
    name = _quoted(table)
    same = " AND ".join(f"a.{column} IS b.{column}" for column in key)
    differs = " OR ".join(f"a.{_quoted(c)} IS NOT b.{_quoted(c)} COLLATE BINARY" for c in both)
    joined = f"FROM main.{name} a JOIN other.{name} b ON {same}"

    def missing(schema: str, elsewhere: str) -> int:
        absent = f"NOT EXISTS (SELECT 1 FROM {elsewhere}.{name} b WHERE {same})"
        return _count(connection, f"SELECT count(*) FROM {schema}.{name} a WHERE {absent}")

    values = (
        (c, _count(connection, f"SELECT count(a.{_quoted(c)}) {joined}"))
        for c in now
        if c not in then
    )
    found = Loss(
        table,
        gone=missing("main", "other"),
        changed=_count(connection, f"SELECT count(*) {joined} WHERE {differs or 'false'}"),
        back=missing("other", "main"),
        columns=tuple((column, count) for column, count in values if count),
    )
    return found if found != Loss(table) else None


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> dict[str, int]:
    """Return the stored columns, each with its place in the primary key (0: none)."""
    rows = connection.execute(f"PRAGMA {schema}.table_info({_quoted(table)})")
    return {str(row[1]): int(row[5]) for row in rows}


def _key(
    connection: sqlite3.Connection, table: str, now: dict[str, int], then: dict[str, int]
) -> list[str]:
    """Return the columns, quoted, that tell rows apart in both: the primary key, or the rowid."""
    declared = [name for name, place in now.items() if place]
    if declared and declared == [name for name, place in then.items() if place]:
        return [_quoted(name) for name in declared]
    taken = {name.lower() for name in (*now, *then)}
    rowid = next((name for name in _ROWID_NAMES if name not in taken), None)
    for schema in ("main", "other") if rowid else ():
        try:
            connection.execute(f"SELECT {rowid} FROM {schema}.{_quoted(table)} LIMIT 0")
        except sqlite3.OperationalError:  # WITHOUT ROWID, with another key than in the other one
            rowid = None
            break
    return [rowid] if rowid else [_quoted(name) for name in now if name in then]


def _count(connection: sqlite3.Connection, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
