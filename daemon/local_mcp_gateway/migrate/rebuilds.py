"""Verify that a rebuilt table has all rows, values and rowids of the old one.

SQLite cannot alter most of a table, so migrations create a new one, copy the rows, drop the old one and
rename. What the copy leaves out is lost without an error: every row if it is forgotten, some if it has
a WHERE or a LIMIT or meets ON CONFLICT IGNORE, a column missing from its list, and the rowids unless
they are copied by name. So a table's checksums are taken just before its DROP, and its replacement at
the end of the file must have the same.

Values for which the copy has another expression differ on purpose: those are reported, not refused.
Rows that the file inserts besides do not make up for rows that it does not copy: a table with more rows
than before is judged by what was in it when the old one was dropped.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.authorizer import Authorizer
from local_mcp_gateway.migrate.contents import (
    Column,
    Contents,
    Stored,
    count_missing,
    read_contents,
    read_stored,
    shape_of,
)
from local_mcp_gateway.migrate.lineage import Fate, Lineage
from local_mcp_gateway.migrate.statements import accepted, may_rebuild, split
from local_mcp_gateway.migrate.verify import Object, read_objects
from local_mcp_gateway.sql import copied, dropped, fold, fold_all, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.migrate.statements import Statement
    from local_mcp_gateway.sql import Copy


class DataChange(NamedTuple):
    """What a migration removed on purpose: a hazard, not an error."""

    kind: str
    """deletes_data or changes_values"""
    object: str
    message: str
    tag: str
    """The migration with the statement."""


class _Larger(NamedTuple):
    """A table that the file has created and that has more rows than the one that it drops."""

    name: str
    changes: int
    """How many changes there had been."""
    missing: int
    """How many rows of the dropped one it does not have, by their primary key."""


class _Dropped(NamedTuple):
    sql: str
    contents: Contents
    assigned: AbstractSet[tuple[str, str]]
    """Which columns statements had written by then."""
    rowid_users: tuple[str, ...]
    larger: tuple[_Larger, ...]


class _Copied(NamedTuple):
    """An INSERT of rows that it reads elsewhere."""

    name: str
    changes: int
    columns: AbstractSet[str] | None
    """Those that it fills, folded; None: all of them."""
    creates: bool
    """It is CREATE TABLE … AS."""
    rows: int
    """How many rows the table had then, if the file has created it."""


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
        self._copied: list[_Copied] = []
        self._copying: Copy | None = None
        """What the running statement copies."""
        self._virtual: dict[str, Stored] = {}
        """The virtual tables that were dropped, by the names that they had before the file."""

    def start(self, sql: str, authorizer: Authorizer) -> None:
        """Read the tables that a file meets, if it may drop one."""
        self._sql, self._authorizer = sql, authorizer
        self._objects, self._tables = (), []
        self._dropped, self._copied, self._virtual = {}, [], {}
        self._copying = None
        if may_rebuild(sql):
            self._objects = read_objects(self._connection)
            self._tables = _ordinary(self._objects)

    def before_statement(self, statement: Statement) -> None:
        """Take the checksums of a table that the statement drops; note what it copies."""
        if not self._objects:
            return
        self._end_copy()
        if (name := dropped(statement.text)) is not None:
            self._sum_up(fold(name))
        else:
            self._copying = copied(statement.text)

    def _end_copy(self) -> None:
        """Note what the last statement has copied."""
        copy, self._copying = self._copying, None
        if copy is None:
            return
        named = None if copy.columns is None else frozenset(fold_all(copy.columns))
        with self._authorizer.suspended():
            new = next((one for one in self._created() if fold(one) == fold(copy.table)), None)
            rows = 0 if new is None else _count(self._connection, new)
        at = len(self._authorizer.changes)
        self._copied.append(_Copied(fold(copy.table), at, named, copy.creates, rows))

    def _created(self) -> list[str]:
        """Return the tables that the file has created so far."""
        so_far = Lineage(fold_all(self._tables), self._authorizer.changes)
        there = {fate.now for fate in so_far.fates().values() if not fate.dropped}
        return [one for one in _ordinary(read_objects(self._connection)) if fold(one) not in there]

    def compare(self, step: Step) -> None:
        """Compare each rebuilt table with what was dropped; raises VerificationFailed."""
        self._end_copy()
        for name, stored in self._virtual.items():
            with self._authorizer.suspended():
                self._compare_virtual(step, name, stored)
        if not self._dropped:
            return
        lineage = Lineage(fold_all(self._tables), step.changes)
        assigned = self._authorizer.assigned
        with self._authorizer.suspended():
            for table in self._tables:
                fate = lineage.fate(table)
                old = self._dropped.get(fate.last_name)
                if fate.rebuilt and old is not None and not fate.deleted_from:
                    self._compare(step, table, fate, old, assigned - old.assigned)

    def _sum_up(self, name: str) -> None:
        """Sum a table up that is about to be dropped; only the first of this name, which has the rows."""
        with self._authorizer.suspended():
            objects = read_objects(self._connection)
            found = next((o for o in objects if o.kind == "table" and fold(o.name) == name), None)
            if found is None or name in self._dropped:
                return
            if found.is_virtual:
                self._sum_up_virtual(found)
                return
            table = found.name
            contents = read_contents(self._connection, table, limit=self._limit)
            so_far = Lineage(fold_all(self._tables), self._authorizer.changes)
            was = next((one for one in self._tables if so_far.fate(one).now == name), table)
            users: tuple[str, ...] = ()
            if contents.shape.rowid is not None and contents.rows:
                from local_mcp_gateway.migrate.rowids import rowid_users

                users = rowid_users(self._connection, self._objects, was, table)
            larger = tuple(self._larger(contents))
            assigned = frozenset(self._authorizer.assigned)
            self._dropped[name] = _Dropped(found.sql, contents, assigned, users, larger)

    def _sum_up_virtual(self, table: Object) -> None:
        from local_mcp_gateway.schema import read_code  # few migrations drop a virtual table

        if read_code(table.name, table.sql).listed is not None:
            return  # a list of terms has no rows of its own
        stored = read_stored(self._connection, table.name)
        if stored is not None:
            self._virtual.setdefault(self._original_name(fold(table.name)), stored)

    def _larger(self, old: Contents) -> Iterator[_Larger]:
        """Compare the tables that have more rows than the one that is dropped."""
        for table in self._created():
            if _count(self._connection, table) > old.rows:
                new = shape_of(self._connection, table)
                missing = count_missing(self._connection, old.shape, new)
                yield _Larger(fold(table), len(self._authorizer.changes), missing)

    def _original_name(self, name: str) -> str:
        """Return the name that a table had before the file."""
        for change in reversed(self._authorizer.changes):
            if change.what == "rename" and fold(change.to) == name:
                name = fold(change.table)
        return name

    def _final_name(self, one: _Larger | _Copied) -> str:
        """Return the name that a table has after the file."""
        name = one.name
        for change in self._authorizer.changes[one.changes :]:
            if change.what == "rename" and fold(change.table) == name:
                name = fold(change.to)
        return name

    def _compare(
        self,
        step: Step,
        table: str,
        fate: Fate,
        old: _Dropped,
        assigned: AbstractSet[tuple[str, str]],
    ) -> None:
        was = old.contents
        now = read_contents(self._connection, fate.now or table, limit=self._limit)
        name = fold(now.shape.name)
        written = {column for one, column in assigned if one == name}
        common = [key for key in now.columns if key in was.columns and key not in written]
        changed = [key for key in common if now.columns[key].values != was.columns[key].values]
        taken = self._rows_taken(old, now)
        if taken < was.rows and (now.rows != was.rows or changed):
            if accepted("loses_rows", table) not in self.accepts:
                more = now.rows >= was.rows
                raise lost_rows(table, was.rows, taken, step.tag, of_them=more)
            return
        self._require_constraints(table, old, name, step.tag)
        if not (was.complete and now.complete):
            self._not_compared(now.shape.name, now.rows)
            return
        computed = {key for key, column in was.shape.columns.items() if column.generated}
        for key in self._not_accepted(table, computed & now.columns.keys() - written):
            self._require_copied(table, was, now, key, step.tag)
        if now.rows > was.rows:  # which are the copied ones is not known
            for key in self._not_accepted(table, common):
                self._require_copied(table, was, now, key, step.tag)
        else:
            kept = [key for key in common if key not in changed]
            if _moved(was, now, kept):
                self._require_rowids(step, table, was, now, old.rowid_users)
            for key in self._not_accepted(table, changed):
                self._require_values(step, table, was, now, key, changed)
                place = f"{quote(table)}.{quote(now.shape.columns[key].name)}"
                message = f"The rebuild of {quote(table)} gives {place} other values than it had."
                self.changed.append(DataChange("changes_values", place, message, step.tag))

    def _rows_taken(self, old: _Dropped, now: Contents) -> int:
        """Return how many rows of the old table the new one can have, at most."""
        name = fold(now.shape.name)
        taken = min(now.rows, old.contents.rows)
        copies = [one.rows for one in self._copied if one.rows and self._final_name(one) == name]
        for copied_rows in copies[-1:]:
            taken = min(taken, copied_rows)
        for one in old.larger:
            if self._final_name(one) == name:
                taken = min(taken, old.contents.rows - one.missing)
        return taken

    def _not_accepted(self, table: str, keys: Iterable[str]) -> Iterator[str]:
        """Yield the columns that no file allows to have other values."""
        for key in keys:
            if accepted("changes_values", f"{table}.{key}") not in self.accepts:
                yield key

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
            raise _changed_values(table, now.shape.columns[key], reason, step.tag)
        self._require_copied(table, was, now, key, step.tag)

    def _require_copied(self, table: str, was: Contents, now: Contents, key: str, tag: str) -> None:
        """Refuse a column that had values and that the copy leaves to its default."""
        if key == now.shape.key:
            return  # SQLite numbers the rows
        if was.has_values(key) and now.rows and self._is_left_out(now, key):
            column = now.shape.columns[key]
            reason = f"would be {column.default or 'NULL'} in every row: the copy leaves it out"
            raise _changed_values(table, column, reason, tag)

    def _is_left_out(self, now: Contents, key: str) -> bool:
        """Return whether no copy fills a column: its default need not be the same in every row."""
        name = fold(now.shape.name)
        copies = [one.columns for one in self._copied if self._final_name(one) == name]
        if copies and all(columns is not None and key not in columns for columns in copies):
            return True
        column = now.shape.columns[key]
        found = self._connection.execute(
            f"SELECT 1 FROM main.{quote(now.shape.name)}"
            f" WHERE {quote(column.name)} IS NOT ({column.default or 'NULL'}) LIMIT 1"
        ).fetchone()
        return found is None

    def _require_constraints(self, table: str, old: _Dropped, now: str, tag: str) -> None:
        """Refuse a table made by CREATE TABLE … AS in place of one with constraints: it has none."""
        made = any(one.creates and self._final_name(one) == now for one in self._copied)
        if not made or accepted("drops_constraints", table) in self.accepts:
            return
        from local_mcp_gateway.schema import constraints_of  # few migrations make a table so

        lost = constraints_of(old.sql)
        if lost:
            raise VerificationFailed(
                f"Table {table} would have no {' and no '.join(lost)} after its rebuild in {tag}: CREATE TABLE"
                " … AS copies columns and rows only.",
                hint="Create the new table with its whole definition, and copy the rows with INSERT INTO …"
                f" SELECT …; or accept it with the line `-- guard: accept drops_constraints {quote(table)}`.",
                table=table,
                lost=list(lost),
                tag=tag,
            )

    def _compare_virtual(self, step: Step, name: str, was: Stored) -> None:
        """Refuse a virtual table that was made again and lacks rows of the old one, or has other rowids."""
        objects = read_objects(self._connection)
        found = next((o for o in objects if o.is_virtual and fold(o.name) == name), None)
        now = None if found is None else read_stored(self._connection, found.name)
        deleted = any(c.what == "delete" and fold(c.table) == name for c in step.changes)
        if found is None or now is None or deleted:
            return
        from local_mcp_gateway.schema import read_code  # few migrations make a virtual table again

        content = read_code(found.name, found.sql).content
        loses = not self.accepts.isdisjoint((accepted("loses_rows", name), "deletes_data"))
        if content is not None:
            with suppress(sqlite3.Error):  # what it is over cannot be read: see `broken`
                rows = _count(self._connection, content)
                if now.rows < min(was.rows, rows) and not loses:
                    raise _not_filled(found.name, now.rows, rows, step.tag)
        elif now.rows < was.rows:
            if not loses:
                raise lost_rows(found.name, was.rows, now.rows, step.tag)
        elif (
            now.rows == was.rows
            and now.rowids != was.rowids
            and accepted("rekeys_rows", name) not in self.accepts
        ):
            raise VerificationFailed(
                f"The rows of {found.name} would get new rowids by the rebuild in {step.tag}.",
                hint="Copy the rowid too (INSERT INTO … (rowid, …) SELECT rowid, …), or accept it with"
                f" the line `-- guard: accept rekeys_rows {quote(found.name)}`.",
                table=found.name,
                tag=step.tag,
            )


def _count(connection: sqlite3.Connection, table: str) -> int:
    (rows,) = connection.execute(f"SELECT count(*) FROM main.{quote(table)}").fetchone()
    return int(rows)


def _ordinary(objects: Iterable[Object]) -> list[str]:
    return [one.name for one in objects if one.kind == "table" and not one.is_virtual]


def lost_rows(
    table: str, before: int, after: int, tag: str, *, of_them: bool = False
) -> VerificationFailed:
    """Return the refusal of a rebuild that does not copy every row; `of_them`: it has others besides."""
    left = f"{after} of them" if of_them else str(after)
    return VerificationFailed(
        f"Table {table} had {before} rows and has {left} after its rebuild in {tag}: not all of them are"
        " copied.",
        hint="Copy them with INSERT INTO … SELECT … without WHERE or LIMIT, before the old table is dropped;"
        " if the loss is meant, DELETE those rows first or accept it with the line"
        f" `-- guard: accept loses_rows {quote(table)}`.",
        table=table,
        before=before,
        after=after,
        tag=tag,
    )


def _not_filled(table: str, indexed: int, rows: int, tag: str) -> VerificationFailed:
    return VerificationFailed(
        f"The full-text table {table} has indexed {indexed} of {rows} rows after {tag} made it again, so"
        " a search would not find the others.",
        hint=f"Fill it in the same file: INSERT INTO {quote(table)} ({quote(table)}) VALUES ('rebuild'); or"
        f" accept it with the line `-- guard: accept loses_rows {quote(table)}`.",
        table=table,
        tag=tag,
    )


def _changed_values(table: str, column: Column, reason: str, tag: str) -> VerificationFailed:
    place = f"{quote(table)}.{quote(column.name)}"
    return VerificationFailed(
        f"{place} {reason}, by the rebuild in {tag}.",
        hint="Name the columns in INSERT INTO … (…) SELECT … in the same order on both sides, or"
        f" accept it with the line `-- guard: accept changes_values {place}`.",
        table=table,
        column=column.name,
        tag=tag,
    )


def _moved(was: Contents, now: Contents, kept: list[str]) -> bool:
    """Return whether rows have other rowids than before, as far as a kept column identifies them."""
    if was.shape.rowid is None or now.shape.rowid is None:
        return False
    return was.rowids != now.rowids or any(
        was.columns[key].with_rowid != now.columns[key].with_rowid for key in kept
    )
