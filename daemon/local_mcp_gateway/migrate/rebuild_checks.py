"""Judge what a rebuild made of a table: refuse what its author cannot have meant, warn of what they may have.

A rebuild may drop, add and convert columns, so the columns that both tables have are compared. Values for
which the copy has another expression differ on purpose: those are reported, not refused. Rows that the
file inserts besides do not make up for rows that it does not copy: where it adds or deletes some, what
the copies put in is compared, not what is there in the end.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.contents import Contents, row_count
from local_mcp_gateway.migrate.statements import accepted, split
from local_mcp_gateway.sql import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from local_mcp_gateway.migrate.contents import Column, Stored
    from local_mcp_gateway.migrate.lineage import Table


TOO_MANY = "it has more values than `[guard] compare_limit_values`"
BESIDES = "rows come to it, or go, besides the copies"
"""Why values cannot be compared, as the end of a sentence."""


class DataChange(NamedTuple):
    """What a migration removed on purpose: a hazard, not an error."""

    kind: str
    """deletes_data or changes_values"""
    object: str
    message: str
    tag: str
    """The migration with the statement."""


class Copied(NamedTuple):
    """An INSERT of rows that it reads elsewhere."""

    table: Table
    columns: AbstractSet[str] | None
    """Those that it fills, folded; None: all of them."""
    creates: bool
    """It is CREATE TABLE … AS."""
    rows: int
    """How many rows it added to a table that the set has created."""


class Dropped(NamedTuple):
    """A table just before its DROP."""

    name: str
    """What the first file that met it called it."""
    sql: str
    contents: Contents
    assigned: AbstractSet[tuple[str, str]]
    """Which columns statements had written by then."""
    rowid_users: tuple[str, ...]
    larger: Sequence[tuple[Table, int]]
    """The tables of the set that have more rows, and how many rows of this one each lacks, by its key."""


class RebuildCheck:
    """Compares one table with the one that has taken its place."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        old: Dropped,
        now: Contents,
        *,
        deleted: bool,
        accepts: AbstractSet[str],
        tag: str,
    ) -> None:
        self._connection = connection
        self._table = old.name
        self._deleted = deleted
        """A statement deleted rows of the new table."""
        self._old = old
        self._was, self._now = old.contents, now
        self._new_name = now.shape.name
        self._accepts = accepts
        self._tag = tag
        self.not_compared: str | None = None
        """Why `changes` could not compare the values."""
        self.lost = False
        """It lacks rows, which is accepted, so nothing else was compared."""

    def changes(
        self,
        new: Table,
        copies: Iterable[Copied],
        written: AbstractSet[str],
        sqls: Iterable[str],
        parts: Sequence[Contents],
    ) -> list[DataChange]:
        """Return what was changed on purpose; raises VerificationFailed.

        `copies` are those into the new table, `written` its columns that statements wrote since, `sqls` the
        files so far, and `parts` what each of the copies has put in.
        """
        was = self._was
        copied = [one for one in copies if one.table is new]
        if (lost := self._lost_rows(new, copied, written)) is not None:
            if accepted("loses_rows", self._table) not in self._accepts:
                raise lost
            self.lost = True
            return []
        if any(one.creates for one in copied):
            self._require_constraints()
        besides = self._deleted or self._now.rows > was.rows
        if besides and (whole := self._whole(parts, written)) is not None:
            self._now, besides = whole, False
        if not (was.complete and self._now.complete):
            self.not_compared = TOO_MANY
        elif besides:
            self.not_compared = BESIDES
        computed = {key for key, column in was.shape.columns.items() if column.generated}
        common, changed = self._differing(self._now, written)
        unknown = besides or self._now.complete != was.complete
        left_out = computed & self._now.columns.keys() - written | ({*common} if unknown else set())
        for key in self._not_accepted(left_out):
            self._require_copied(key, copied)
        if unknown:
            return []
        kept = [key for key in common if key not in changed]
        if accepted("rekeys_rows", self._table) not in self._accepts:
            self._require_rowids(kept, sqls)
            self._require_links(kept)
        return [
            self._change(key)
            for key in self._not_accepted(changed)
            if self._meant(key, changed, copied)
        ]

    def _differing(self, now: Contents, written: AbstractSet[str]) -> tuple[list[str], list[str]]:
        """Return the columns that both tables have, and those of them with other values."""
        was = self._was
        common = [key for key in now.columns if key in was.columns and key not in written]
        return common, [k for k in common if now.columns[k].values != was.columns[k].values]

    def _lost_rows(
        self, new: Table, copied: Sequence[Copied], written: AbstractSet[str]
    ) -> VerificationFailed | None:
        """Return the refusal of a copy that lacks rows, unless a statement deleted some."""
        was, now = self._was, self._now
        taken = self._rows_taken(new, copied)
        if taken >= was.rows:
            return None
        if now.rows == was.rows and was.complete == now.complete and not self._deleted:
            _, changed = self._differing(now, written)
            if not changed:
                return None
        more = now.rows >= was.rows
        return lost_rows(self._table, was.rows, taken, self._tag, of_them=more)

    def _rows_taken(self, new: Table, copied: Sequence[Copied]) -> int:
        """Return how many rows of the old table the new one can have, at most."""
        came = sum(one.rows for one in copied)
        if self._deleted:  # what the copies have put in counts, though it is not there any more
            known = copied or not new.before
            return min(self._was.rows, came) if known else self._was.rows
        at_most = [self._was.rows, self._now.rows]
        at_most += [came] * bool(copied)
        at_most += [self._was.rows - missing for table, missing in self._old.larger if table is new]
        return min(at_most)

    def _whole(self, parts: Sequence[Contents], written: AbstractSet[str]) -> Contents | None:
        """Return what the copies took from the old table: all that they put in, or what one of them did."""
        whole = [*parts, reduce(Contents.plus, parts)] if parts else []
        was = self._was
        fits = [one for one in whole if one.rows == was.rows and one.complete == was.complete]
        return min(fits, key=lambda one: len(self._differing(one, written)[1]), default=None)

    def _not_accepted(self, keys: Iterable[str]) -> Iterator[str]:
        """Yield the columns that no file allows to have other values."""
        for key in keys:
            if accepted("changes_values", f"{self._table}.{key}") not in self._accepts:
                yield key

    def _require_constraints(self) -> None:
        """Refuse a table made by CREATE TABLE … AS in place of one with constraints: it has none."""
        if accepted("drops_constraints", self._table) in self._accepts:
            return
        from local_mcp_gateway.schema import constraints_of  # few migrations make a table so

        lost = constraints_of(self._old.sql)
        if lost:
            raise VerificationFailed(
                f"Table {self._table} would have no {' and no '.join(lost)} after its rebuild in {self._tag}:"
                " CREATE TABLE … AS copies columns and rows only.",
                hint="Create the new table with its whole definition, and copy the rows with INSERT INTO …"
                f" SELECT …; or accept it with the line `-- guard: accept drops_constraints {quote(self._table)}`.",
                table=self._table,
                lost=list(lost),
                tag=self._tag,
            )

    def _require_rowids(self, kept: Sequence[str], sqls: Iterable[str]) -> None:
        """Refuse new rowids for rows that something refers to by rowid."""
        was, now, table = self._was, self._now, self._table
        if was.shape.rowid is None or now.shape.rowid is None:
            return
        moved = [key for key in kept if was.columns[key].with_rowid != now.columns[key].with_rowid]
        accept = f"`-- guard: accept rekeys_rows {quote(table)}`"
        key = was.shape.key
        if key is not None and key == now.shape.key:
            # Where one column moved and the others did not, it is that column: see `_require_links`.
            if was.rowids == now.rowids and not (moved and {*moved, key} >= {*kept}):
                return
            column = was.shape.columns[key].name
            raise VerificationFailed(
                f"The rows of {table} would get other values of {column} by the rebuild in {self._tag}, so"
                " whatever names a row by it would mean another one.",
                hint=f"Copy {column} with the other columns, or accept it with the line {accept}.",
                table=table,
                column=column,
                tag=self._tag,
            )
        if was.rowids == now.rowids and not moved:
            return
        from local_mcp_gateway.migrate.rowids import looked_after

        users = self._old.rowid_users
        statements = [statement.text for sql in sqls for statement in split(sql)]
        left = set(users) - set(looked_after(users, statements))
        if left:
            named = ", ".join(user for user in users if user in left)
            raise VerificationFailed(
                f"The rows of {table} would get new rowids by the rebuild in {self._tag}, and {named} goes by"
                " the old ones.",
                hint="Copy the rowid too (INSERT INTO … (rowid, …) SELECT rowid, …), fill what goes by it"
                f" again in the same file, or accept it with the line {accept}.",
                table=table,
                users=sorted(left),
                tag=self._tag,
            )

    def _require_links(self, kept: Sequence[str]) -> None:
        """Refuse values that stand in other rows than before, though the column has all of them."""
        may_move = set(self._not_accepted(kept))
        for link, total in self._was.links.items():
            fixed = may_move if len(link.columns) == 1 else {*kept}
            if link.column not in may_move or not fixed.issuperset(link.columns):
                continue
            if self._now.links.get(link, total) != total:
                beside = " and ".join(self._was.shape.columns[key].name for key in link.columns)
                raise self._changed_values(
                    link.column,
                    f"would stand beside other values of {beside}",
                    "Copy each row as a whole, with all its values from the same row;",
                )

    def _meant(self, key: str, changed: Sequence[str], copied: Sequence[Copied]) -> bool:
        """Refuse values that a column lost by mistake: left out of the copy, or copied to another column."""
        now = self._now.columns[key].values
        named = changed if self._was.complete else ()
        others = (one for one in named if one != key and self._was.columns[one].values == now)
        if (other := next(others, None)) is not None:
            raise self._changed_values(
                key, f"would get the values of {self._was.shape.columns[other].name}"
            )
        self._require_copied(key, copied)
        return True

    def _change(self, key: str) -> DataChange:
        place = f"{quote(self._table)}.{quote(self._now.shape.columns[key].name)}"
        message = f"The rebuild of {quote(self._table)} gives {place} other values than it had."
        return DataChange("changes_values", place, message, self._tag)

    def _require_copied(self, key: str, copied: Sequence[Copied]) -> None:
        """Refuse a column that had values and that the copy leaves to its default."""
        now = self._now
        if key == now.shape.key:
            return  # SQLite numbers the rows
        if self._was.has_values(key) and now.rows and self._is_left_out(key, copied):
            default = now.shape.columns[key].default or "NULL"
            raise self._changed_values(
                key, f"would be {default} in every row: the copy leaves it out"
            )

    def _is_left_out(self, key: str, copied: Sequence[Copied]) -> bool:
        """Return whether no copy fills a column: its default need not be the same in every row."""
        if copied and all(one.columns is not None and key not in one.columns for one in copied):
            return True
        column = self._now.shape.columns[key]
        found = self._connection.execute(
            f"SELECT 1 FROM main.{quote(self._new_name)}"
            f" WHERE {quote(column.name)} IS NOT ({column.default or 'NULL'}) LIMIT 1"
        ).fetchone()
        return found is None

    def _changed_values(
        self,
        key: str,
        reason: str,
        instead: str = "Name the columns in INSERT INTO … (…) SELECT … in the same order on both sides,",
    ) -> VerificationFailed:
        column: Column = self._now.shape.columns[key]
        place = f"{quote(self._table)}.{quote(column.name)}"
        return VerificationFailed(
            f"{place} {reason}, by the rebuild in {self._tag}.",
            hint=f"{instead} or accept it with the line `-- guard: accept changes_values {place}`.",
            table=self._table,
            column=column.name,
            tag=self._tag,
        )


def require_stored(
    connection: sqlite3.Connection,
    table: str,
    content: str | None,
    was: Stored,
    now: Stored,
    *,
    accepts: AbstractSet[str],
    tag: str,
) -> None:
    """Refuse a virtual table that was made again and lacks rows of the old one, or has other rowids.

    `content`: the table that it is over, if it is a full-text table over another one.
    """
    loses = not accepts.isdisjoint((accepted("loses_rows", table), "deletes_data"))
    if content is not None:
        with suppress(sqlite3.Error):  # what it is over cannot be read: see `broken`
            rows = row_count(connection, content)
            if now.rows < min(was.rows, rows) and not loses:
                raise _not_filled(table, now.rows, rows, tag)
    elif now.rows < was.rows:
        if not loses:
            raise lost_rows(table, was.rows, now.rows, tag)
    elif (
        now.rows == was.rows
        and now.rowids != was.rowids
        and accepted("rekeys_rows", table) not in accepts
    ):
        raise VerificationFailed(
            f"The rows of {table} would get new rowids by the rebuild in {tag}.",
            hint="Copy the rowid too (INSERT INTO … (rowid, …) SELECT rowid, …), or accept it with"
            f" the line `-- guard: accept rekeys_rows {quote(table)}`.",
            table=table,
            tag=tag,
        )


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
