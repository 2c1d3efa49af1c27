"""Plan a migration from one schema to another: the smallest safe list of statements, tested in memory.

1. Renames that a person decided on run first, on an empty copy of the old schema in memory: SQLite
   itself rewrites what refers to the old names.
2. Each table then needs nothing, a few ALTERs, or a rebuild (`diff`); `ordering` orders all statements.
3. The statements run on the copy (of the part that the change concerns). The result must be the new
   schema. Where SQLite refuses an ALTER, that table is rebuilt instead; a view or trigger in the way is
   dropped and recreated. So `diff` only makes a first choice; SQLite decides what is right.

The copy has no rows: the hazards describe what a plan means for rows, and the rehearsal finds it.
A plan carries the fingerprints of both schemas, so that a stale plan can be refused.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema import renames as renaming
from local_mcp_gateway.schema.comparison import compare, fingerprint
from local_mcp_gateway.schema.create_table import affinity
from local_mcp_gateway.schema.ddl import create, create_table, script
from local_mcp_gateway.schema.diff import Change, affected_subset, table_changes
from local_mcp_gateway.schema.double_quotes import in_single_quotes
from local_mcp_gateway.schema.hazards import hazards_of
from local_mcp_gateway.schema.inspection import Prepare, inspect, open_memory
from local_mcp_gateway.schema.ordering import order_statements
from local_mcp_gateway.schema.renames import Renames
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from local_mcp_gateway.schema.model import Column, Hazard, Schema, Table


_COPY = re.compile(r'INSERT (?:OR ABORT )?INTO "?__new_')
_BLAME = re.compile(r"error in (?:view|trigger) (.+?)(?: after [a-z ]+)?: ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Plan:
    """A migration plan: statements without semicolons, hazards, and the two schemas' fingerprints."""

    statements: tuple[str, ...]
    hazards: tuple[Hazard, ...]
    before: str
    after: str

    @property
    def sql(self) -> str:
        """Return the migration file's text."""
        return script(self.statements) if self.statements else ""

    @property
    def rebuilds(self) -> int:
        """Return the number of rebuilt tables."""
        return sum(_COPY.match(statement) is not None for statement in self.statements)


@dataclass(slots=True)
class _Escalation:
    """The lessons of failed attempts: tables to rebuild, views and triggers to recreate."""

    rebuild: set[str] = field(default_factory=set)
    aside: set[str] = field(default_factory=set)


def schema_copy(
    schema: Schema, *, may_lack: Collection[str] = (), prepare: Prepare | None = None
) -> sqlite3.Connection:
    """Return a new in-memory database with this schema and no rows; the caller closes it.

    Virtual tables of `may_lack` are omitted if their module is not available.
    """
    connection = open_memory(prepare)
    for statement in ("PRAGMA foreign_keys = OFF", "BEGIN"):
        connection.execute(statement)
    optional = {create(schema.virtual_tables[key]) for key in may_lack}
    for text in creating(schema):
        try:
            connection.execute(text)
        except sqlite3.OperationalError as error:
            if text in optional and "no such module" in str(error):
                continue
            connection.close()
            raise SchemaProblem(f"SQLite refuses `{text.splitlines()[0]}`: {error}.") from None
    connection.execute("COMMIT")
    return connection


def creating(schema: Schema) -> list[str]:
    """Return the statements that create the schema in an empty database."""
    return [
        *map(create_table, schema.tables.values()),
        *map(create, schema.indexes.values()),
        *map(create, schema.virtual_tables.values()),
        *map(create, schema.views.values()),
        *map(create, schema.triggers.values()),
    ]


def make_plan(
    old: Schema,
    new: Schema,
    *,
    renames: Renames | None = None,
    fills: Mapping[tuple[str, str], str] | None = None,
    prepare: Prepare | None = None,
) -> Plan:
    """Return the plan from `old` to `new`, tested in memory; raises SchemaProblem if there is none.

    `fills` maps (table key, column key) to the SQL value that rows need and the schema does not give.
    """
    decided, values = renames or Renames(), dict(fills or {})
    if not decided.tables and not decided.columns and old == new:
        return Plan((), (), fingerprint(old), fingerprint(new))
    before, after = affected_subset(old, new, decided, values)
    kept = {k for k, code in before.virtual_tables.items() if after.virtual_tables.get(k) == code}
    work = schema_copy(before, may_lack=kept, prepare=prepare)
    try:
        first = _renamed(work, decided, before, after)
        base = _seen(work, before, kept) if first else before
        rest = _proven(work, base, after, values, kept)
    except sqlite3.Error as error:
        raise SchemaProblem(f"SQLite refuses the change: {error}.") from None
    finally:
        work.close()
    statements = (*first, *rest)
    hazards = hazards_of(statements, before, after)
    return Plan(statements, hazards, fingerprint(old), fingerprint(new))


def _renamed(
    work: sqlite3.Connection, decided: Renames, before: Schema, after: Schema
) -> list[str]:
    """Run the renames; return them after the drops of views and triggers that were in the way."""
    moves = renaming.statements(decided, before, after)
    aside: list[str] = []
    while True:
        work.execute("SAVEPOINT renames")
        failure = _run(work, [*aside, *moves])
        if failure is None:
            return [*aside, *moves]
        work.execute("ROLLBACK TO renames")
        blamed = _BLAME.search(str(failure[1]))
        drop = _drop(before, fold(blamed[1])) if blamed else None
        if drop is None or drop in aside:
            raise failure[1]
        aside.append(drop)


def _drop(schema: Schema, key: str) -> str | None:
    for kind, group in (("VIEW", schema.views), ("TRIGGER", schema.triggers)):
        if key in group:
            return f"DROP {kind} {quote(group[key].name)}"
    return None


def _seen(work: sqlite3.Connection, before: Schema, kept: Collection[str]) -> Schema:
    """Return the current schema of the copy; remaining virtual tables count as present in any case."""
    found = inspect(work)
    if not kept:
        return found
    staying = {key: before.virtual_tables[key] for key in kept}
    return replace(found, virtual_tables={**found.virtual_tables, **staying})


def _proven(
    work: sqlite3.Connection,
    base: Schema,
    new: Schema,
    fills: dict[tuple[str, str], str],
    kept: Collection[str],
) -> list[str]:
    """Return statements that, when run, turned `base` into `new`."""
    learnt = _Escalation()
    for _ in range(2 + 2 * len(base.tables) + len(base.views) + len(base.triggers)):
        changes = [
            replace(change, alters=None) if change.old.key in learnt.rebuild else change
            for change in table_changes(base, new, required=frozenset(fills))
        ]
        statements = order_statements(base, new, changes, fills=fills, in_the_way=learnt.aside)
        work.execute("SAVEPOINT proof")
        failure = _run(work, statements)
        found = base if failure else _seen(work, base, kept)
        work.execute("ROLLBACK TO proof")
        if failure is None and found == new:
            return statements
        _learn(learnt, changes, failure, new, found)
    raise SchemaProblem("No order of statements leads to that schema.")


def _run(work: sqlite3.Connection, statements: list[str]) -> tuple[str, sqlite3.Error] | None:
    """Run the statements; return the first that fails. Text in double quotes becomes text: it is refused."""
    for at, statement in enumerate(statements):
        try:
            statements[at] = in_single_quotes(work, statement)
            work.execute(statements[at])
        except sqlite3.Error as error:
            return statement, error
    return None


def _learn(
    learnt: _Escalation,
    changes: Sequence[Change],
    failure: tuple[str, sqlite3.Error] | None,
    new: Schema,
    found: Schema,
) -> None:
    """Choose the next more careful strategy, or raise SchemaProblem if there is none."""
    altered = [change for change in changes if change.alters is not None]
    if failure is None:
        guilty = {c.old.key for c in altered if found.tables.get(c.new.key) != c.new}
        if not guilty:
            raise SchemaProblem(f"The plan does not reach the schema: {compare(new, found)[0]}.")
        learnt.rebuild |= guilty
        return
    statement, error = failure
    blamed = _BLAME.search(str(error))
    if blamed and fold(blamed[1]) not in learnt.aside:
        learnt.aside.add(fold(blamed[1]))
        return
    for change in altered:
        if statement in (change.alters or ()):
            learnt.rebuild.add(change.old.key)
            return
    first = statement.splitlines()[0]
    raise SchemaProblem(f"SQLite refuses `{first}`: {error}.", statement=statement)


# --- the way back -------------------------------------------------------------------------------
# A dropped column cannot get its values back. If it needs a value, it gets a plain placeholder (empty
# text, zero), and the file says so. Where no placeholder could be right (in a key or a foreign key), a
# person has to write the down migration or restore the backup.

_STAND_IN = {"text": "''", "blob": "x''", "integer": "0", "real": "0.0", "numeric": "0"}


class NotDerivable(Exception):
    """No down migration could be right for every row; the message says why."""


def missing_values(old: Schema, new: Schema, renames: Renames) -> list[tuple[Table, Column]]:
    """Return the columns of `new` that need a value which rows of `old` do not have."""
    origins = {fold(name): key for key, name in renames.tables.items()}
    moved = {(table, fold(name)): key for (table, key), name in renames.columns.items()}
    found = []
    for table in new.tables.values():
        before = old.tables.get(origins.get(table.key, table.key))
        if before is None:
            continue
        for key, column in table.columns.items():
            place = (table.key, key)
            left = place in renames.columns and place not in moved  # a different column by now
            source = None if left else before.columns.get(moved.get(place, key))
            bare = column.default is None or column.default.normal == "null"
            needed = column.not_null and bare and column.generated is None
            has = source is not None and (source.not_null or before.is_rowid(source.key))
            if needed and not has and not table.is_rowid(key):
                found.append((table, column))
    return found


def derive_down(
    old: Schema, new: Schema, renames: Renames, *, prepare: Prepare | None = None
) -> Plan:
    """Return the plan from `new` back to `old`; raises NotDerivable."""
    back = renames.inverse()
    fills = {
        (table.key, column.key): _stand_in(old, table, column)
        for table, column in missing_values(new, old, back)
    }
    return make_plan(new, old, renames=back, fills=fills, prepare=prepare)


def _stand_in(schema: Schema, table: Table, column: Column) -> str:
    place = f"{quote(table.name)}.{quote(column.name)}"
    keys = [key.columns for key in (table.primary_key, *table.uniques) if key]
    keys += [
        tuple(part.sql.normal for part in index.parts)
        for index in schema.indexes_of(table.key)
        if index.unique
    ]
    if any(column.key in key for key in keys):
        raise NotDerivable(f"the values of {place} are gone, and they must be unique")
    if any(column.key in link.columns for link in table.foreign_keys):
        raise NotDerivable(
            f"the values of {place} are gone, and they must refer to rows of another table"
        )
    return _STAND_IN[affinity(column.type.normal)]
