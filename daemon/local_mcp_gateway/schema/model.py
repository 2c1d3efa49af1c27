"""The schema as frozen values that compare by behaviour, and the hazards of a change.

Spelling, constraint names and the place of a constraint (next to its column or below) do not count. The
original wording is kept in fields that do not compare, because generated migrations should preserve it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from local_mcp_gateway.sql import fold, quote, tokens, unquote

ROWID_NAMES = ("rowid", "_rowid_", "oid")
"""SQLite's names for the rowid, unless a column has that name."""


@dataclass(frozen=True, slots=True)
class Sql:
    """A fragment of SQL: `normal` compares, `text` is what was written."""

    normal: str
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `key` is its name as SQLite compares it, `sql` its whole definition as written."""

    key: str
    name: str = field(compare=False)
    type: Sql
    not_null: bool
    default: Sql | None
    collation: str
    generated: Sql | None
    stored: bool
    on_conflict: str
    """What a violated NOT NULL does: `abort` unless ON CONFLICT says otherwise."""
    sql: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Part:
    """One column or expression of a key or an index."""

    sql: Sql
    descending: bool
    collation: str
    is_column: bool


@dataclass(frozen=True, slots=True)
class Key:
    """A PRIMARY KEY or UNIQUE constraint."""

    parts: tuple[Part, ...]
    on_conflict: str
    rowid: bool = False
    """True for the INTEGER PRIMARY KEY that is the rowid itself."""
    autoincrement: bool = False
    name: str | None = field(default=None, compare=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the keys of its columns, in order."""
        return tuple(part.sql.normal for part in self.parts)


@dataclass(frozen=True, slots=True)
class Check:
    """A CHECK constraint."""

    expression: Sql
    name: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key; `to` holds the parent's key columns even when they were not written."""

    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]
    on_update: str
    on_delete: str
    deferred: bool
    name: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Table:
    """An ordinary table. `columns` keep the table's order, which equality ignores."""

    key: str
    name: str = field(compare=False)
    columns: Mapping[str, Column]
    primary_key: Key | None
    uniques: frozenset[Key]
    checks: frozenset[Check]
    foreign_keys: frozenset[ForeignKey]
    without_rowid: bool
    strict: bool
    sql: str = field(compare=False)

    def is_rowid(self, column: str) -> bool:
        """Tell whether a column is the rowid itself, which is never NULL."""
        key = self.primary_key
        return key is not None and key.rowid and key.columns == (column,)

    @property
    def rowid_name(self) -> str | None:
        """Return SQL that names the rowid; None if there is none, or columns take all its names."""
        if self.without_rowid:
            return None
        if self.primary_key is not None and self.primary_key.rowid:
            return quote(self.columns[self.primary_key.columns[0]].name)
        return next((name for name in ROWID_NAMES if name not in self.columns), None)


@dataclass(frozen=True, slots=True)
class Index:
    """A created index; the ones behind PRIMARY KEY and UNIQUE belong to the table."""

    key: str
    name: str = field(compare=False)
    table: str
    parts: tuple[Part, ...]
    unique: bool
    where: Sql | None
    sql: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Code:
    """A view, trigger or virtual table, compared by its whole statement. `table` is a trigger's."""

    key: str
    name: str = field(compare=False)
    statement: Sql
    table: str | None = None

    @property
    def sql(self) -> str:
        """Return the statement as written."""
        return self.statement.text

    @property
    def content(self) -> str | None:
        """Return the key of a full-text index's content table, if it has one."""
        return self._option("content")

    @property
    def content_rowid(self) -> str | None:
        """Return the column of the content table that a full-text index goes by, if it names one."""
        return self._option("content_rowid")

    @property
    def listed(self) -> str | None:
        """Return the key of the full-text index whose terms a virtual table lists, if it does."""
        _, _, module = self.statement.normal.partition(" using ")
        name, _, arguments = module.partition(" ( ")
        given = arguments.rstrip(" )").split(",")
        return fold(unquote(given[0].strip())) if name in ("fts5vocab", "fts4aux") else None

    def _option(self, name: str) -> str | None:
        text = self.statement.normal
        found = list(tokens(text))
        for at, (option, sign) in enumerate(pairwise(found)):
            if option.text == name and sign.text == "=":
                ends = (one.start for one in found[at:] if one.text in (",", ")"))
                end = next(ends, len(text))
                return fold(unquote(text[sign.start + 1 : end].strip())) or None
        return None


@dataclass(frozen=True, slots=True)
class Schema:
    """Everything in a database that a migration can change, by key, in creation order."""

    tables: dict[str, Table] = field(default_factory=dict)
    indexes: dict[str, Index] = field(default_factory=dict)
    views: dict[str, Code] = field(default_factory=dict)
    triggers: dict[str, Code] = field(default_factory=dict)
    virtual_tables: dict[str, Code] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Tell whether the schema has any object."""
        return bool(self.tables or self.views or self.virtual_tables)

    def indexes_of(self, table: str) -> tuple[Index, ...]:
        """Return the indexes of a table, in the order of creation."""
        return tuple(index for index in self.indexes.values() if index.table == table)


class HazardKind(StrEnum):
    """The closed set of risks to review before a migration is applied."""

    DELETES_DATA = "deletes_data"
    CHANGES_VALUES = "changes_values"
    NOT_NULL_WITHOUT_DEFAULT = "not_null_without_default"
    ADDS_UNIQUE = "adds_unique"
    ADDS_CHECK = "adds_check"
    DROPS_INDEX = "drops_index"
    DROPS_TRIGGER = "drops_trigger"
    REBUILD = "rebuild"
    CHANGES_PRIMARY_KEY = "changes_primary_key"
    NARROWS_TYPE = "narrows_type"
    KEEPS_EXISTING = "keeps_existing"
    BREAKS_RUNNING_VERSION = "breaks_running_version"


DELETING = frozenset({HazardKind.DELETES_DATA})
"""The kinds that the policy `[guard] destructive` is about."""


@dataclass(frozen=True, slots=True)
class Hazard:
    """One risk to review: its kind, the table, column or index, and what to do about it."""

    kind: HazardKind
    object: str
    message: str
