"""Hazards from the statements' text (renames, drops, deletes) and from constraints new to existing rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local_mcp_gateway.schema.model import Hazard, HazardKind, Part, Schema, Table
from local_mcp_gateway.sql import NormalToken, normal, normal_tokens, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


@dataclass(slots=True)
class StatementEffects:
    """The renames, drops and deletes of the statements; names are keys."""

    renamed_tables: dict[str, str] = field(default_factory=dict)
    """New name → original name, through any chain of renames."""
    renamed_columns: dict[tuple[str, str], str] = field(default_factory=dict)
    """(table, new name) → original name."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Dropped table → its original name before any rename."""
    dropped_by_name: set[str] = field(default_factory=set)
    """Triggers and indexes with their own DROP statement."""
    deleted_from: set[str] = field(default_factory=set)
    copied: dict[str, list[str]] = field(default_factory=dict)
    """Table → the INSERTs that fill it, normalised: more than one if it is rebuilt more than once."""

    def gives(self, table: str, column: str, *, new: bool) -> bool:
        """Tell whether a copy into a rebuilt table writes a value where rows had none."""
        copies = self.copied.get(self.renamed_tables.get(table, ""), ())
        return any(_gives(copy, column, new=new) for copy in copies)

    def on_conflict(self, table: str, clause: str) -> str:
        """Return what happens in the copy to a row that violates a constraint with this clause."""
        copies = self.copied.get(self.renamed_tables.get(table, ""), [""])
        words = copies[-1].split(" ", 3)
        return words[2] if words[1:2] == ["or"] else clause

    def origin(self, table: str, before: Collection[str]) -> str:
        """Return the earlier name of the table that has this name now; `before` are all earlier tables.

        A rename from an earlier table keeps its identity; a rename from a new one is a rebuild of a dropped one.
        """
        moved = self.renamed_tables.get(table, table)
        return moved if moved in before else self.dropped.get(table, table)

    def now(self, table: str, text: str) -> str:
        """Rewrite a normalised fragment of the earlier table with the new column names."""
        moved = {
            quote(old): quote(new)
            for (owner, new), old in self.renamed_columns.items()
            if owner == table
        }
        return " ".join(moved.get(word, word) for word in text.split(" ")) if moved else text


def _gives(copy: str, column: str, *, new: bool) -> bool:
    listed, _, select = copy.partition(" ) select ")
    if new:
        names = listed.partition(" ( ")[2].split(" , ")
        # A copy with nothing to write selects NULL for one column, after the rowid if any.
        nothing = f", {select}".partition(" from ")[0].endswith(", null")
        return column in names and not (nothing and names[-1] == column)
    return f"coalesce ( {column} ," in select or f"ifnull ( {column} ," in select


def read_effects(statements: Sequence[str]) -> StatementEffects:
    """Collect renames, drops and deletes in order: a dropped and reused name is a rebuild."""
    seen = StatementEffects()
    created: set[str] = set()
    for statement in statements:
        tokens: list[NormalToken] = normal_tokens(statement)
        match _verb(tokens):
            case ["drop", "table", "if", "exists", name, *_] | ["drop", "table", name, *_]:
                _drop_table(seen, _key(name), created)
            case ["create", "table", name, *_]:
                created.add(_key(name))
            case ["drop", "trigger" | "index", "if", "exists", name, *_] | [
                "drop",
                "trigger" | "index",
                name,
                *_,
            ]:
                seen.dropped_by_name.add(_key(name))
            case ["delete", "from", name, *_]:
                seen.deleted_from.add(_key(name))
            case ["insert", "into", name, *_] | [
                "insert",
                "or",
                "abort" | "fail" | "ignore" | "rollback",
                "into",
                name,
                *_,
            ]:
                seen.copied.setdefault(_key(name), []).append(normal(tokens))
            case (
                ["replace", "into", name, *_]
                | ["insert", "or", "replace", "into", name, *_]
                | ["update", "or", "replace", name, *_]
            ):
                seen.deleted_from.add(_key(name))
            case ["alter", "table", name, "rename", "to", new, *_]:
                _rename_table(seen, _key(name), _key(new))
            case ["alter", "table", name, "rename", "column", old, "to", new, *_] | [
                "alter",
                "table",
                name,
                "rename",
                old,
                "to",
                new,
                *_,
            ]:
                _rename(seen, _key(name), _key(old), _key(new))
            case _:
                pass
    return seen


def _verb(tokens: Sequence[NormalToken]) -> list[str]:
    """Return the first words of a statement, after its WITH clause and without the schema `main`."""
    words = [token[1] for token in tokens]
    if words[:1] == ["with"]:
        depth = 0
        for at, word in enumerate(words):
            depth += (word == "(") - (word == ")")
            if depth == 0 and word in {"select", "insert", "replace", "update", "delete"}:
                words = words[at:]
                break
    words = words[:12]
    while "." in words and words[(at := words.index(".")) - 1] == "main":
        del words[at - 1 : at + 1]
    return words


def _drop_table(seen: StatementEffects, name: str, created: Collection[str]) -> None:
    """Note what a DROP TABLE drops; a second rebuild of a table drops what the first one has made."""
    was = seen.renamed_tables.pop(name, name)
    if name not in seen.dropped or was not in created:
        seen.dropped[name] = was


def _rename_table(seen: StatementEffects, old: str, new: str) -> None:
    seen.renamed_tables[new] = seen.renamed_tables.pop(old, old)
    for table, column in [place for place in seen.renamed_columns if place[0] == old]:
        seen.renamed_columns[new, column] = seen.renamed_columns.pop((table, column))


def _rename(seen: StatementEffects, table: str, old: str, new: str) -> None:
    seen.renamed_columns[table, new] = seen.renamed_columns.pop((table, old), old)


def _key(word: str) -> str:
    """Return the key of a name token: what `normal_tokens` quoted again is bare here."""
    return word[1:-1].replace('""', '"') if word.startswith('"') else word


_Unique = tuple[tuple[tuple[str, str], ...], str | None, str]
"""The (column, collation) pairs that are unique, over all rows or over those of a WHERE; ON CONFLICT."""


def constraint_hazards(
    old: Table, new: Table, before: Schema, after: Schema, seen: StatementEffects
) -> Iterator[Hazard]:
    """Yield each key, constraint and foreign key that is new to existing rows."""
    if _primary(old, new.key, seen) != _primary(new, "", seen):
        yield Hazard(
            HazardKind.CHANGES_PRIMARY_KEY,
            quote(new.name),
            f"The primary key of {new.name} changes: {_same_key(new, seen)}, and references to the old key"
            " dangle.",
        )
    computed = _computed(old, new, seen)
    empty = {
        key
        for key, column in new.columns.items()
        if key not in old.columns
        and column.default is None
        and column.generated is None
        and not seen.gives(new.key, quote(key), new=True)
    }
    yield from _uniques(old, new, before, after, seen, empty, computed)
    yield from _checks(old, new, seen, computed)
    yield from _references(old, new, seen, empty, computed)


def _computed(old: Table, new: Table, seen: StatementEffects) -> set[str]:
    """Return the columns whose values are newly computed, so that nothing is known about them."""
    found = set()
    for key, column in new.columns.items():
        was = old.columns.get(seen.renamed_columns.get((new.key, key), key))
        before = was.generated if was else None
        as_before = before is not None and seen.now(new.key, before.normal)
        if column.generated is not None and as_before != column.generated.normal:
            found.add(key)
    return found


def _primary(
    table: Table, renamed: str, seen: StatementEffects
) -> tuple[tuple[str, ...], bool] | None:
    key = table.primary_key
    if key is None:
        return None
    return tuple(seen.now(renamed, column) for column in key.columns), key.rowid


def _uniques(
    old: Table,
    new: Table,
    before: Schema,
    after: Schema,
    seen: StatementEffects,
    empty: set[str],
    computed: set[str],
) -> Iterator[Hazard]:
    """Yield each set of columns that was not already unique, by itself or by a part of it."""
    had = [
        ({(seen.now(new.key, n), c) for n, c in key}, where and seen.now(new.key, where))
        for key, where, _ in _unique_keys(before, old)
    ]
    if old.primary_key is not None:
        had.append(({(seen.now(new.key, n), c) for n, c in _pairs(old.primary_key.parts)}, None))
    for key, where, clause in _unique_keys(after, new):
        fate = _fate(seen.on_conflict(new.key, clause))
        columns = [column for column, _ in key]
        known = not computed & set(columns) and any(
            were <= set(key) and over in {None, where} for were, over in had
        )
        place = f"{quote(new.name)}({', '.join(columns)})"
        named = {word.strip('"') for column in columns for word in column.split(" ")}
        if known and any(_takes_default(old, new, name) for name in named & new.columns.keys()):
            yield Hazard(
                HazardKind.ADDS_UNIQUE,
                place,
                f"Rows with NULL in {place} get its default: {fate} where two rows are equal then.",
            )
        if known or empty & set(columns):
            continue
        among = f" among the rows WHERE {where}" if where else ""
        yield Hazard(
            HazardKind.ADDS_UNIQUE,
            place,
            f"{place} becomes unique{among}: {fate} where two rows are equal.",
        )


def _unique_keys(schema: Schema, table: Table) -> list[_Unique]:
    """Return the unique keys, constraints before indexes."""
    keys: list[_Unique] = [
        (_pairs(key.parts), None, key.on_conflict)
        for key in sorted(table.uniques, key=lambda key: key.columns)
    ]
    return keys + [
        (_pairs(index.parts), index.where.normal if index.where else None, "abort")
        for index in schema.indexes_of(table.key)
        if index.unique
    ]


def _fate(clause: str) -> str:
    """Describe what the copy does with a row that duplicates a unique key."""
    if clause in {"ignore", "replace"}:
        return f"the copy loses rows by ON CONFLICT {clause.upper()}, and the migration is refused,"
    return "the migration fails"


def _same_key(table: Table, seen: StatementEffects) -> str:
    clause = table.primary_key.on_conflict if table.primary_key else "abort"
    if seen.on_conflict(table.key, clause) in {"ignore", "replace"}:
        return "of rows with the same new key one is left, and the migration is refused then"
    return "rows with the same new key are refused"


def _pairs(parts: tuple[Part, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((part.sql.normal, part.collation) for part in parts)


def _checks(old: Table, new: Table, seen: StatementEffects, computed: set[str]) -> Iterator[Hazard]:
    """Yield each new CHECK over columns with existing values."""
    name = quote(new.name)
    was = {seen.now(new.key, check.expression.normal) for check in old.checks}
    fresh = {key for key in new.columns if key not in old.columns} - computed
    for check in sorted(new.checks, key=lambda check: check.expression.normal):
        named = {word.strip('"') for word in check.expression.normal.split(" ")}
        known = check.expression.normal in was and not named & computed
        if not known and not named & new.columns.keys() <= fresh:
            yield Hazard(
                HazardKind.ADDS_CHECK,
                name,
                f"{name} gets CHECK ({check.expression.text}): the migration fails where a row violates it.",
            )


def _references(
    old: Table, new: Table, seen: StatementEffects, empty: set[str], computed: set[str]
) -> Iterator[Hazard]:
    """Yield each new foreign key over columns with existing values."""
    had = {(_moved(link.columns, new, seen), link.table) for link in old.foreign_keys}
    for link in sorted(new.foreign_keys, key=lambda link: link.columns):
        parents = {link.table, seen.renamed_tables.get(link.table, link.table)}
        place = f"{quote(new.name)}({', '.join(link.columns)})"
        known = any((link.columns, parent) in had for parent in parents)
        if known and not computed & set(link.columns):
            if any(_takes_default(old, new, column) for column in link.columns):
                yield Hazard(
                    HazardKind.ADDS_CHECK,
                    place,
                    f"Rows with NULL in {place} get its default: the migration fails where that names "
                    f"no row of {link.table}.",
                )
            continue
        if empty & set(link.columns):
            continue
        yield Hazard(
            HazardKind.ADDS_CHECK,
            place,
            f"{place} must refer to rows of {link.table}: the migration fails where one does not.",
        )


def _takes_default(old: Table, new: Table, column: str) -> bool:
    """Tell whether a rebuild writes the default of a column into rows that have NULL."""
    before, after = old.columns.get(column), new.columns[column]
    return (
        before is not None and after.not_null and not before.not_null and after.default is not None
    )


def _moved(columns: tuple[str, ...], new: Table, seen: StatementEffects) -> tuple[str, ...]:
    return tuple(seen.now(new.key, column) for column in columns)
