"""Watch the tables and columns that migrations make again, and have each compared with what it was.

SQLite cannot alter most of a table, so migrations create a new one, copy the rows, drop the old one and
rename. What the copy leaves out is lost without an error: every row if it is forgotten, some if it has
a WHERE or a LIMIT or meets ON CONFLICT IGNORE, a column missing from its list, and the rowids unless
they are copied by name. So a table's checksums are taken just before its DROP, and its replacement must
have the same (`rebuild_checks`).

The steps may be in several files of the set, applied in one transaction. A replacement is compared at the
end of the file that completes it, and again after a later file that names it; what then still falls short
is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.authorizer import Authorizer
from local_mcp_gateway.migrate.contents import (
    Contents,
    Stored,
    count_missing,
    read_contents,
    read_stored,
    row_count,
    shape_of,
)
from local_mcp_gateway.migrate.dropped_columns import DroppedColumns
from local_mcp_gateway.migrate.lineage import Change, Lineage, Table
from local_mcp_gateway.migrate.rebuild_checks import (
    Copied,
    DataChange,
    Dropped,
    RebuildCheck,
    require_stored,
)
from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.migrate.verify import Object, read_objects
from local_mcp_gateway.sql import altered_column, copied, dropped, fold, fold_all, tokens

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from local_mcp_gateway.database import Run
    from local_mcp_gateway.migrate.statements import Statement
    from local_mcp_gateway.sql import Copy


_CHANGES_ROWS = ("INSERT", "REPLACE", "DELETE", "WITH")


@dataclass(slots=True)
class _Filling:
    """What the copies into a table of the set have put in."""

    parts: list[Contents] = field(default_factory=list)
    is_open: bool = True
    """What the last one has put in is not among them yet: it is read when it has to be."""
    before: Contents | None = None
    """What was in the table before that one; None: nothing."""


class Rebuilds:
    """Compares the tables that a set of files rebuilds, inside the caller's transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        limit: int,
        not_compared: Callable[[str, int, str], None] = lambda _table, _rows, _reason: None,
        earlier: Sequence[str] = (),
    ) -> None:
        """`earlier`: the files that were applied before the set, in order."""
        self.changed: list[DataChange] = []
        self.accepts: AbstractSet[str] = frozenset()
        """What the files of the set accept: one that was applied elsewhere cannot be edited."""
        self._connection = connection
        self._limit = limit
        self._not_compared = not_compared
        """Called with the name and rows of each rebuilt table whose values are not compared, and the reason."""
        self._earlier = earlier
        self._authorizer = Authorizer()
        self._objects: tuple[Object, ...] = ()
        """The schema before the set."""
        self._lineage = Lineage(())
        self._changes: list[Change] = []
        """What the set has done to tables so far."""
        self._followed = 0
        """How many of the running file's changes are among them."""
        self._sqls: list[str] = []
        self._called: dict[Table, str] = {}
        """The tables that were there when a file began, and their names in the first of these."""
        self._dropped: dict[Table, Dropped] = {}
        self._virtual: dict[str, tuple[Stored, int]] = {}
        """The virtual tables that were dropped, by the names that they had before, and the changes by then."""
        self._tags: dict[Table | str, str] = {}
        """The file that completed each replacement."""
        self._held: dict[Table | str, VerificationFailed] = {}
        """What is to be refused unless a later file mends it."""
        self._columns = DroppedColumns(connection, limit, not_compared)
        self._lossy: dict[Table, Table] = {}
        """The tables whose replacement may lack rows; a later file may bring them."""
        self._copied: list[Copied] = []
        self._copying: Copy | None = None
        """What the running statement copies."""
        self._rows = 0
        """How many rows its table had before."""
        self._fillings: dict[Table, _Filling] = {}
        self._values_left = limit
        """How many more values may be read to tell what copies have put in."""

    def start(self, sql: str, authorizer: Authorizer) -> None:
        """Begin a file."""
        if not self._sqls:
            self._objects = read_objects(self._connection)
            self._lineage = Lineage(fold_all(_ordinary(self._objects)))
        self._sqls.append(sql)
        self._authorizer, self._followed = authorizer, 0
        names = {fold(name): name for name in _ordinary(self._objects)}
        for name, table in self._lineage.named.items():
            self._called.setdefault(table, names.get(name, name))

    def before_statement(self, statement: Statement) -> None:
        """Take the checksums of a table that the statement drops; note what it copies."""
        self._follow()
        if (name := dropped(statement.text)) is not None:
            self._sum_up(fold(name))
        elif statement.text[:7].upper().startswith(_CHANGES_ROWS):
            self._copying = copied(statement.text)
            with self._authorizer.suspended():
                self._read_parts(statement.text.lower())
        elif (altered := altered_column(statement.text)) is not None:
            name, old, new = altered
            table = self._lineage.named.get(fold(name))
            if table is not None and table in self._called:
                with self._authorizer.suspended():
                    assigned = self._authorizer.assigned
                    self._columns.follow(table, self._called[table], old, new, assigned)
        elif statement.text[:6].upper() == "CREATE":
            self._copying, self._rows = copied(statement.text), 0

    def _follow(self) -> None:
        """Follow the tables through the last statement, and note what it has copied."""
        new = self._authorizer.changes[self._followed :]
        self._followed += len(new)
        self._changes += new
        self._lineage.follow(new)
        copy, self._copying = self._copying, None
        table = None if copy is None else self._lineage.named.get(fold(copy.table))
        if copy is None or table is None:
            return
        columns = None if copy.columns is None else frozenset(fold_all(copy.columns))
        rows = 0
        if self._is_filled(table):
            self._fillings.setdefault(table, _Filling())  # of a CREATE TABLE … AS
            with self._authorizer.suspended():
                rows = row_count(self._connection, table.names[-1]) - self._rows
        self._copied.append(Copied(table, columns, copy.creates, rows))

    def _is_filled(self, table: Table) -> bool:
        """Return whether the set has made a table, and its copies count."""
        return not table.before or table in self._lossy.values()

    def _read_parts(self, text: str) -> None:
        """Read what copies have put into the tables that a statement names, before it changes their rows."""
        for table in self._fillings:
            if table.alive and table.names[-1] in text:
                self._read_part(table)
        copy = self._copying
        target = None if copy is None else self._lineage.named.get(fold(copy.table))
        if target is None or not self._is_filled(target):
            return
        filling = self._fillings.setdefault(target, _Filling())
        filling.is_open, filling.before = True, None
        self._rows = row_count(self._connection, target.names[-1])
        if self._rows:
            filling.before = self._read(target)

    def _read_part(self, table: Table, now: Contents | None = None) -> None:
        """Note what the last copy into a table has put in, unless it is noted."""
        filling = self._fillings[table]
        if filling.is_open:
            now = now or self._read(table)
            filling.parts.append(now.plus(filling.before, times=-1) if filling.before else now)
            filling.is_open = False

    def _read(self, table: Table) -> Contents:
        found = read_contents(self._connection, table.names[-1], limit=self._values_left)
        if found.complete:
            self._values_left -= found.rows * len(found.columns)
        return found

    def _sum_up(self, name: str) -> None:
        """Sum a table up that is about to be dropped, if it was there before the file."""
        with self._authorizer.suspended():
            objects = read_objects(self._connection)
            found = next((o for o in objects if o.kind == "table" and fold(o.name) == name), None)
            if found is None:
                return
            if found.is_virtual:
                self._sum_up_virtual(found)
                return
            table = self._lineage.named.get(name)
            if table is None or table not in self._called:
                return
            contents = read_contents(self._connection, found.name, limit=self._limit)
            self._dropped[table] = Dropped(
                self._called[table],
                found.sql,
                contents,
                frozenset(self._authorizer.assigned),
                self._rowid_users(table, contents, objects),
                tuple(self._larger(contents)),
            )

    def _rowid_users(
        self, table: Table, contents: Contents, objects: tuple[Object, ...]
    ) -> tuple[str, ...]:
        """Return what goes by the rowids of a table, as the schema was when the set met it."""
        if contents.shape.rowid is None or not contents.rows:
            return ()
        from local_mcp_gateway.migrate.rowids import rowid_users

        now = contents.shape.name
        before, was = (self._objects, table.names[0]) if table.before else (objects, now)
        return rowid_users(self._connection, before, was, now)

    def _sum_up_virtual(self, table: Object) -> None:
        from local_mcp_gateway.schema import read_code  # few migrations drop a virtual table

        if read_code(table.name, table.sql).listed is not None:
            return  # a list of terms has no rows of its own
        stored = read_stored(self._connection, table.name)
        if stored is not None:
            name = self._original_name(fold(table.name))
            self._virtual.setdefault(name, (stored, len(self._changes)))

    def _original_name(self, name: str) -> str:
        """Return the name that a virtual table had before the set."""
        for change in reversed(self._changes):
            if change.what == "rename" and fold(change.to) == name:
                name = fold(change.table)
        return name

    def _larger(self, old: Contents) -> Iterator[tuple[Table, int]]:
        """Compare the tables that the set has made and that have more rows than the one that is dropped."""
        for name, table in self._lineage.named.items():
            if not table.before and row_count(self._connection, name) > old.rows:
                new = shape_of(self._connection, name)
                yield table, count_missing(self._connection, old.shape, new)

    def compare(self, tag: str) -> None:
        """Compare each table that the file has replaced."""
        self._follow()
        with self._authorizer.suspended():
            for table, old in list(self._dropped.items()):
                line = table.line()
                new = line[-1]
                if new is table or not new.alive:
                    continue
                fills = self._lossy.get(table) is new
                if fills or not new.before or self._was_copied_earlier(new, old):
                    deleted = any(one.deleted_from for one in line[1:])
                    self._compare(table, old, new, tag, deleted=deleted)
            for name in list(self._virtual):
                self._compare_virtual(name, tag)
            self.changed += self._columns.compare(self.accepts, tag, self._authorizer.assigned)

    def finish(self) -> None:
        """Raise VerificationFailed for a table that no file of the set has made whole."""
        for error in (*self._held.values(), *self._columns.held.values()):
            raise error

    def _is_settled(self, key: Table | str, name: str, tag: str) -> bool:
        """Return whether a comparison would find what it found before; note the file of the first."""
        if self._tags.setdefault(key, tag) == tag:
            return False
        return name not in self._sqls[-1].lower()

    def _was_copied_earlier(self, new: Table, old: Dropped) -> bool:
        """Return whether a file before the set filled a table, which now takes a name, with the old one's rows."""
        name, source = new.names[0], fold(old.name)
        for sql in self._earlier:
            if name not in sql.lower():
                continue
            for statement in split(sql):
                copy = copied(statement.text)
                if copy is None or fold(copy.table) != name:
                    continue
                if source in (fold(token.identifier) for token in tokens(statement.text)):
                    return True
        return False

    def _compare(self, table: Table, old: Dropped, new: Table, tag: str, *, deleted: bool) -> None:
        if self._is_settled(table, new.names[-1], tag):
            return
        was = old.contents
        limit = 2 * self._limit if was.complete else 0  # it may have more columns
        now = read_contents(self._connection, new.names[-1], limit=limit, links=was.links)
        parts: Sequence[Contents] = ()
        if (deleted or now.rows > was.rows) and new in self._fillings:
            self._read_part(new, now)
            parts = self._fillings[new].parts
        check = RebuildCheck(
            self._connection,
            old,
            now,
            deleted=deleted,
            accepts=self.accepts,
            tag=self._tags[table],
        )
        assigned = self._authorizer.assigned - old.assigned
        written = {column for one, column in assigned if one == new.names[-1]}
        try:
            changes = check.changes(new, self._copied, written, self._sqls, parts)
        except VerificationFailed as error:
            self._held[table] = error
            return
        if check.not_compared is not None:
            self._not_compared(now.shape.name, now.rows, check.not_compared)
        self.changed += changes
        self._held.pop(table, None)
        new.before = True  # it is the table now
        if check.lost:
            self._lossy[table] = new
        else:
            del self._dropped[table]

    def _compare_virtual(self, name: str, tag: str) -> None:
        objects = read_objects(self._connection)
        found = next((o for o in objects if o.is_virtual and fold(o.name) == name), None)
        if found is None or self._is_settled(name, name, tag):
            return
        was, changes = self._virtual[name]
        now = read_stored(self._connection, found.name)
        deleted = any(c.what == "delete" and fold(c.table) == name for c in self._changes[changes:])
        from local_mcp_gateway.schema import read_code  # few migrations make a virtual table again

        self._held.pop(name, None)
        if now is not None and not deleted:
            content = read_code(found.name, found.sql).content
            try:
                require_stored(
                    self._connection,
                    found.name,
                    content,
                    was,
                    now,
                    accepts=self.accepts,
                    tag=self._tags[name],
                )
            except VerificationFailed as error:
                self._held[name] = error
                return
        del self._virtual[name]


def watch_rebuilds(
    connection: sqlite3.Connection, limit: int, run: Run, earlier: Sequence[str] = ()
) -> Rebuilds:
    """Return the comparison of rebuilt tables, which reports tables whose values it cannot compare.

    `earlier` are the files that were applied before.
    """
    return Rebuilds(
        connection,
        limit=limit,
        not_compared=lambda table, rows, reason: run.emit(
            "guard.values_not_compared", table=table, rows=rows, reason=reason
        ),
        earlier=earlier,
    )


def _ordinary(objects: Iterable[Object]) -> list[str]:
    return [one.name for one in objects if one.kind == "table" and not one.is_virtual]
