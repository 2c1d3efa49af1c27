"""What a database holds that another one, which is to take its place, does not: row by row.

Rows are told apart by their primary key, or by SQLite's rowid where there is none, and compared in
the columns that both have; so what was changed in place is counted too, and what was deleted and
would come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from local_mcp_gateway.backup.durable import named_failures
from local_mcp_gateway.backup.rows import columns, key, quoted, same, shared, tables
from local_mcp_gateway.database.connections import reading, uri

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection
    from pathlib import Path

_OPS_BETWEEN_LOOKS = 20_000


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
        there = set(tables(now, "other"))
        compared = (
            _compare(now, table) if table in there else _whole(now, table)
            for table in tables(now, "main")
            if table not in ignored
        )
        return tuple(loss for loss in compared if loss is not None)


def _whole(connection: sqlite3.Connection, table: str) -> Loss | None:
    gone = _count(connection, f"SELECT count(*) FROM main.{quoted(table)}")
    return Loss(table, gone=gone) if gone else None


def _compare(connection: sqlite3.Connection, table: str) -> Loss | None:
    found = {schema: columns(connection, schema, table) for schema in ("main", "other")}
    now, then = found.values()
    keys = key(connection, table, found)
    if not keys:  # no column in common: another table of the same name
        return _whole(connection, table)
    matching = same(keys, "a", "b")
    name = quoted(table)
    differs = " OR ".join(_differs(quoted(c)) for c in shared(found))
    joined = f"FROM main.{name} a JOIN other.{name} b ON {matching}"

    def missing(schema: str, elsewhere: str) -> int:
        absent = f"NOT EXISTS (SELECT 1 FROM {elsewhere}.{name} b WHERE {matching})"
        return _count(connection, f"SELECT count(*) FROM {schema}.{name} a WHERE {absent}")

    values = (
        (c, _count(connection, f"SELECT count(a.{quoted(c)}) {joined}"))
        for c in now
        if c not in then
    )
    loss = Loss(
        table,
        gone=missing("main", "other"),
        changed=_count(connection, f"SELECT count(*) {joined} WHERE {differs or 'false'}"),
        back=missing("other", "main"),
        columns=tuple((column, count) for column, count in values if count),
    )
    return loss if loss != Loss(table) else None


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


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
