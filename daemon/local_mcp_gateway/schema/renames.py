"""Table and column renames that a person decided on; nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.sql import fold, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from local_mcp_gateway.schema.model import Code, Schema


@dataclass(frozen=True, slots=True)
class Candidate:
    """A removed and an added name: either a rename, or a drop and an add."""

    table: str | None
    """The table (by its new name) of a column, None where whole tables are meant."""
    old: str
    new: str

    def __str__(self) -> str:
        """Return it in the form that `--rename` takes."""
        dot = f"{self.table}." if self.table else ""
        return f"{dot}{self.old}={dot}{self.new}"


@dataclass(frozen=True, slots=True)
class Renames:
    """Decided renames: table key → new name, and (new table key, column key) → new column name."""

    tables: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def with_(self, chosen: Candidate) -> Renames:
        """Return these renames and one more."""
        if chosen.table is None:
            return Renames({**self.tables, fold(chosen.old): chosen.new}, self.columns)
        place = (fold(chosen.table), fold(chosen.old))
        return Renames(self.tables, {**self.columns, place: chosen.new})

    def inverse(self) -> Renames:
        """Return the reverse renames; column renames then use the table's old name."""
        back = {fold(new): old for old, new in self.tables.items()}
        return Renames(
            dict(back),
            {
                (fold(back.get(table, table)), fold(new)): old
                for (table, old), new in self.columns.items()
            },
        )


def candidates(old: Schema, new: Schema, renames: Renames) -> tuple[Candidate, ...]:
    """Return every undecided pair that could be a rename, tables before columns."""
    taken = {fold(name) for name in renames.tables.values()}
    gone = [
        t for t in old.tables.values() if t.key not in new.tables and t.key not in renames.tables
    ]
    came = [t for t in new.tables.values() if t.key not in old.tables and t.key not in taken]
    found = [
        Candidate(None, a.name, b.name)
        for a in gone
        for b in came
        if a.columns.keys() & b.columns.keys()
    ]
    found += [
        Candidate(None, a.name, b.name)
        for a in old.virtual_tables.values()
        if a.key not in new.virtual_tables and a.key not in renames.tables
        for b in new.virtual_tables.values()
        if b.key not in old.virtual_tables and b.key not in taken and _alike(a, b)
    ]
    origin = {fold(new_name): key for key, new_name in renames.tables.items()}
    for table in new.tables.values():
        before = old.tables.get(origin.get(table.key, table.key))
        if before is None:
            continue
        decided = {key for name, key in renames.columns if name == table.key}
        reached = {fold(name) for (owner, _), name in renames.columns.items() if owner == table.key}
        found += [
            Candidate(table.name, a.name, b.name)
            for a in before.columns.values()
            if a.key not in table.columns and a.key not in decided and a.generated is None
            for b in table.columns.values()
            if b.key not in before.columns and b.key not in reached and b.generated is None
        ]
    return tuple(found)


def _alike(old: Code, new: Code) -> bool:
    """Tell whether two virtual tables differ only in their names."""
    name = quote(old.key)
    return [quote(new.key) if word == name else word for word in _words(old)] == _words(new)


def _words(code: Code) -> list[str]:
    return code.statement.normal.split(" ")


def parse_renames(texts: Sequence[str], old: Schema, new: Schema) -> Renames:
    """Parse `old=new` and `table.old=table.new`; raises UsageProblem for names that do not exist.

    A column's table is given by its old or its new name.
    """
    tables: dict[str, str] = {}
    for text in texts:
        left, right = _split(text)
        if left == right:
            raise _nothing(text, "the two names are the same")
        if "." not in left:
            _must_be_there(text, left, old, "the schema before")
            _must_be_there(text, right, new, "the schema to be")
            tables[fold(left)] = right
    columns: dict[tuple[str, str], str] = {}
    for text in texts:
        left, right = _split(text)
        if "." not in left:
            continue
        table, _, column = left.rpartition(".")
        _, _, target = right.rpartition(".")
        origin = next(
            (key for key, name in tables.items() if fold(name) == fold(table)), fold(table)
        )
        after = fold(tables.get(fold(table), table))
        if origin not in old.tables or fold(column) not in old.tables[origin].columns:
            raise _nothing(text, f"there is no column {column} in {table} before the change")
        if after not in new.tables or fold(target) not in new.tables[after].columns:
            raise _nothing(text, f"there is no column {target} in {table} after the change")
        columns[after, fold(column)] = target
    return Renames(tables, columns)


def _split(text: str) -> tuple[str, str]:
    left, mark, right = text.partition("=")
    if not mark or not left or not right:
        raise _nothing(text, "it must look like table.old=table.new or old_table=new_table")
    return left.strip(), right.strip()


def _must_be_there(text: str, name: str, schema: Schema, where: str) -> None:
    if fold(name) not in schema.tables.keys() | schema.virtual_tables.keys():
        raise _nothing(text, f"there is no table {name} in {where}")


def _nothing(text: str, why: str) -> UsageProblem:
    return UsageProblem(
        f"--rename {text} matches nothing: {why}.",
        hint="Use the names of the schemas: --rename table.old=table.new, or --rename old_table=new_table.",
    )


def statements(renames: Renames, old: Schema, new: Schema) -> list[str]:
    """Return the ALTERs; a new name still in use by another rename goes through a temporary one.

    A column whose name another one takes is first renamed, to be dropped later with its dependents.
    """
    names = {key: table.name for key, table in old.tables.items()}
    names |= {key: code.name for key, code in old.virtual_tables.items()}
    origin = {fold(name): key for key, name in renames.tables.items()}
    found = list(_taken_names(renames, old))
    for a, b in _order([(names[key], name) for key, name in renames.tables.items()]):
        # If only the case changes, SQLite would consider the new name taken.
        ways = [a, f"__renamed_{b}", b] if fold(a) == fold(b) else [a, b]
        found += [f"ALTER TABLE {quote(x)} RENAME TO {quote(y)}" for x, y in pairwise(ways)]
    for table in dict.fromkeys(table for table, _ in renames.columns):
        before = old.tables[origin.get(table, table)].columns
        moved = [
            (before[column].name, name)
            for (owner, column), name in renames.columns.items()
            if owner == table
        ]
        moved += [
            (before[key].name, f"__dropped_{before[key].name}")
            for key in {fold(name) for _, name in moved} & before.keys()
            if (table, key) not in renames.columns
        ]
        found += [
            f"ALTER TABLE {quote(new.tables[table].name)} RENAME COLUMN {quote(a)} TO {quote(b)}"
            for a, b in _order(moved)
        ]
    return found


def _taken_names(renames: Renames, old: Schema) -> Iterator[str]:
    """Drop the objects whose names the renamed tables need: they are removed or recreated differently."""
    for target in map(fold, renames.tables.values()):
        if target in renames.tables:
            continue
        if target in old.tables:
            yield f"DROP TABLE {quote(old.tables[target].name)}"
        elif target in old.virtual_tables:
            yield f"DROP TABLE {quote(old.virtual_tables[target].name)}"
        elif target in old.views:
            yield f"DROP VIEW {quote(old.views[target].name)}"
        elif target in old.indexes:
            yield f"DROP INDEX {quote(old.indexes[target].name)}"


def _order(moves: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Order renames so that each new name is free; break a cycle with a temporary name."""
    waiting, done = list(moves), []
    while waiting:
        taken = {fold(old) for old, _ in waiting}
        free = next(
            (move for move in waiting if fold(move[1]) not in taken - {fold(move[0])}), None
        )
        if free is None:
            old, new = waiting.pop(0)
            done.append((old, f"__renamed_{old}"))
            waiting.append((f"__renamed_{old}", new))
        else:
            waiting.remove(free)
            done.append(free)
    return done
