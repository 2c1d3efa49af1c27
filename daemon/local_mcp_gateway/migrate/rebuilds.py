"""Verify that a rebuilt table has all rows, values and rowids of the old one.

SQLite cannot alter most of a table, so migrations create a new one, copy the rows, drop the old one and
rename. What the copy leaves out is lost without an error: every row if it is forgotten, some if it has
a WHERE or a LIMIT or meets ON CONFLICT IGNORE, a column missing from its list, and the rowids unless
they are copied by name. So a table's checksums are taken just before its DROP, and its replacement at
the end of the file must have the same.

The checksums do not depend on the order of the rows. A value counts the same as a number and as its
text, since a rebuild may change a column's type. Values for which the copy has another expression differ
on purpose: those are reported, not refused.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.authorizer import Authorizer
from local_mcp_gateway.migrate.lineage import Fate, Lineage
from local_mcp_gateway.migrate.statements import accepted, may_rebuild, split
from local_mcp_gateway.migrate.verify import Object, read_objects
from local_mcp_gateway.sql import dropped, fold, fold_all, quote

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.statements import Statement


class DataChange(NamedTuple):
    """What a migration removed on purpose: a hazard, not an error."""

    kind: str
    """deletes_data or changes_values"""
    object: str
    message: str
    tag: str
    """The migration with the statement."""


class _Dropped(NamedTuple):
    contents: Contents
    updated: AbstractSet[tuple[str, str]]
    """Which columns statements had written by then."""
    rowid_users: tuple[str, ...]


class Rebuilds:
    """Checks the rebuilds of one file after the other, inside the caller's transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        limit: int,
        not_compared: Callable[[str, int], None] = lambda _table, _rows: None,
    ) -> None:
        self.changed: list[DataChange] = []
        self.accepts: AbstractSet[str] = frozenset()
        """What the files of the set accept: one that was applied elsewhere cannot be edited."""
        self._connection = connection
        self._limit = limit
        self._not_compared = not_compared
        """Called with the name and rows of each rebuilt table with more values than the limit."""
        self._sql = ""
        self._authorizer = Authorizer()
        self._objects: tuple[Object, ...] = ()
        self._tables: list[str] = []
        self._dropped: dict[str, _Dropped] = {}

    def start(self, sql: str, authorizer: Authorizer) -> None:
        """Read the tables that a file meets, if it may drop one."""
        self._sql, self._authorizer = sql, authorizer
        self._tables, self._dropped = [], {}
        if may_rebuild(sql):
            self._objects = read_objects(self._connection)
            self._tables = _ordinary(self._objects)

    def before_statement(self, statement: Statement) -> None:
        """Take the checksums of a table that the statement drops."""
        name = dropped(statement.text) if self._tables else None
        if name is not None:
            self._sum_up(fold(name))

    def compare(self, step: Step) -> None:
        """Compare each rebuilt table with what was dropped; raises VerificationFailed."""
        if not self._dropped:
            return
        lineage = Lineage(fold_all(self._tables), step.changes)
        updated = self._authorizer.updated
        with self._authorizer.suspended():
            for table in self._tables:
                fate = lineage.fate(table)
                old = self._dropped.get(fate.last_name)
                if fate.rebuilt and old is not None and not fate.deleted_from:
                    self._compare(step, table, fate, old, updated - old.updated)

    def _sum_up(self, name: str) -> None:
        """Sum a table up that is about to be dropped; only the first of this name, which has the rows."""
        with self._authorizer.suspended():
            table = next(
                (one for one in _ordinary(read_objects(self._connection)) if fold(one) == name),
                None,
            )
            if table is None or name in self._dropped:
                return
            contents = read_contents(self._connection, table, limit=self._limit)
            so_far = Lineage(fold_all(self._tables), self._authorizer.changes)
            was = next((one for one in self._tables if so_far.fate(one).now == name), table)
            hidden = contents.shape.rowid is not None and contents.shape.key is None
            users: tuple[str, ...] = ()
            if hidden and contents.rows:
                from local_mcp_gateway.migrate.rowids import rowid_users

                users = rowid_users(self._connection, self._objects, was, table)
            self._dropped[name] = _Dropped(contents, frozenset(self._authorizer.updated), users)

    def _compare(
        self,
        step: Step,
        table: str,
        fate: Fate,
        old: _Dropped,
        updated: AbstractSet[tuple[str, str]],
    ) -> None:
        was = old.contents
        now = read_contents(self._connection, fate.now or table, limit=self._limit)
        if now.rows < was.rows:
            if accepted("loses_rows", table) not in self.accepts:
                raise lost_rows(table, was.rows, now.rows, step.tag)
            return
        if not (was.complete and now.complete):
            self._not_compared(now.shape.name, now.rows)
            return
        if now.rows > was.rows:
            return  # it got others besides: which are the copied ones is not known
        written = {column for name, column in updated if name == fold(now.shape.name)}
        common = [key for key in now.columns if key in was.columns and key not in written]
        changed = [key for key in common if now.columns[key].values != was.columns[key].values]
        kept = [key for key in common if key not in changed]
        if _moved(was, now, kept):
            self._require_rowids(step, table, was, now, old.rowid_users)
        for key in changed:
            if accepted("changes_values", f"{table}.{key}") not in self.accepts:
                self._require_values(step, table, was, now, key, changed)
                place = f"{quote(table)}.{quote(now.shape.columns[key].name)}"
                message = f"The rebuild of {quote(table)} gives {place} other values than it had."
                self.changed.append(DataChange("changes_values", place, message, step.tag))

    def _require_rowids(
        self, step: Step, table: str, was: Contents, now: Contents, users: tuple[str, ...]
    ) -> None:
        """Refuse new rowids for rows that something refers to by rowid."""
        if accepted("rekeys_rows", table) in self.accepts:
            return
        accept = f"`-- guard: accept rekeys_rows {quote(table)}`"
        key = was.shape.key
        if key is not None and key == now.shape.key:
            column = was.shape.columns[key].name
            raise VerificationFailed(
                f"The rows of {table} would get other values of {column} by the rebuild in {step.tag}, so"
                " whatever names a row by it would mean another one.",
                hint=f"Copy {column} with the other columns, or accept it with the line {accept}.",
                table=table,
                column=column,
                tag=step.tag,
            )
        from local_mcp_gateway.migrate.rowids import looked_after

        statements = [statement.text for statement in split(self._sql)]
        left = set(users) - set(looked_after(users, statements))
        if left:
            named = ", ".join(user for user in users if user in left)
            raise VerificationFailed(
                f"The rows of {table} would get new rowids by the rebuild in {step.tag}, and {named} goes by"
                " the old ones.",
                hint="Copy the rowid too (INSERT INTO … (rowid, …) SELECT rowid, …), fill what goes by it"
                f" again in the same file, or accept it with the line {accept}.",
                table=table,
                users=sorted(left),
                tag=step.tag,
            )

    def _require_values(
        self, step: Step, table: str, was: Contents, now: Contents, key: str, changed: list[str]
    ) -> None:
        """Refuse values that a column lost by mistake: left out of the copy, or copied to another column."""
        column = now.shape.columns[key]
        place = f"{quote(table)}.{quote(column.name)}"
        reason = None
        other = next(
            (
                one
                for one in changed
                if one != key and was.columns[one].values == now.columns[key].values
            ),
            None,
        )
        if other is not None:
            reason = f"would get the values of {was.shape.columns[other].name}"
        elif was.has_values(key) and self._is_left_out(now, key):
            reason = f"would be {column.default or 'NULL'} in every row: the copy leaves it out"
        if reason is not None:
            raise VerificationFailed(
                f"{place} {reason}, by the rebuild in {step.tag}.",
                hint="Name the columns in INSERT INTO … (…) SELECT … in the same order on both sides, or"
                f" accept it with the line `-- guard: accept changes_values {place}`.",
                table=table,
                column=column.name,
                tag=step.tag,
            )

    def _is_left_out(self, now: Contents, key: str) -> bool:
        column = now.shape.columns[key]
        found = self._connection.execute(
            f"SELECT 1 FROM main.{quote(now.shape.name)}"
            f" WHERE {quote(column.name)} IS NOT ({column.default or 'NULL'}) LIMIT 1"
        ).fetchone()
        return found is None


def _ordinary(objects: Iterable[Object]) -> list[str]:
    return [
        one.name
        for one in objects
        if one.kind == "table" and one.sql[:14].upper() != "CREATE VIRTUAL"
    ]


def lost_rows(table: str, before: int, after: int, tag: str) -> VerificationFailed:
    """Return the refusal of a rebuild that does not copy every row."""
    return VerificationFailed(
        f"Table {table} had {before} rows and has {after} after its rebuild in {tag}: not all of them are"
        " copied.",
        hint="Copy them with INSERT INTO … SELECT … without WHERE or LIMIT, before the old table is dropped;"
        " if the loss is meant, DELETE those rows first or accept it with the line"
        f" `-- guard: accept loses_rows {quote(table)}`.",
        table=table,
        before=before,
        after=after,
        tag=tag,
    )


def _moved(was: Contents, now: Contents, kept: list[str]) -> bool:
    """Return whether rows have other rowids than before, as far as a kept column identifies them."""
    if was.shape.rowid is None or now.shape.rowid is None:
        return False
    return was.rowids != now.rowids or any(
        was.columns[key].with_rowid != now.columns[key].with_rowid for key in kept
    )


_AT_ONCE = 2_000
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


class Sums(NamedTuple):
    """The checksums of one column."""

    values: int
    with_rowid: int
    """Each value together with the rowid of its row; 0 where there is none."""


class Contents(NamedTuple):
    """The contents of a table."""

    shape: Shape
    rows: int
    complete: bool
    """False: there are more values than the limit, so only the rows were counted."""
    columns: Mapping[str, Sums]
    """By folded name, without generated ones."""
    rowids: int
    """The sum of the rowids themselves."""

    def has_values(self, key: str) -> bool:
        """Return whether a column has anything but NULL."""
        return self.columns[key].values != self.rows * hash(None)


def shape_of(connection: sqlite3.Connection, table: str) -> Shape:
    """Return how the rows of an ordinary table can be read."""
    columns = {}
    keys = []
    for name, hidden, default, key in connection.execute(
        "SELECT name, hidden, dflt_value, pk FROM pragma_table_xinfo(?)", (table,)
    ):
        columns[fold(name)] = Column(name, hidden in (2, 3), default)
        if key:
            keys.append(fold(name))
    (without,) = connection.execute(
        "SELECT max(wr) FROM pragma_table_list WHERE schema = 'main' AND lower(name) = ?",
        (fold(table),),
    ).fetchone()
    if without:
        return Shape(table, columns, None, None)
    indexed = connection.execute(
        "SELECT 1 FROM pragma_index_list(?) WHERE origin = 'pk'", (table,)
    ).fetchone()
    rowid = next((name for name in _ROWIDS if name not in columns), None)
    alias = keys[0] if len(keys) == 1 and indexed is None else None
    if rowid is None and alias is not None:
        rowid = quote(columns[alias].name)
    return Shape(table, columns, rowid, alias)


def read_contents(connection: sqlite3.Connection, table: str, *, limit: int) -> Contents:
    """Count a table's rows and sum up its columns, unless it has more values than `limit`."""
    shape = shape_of(connection, table)
    source = f"main.{quote(table)}"
    (rows,) = connection.execute(f"SELECT count(*) FROM {source}").fetchone()
    names = [key for key, column in shape.columns.items() if not column.generated]
    if rows * len(names) > limit:
        return Contents(shape, rows, False, {}, 0)
    read = [shape.rowid or "0", *(quote(shape.columns[key].name) for key in names)]
    values, together = [0] * len(names), [0] * len(names)
    rowids = 0
    with _as_bytes(connection):
        cursor = connection.execute(f"SELECT {', '.join(read)} FROM {source}")
        while found := cursor.fetchmany(_AT_ONCE):
            numbers, *columns = zip(*found, strict=True)
            rowids += sum(map(hash, numbers))
            for at, column in enumerate(columns):
                hashes = _hashes(column)
                values[at] += sum(hashes)
                if shape.rowid is not None:
                    together[at] += sum(map(hash, zip(numbers, hashes, strict=True)))
    sums = map(Sums, values, together)
    return Contents(shape, rows, True, dict(zip(names, sums, strict=True)), rowids)


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


@contextmanager
def _as_bytes(connection: sqlite3.Connection) -> Iterator[None]:
    """Read text as it is stored: it need not be UTF-8."""
    before, connection.text_factory = connection.text_factory, bytes
    try:
        yield
    finally:
        connection.text_factory = before
