"""Track tables through renames and rebuilds, from the actions that SQLite's authorizer reported. Pure.

A rebuild ends with a new table under the old one's name. It may be created under a temporary name and
renamed, or the old one may be renamed first; in one file, or over several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from local_mcp_gateway.sql import fold, fold_all


class Change(NamedTuple):
    """What a statement did to a table as a whole, or to its rows."""

    what: Literal["create", "drop", "rename", "delete"]
    table: str
    to: str = ""
    """The new name of a renamed one."""


class Fate(NamedTuple):
    """What happened to a table that existed before; names folded."""

    last_name: str
    """The last name that it had itself."""
    now: str | None
    """Its name now, or that of the table that replaced it; None: it was dropped."""
    dropped: bool
    rebuilt: bool
    """It was dropped, and a table that was created since has its name now."""
    replaced: str | None
    """It still exists under another name, and another table has its name: that name."""
    deleted_from: bool
    """A statement deleted rows of it or of its replacement."""


@dataclass(slots=True, eq=False)
class Table:
    """One table, whatever its name is at the moment."""

    names: list[str]
    """Every name that it had, the newest last; folded."""
    before: bool
    """It existed before the first change."""
    alive: bool = True
    deleted_from: bool = False
    heirs: list[Table] = field(default_factory=list)
    """Tables that took a name of its, in order."""

    def line(self) -> list[Table]:
        """Return the table and those that replaced it, one after the other."""
        line = [self]
        while not line[-1].alive and line[-1].heirs and line[-1].heirs[0] not in line:
            line.append(line[-1].heirs[0])
        return line


class Lineage:
    """Follows the tables that were there before through changes, in order."""

    def __init__(self, before: Iterable[str], changes: Iterable[Change] = ()) -> None:
        """Names `before` are folded."""
        self._before = {name: Table([name], before=True) for name in before}
        self.named = dict(self._before)
        """The tables that are there now, by name."""
        self._vacated: dict[str, Table] = {}
        self.follow(changes)

    def follow(self, changes: Iterable[Change]) -> None:
        """Follow further changes."""
        done = tuple(changes)
        names = fold_all([change.table for change in done])
        new_names = fold_all([change.to for change in done])
        for change, name, to in zip(done, names, new_names, strict=True):
            self._follow(change.what, name, to)

    def _follow(self, what: str, name: str, to: str) -> None:
        table = self.named.get(name)
        match what:
            case "create" if table is None:
                self._take(name, Table([name], before=False))
            case "drop" if table is not None:
                table.alive = False
                self._leave(name, table)
            case "rename" if table is not None and to != name:
                self._leave(name, table)
                table.names.append(to)
                self._take(to, table)
            case "delete" if table is not None:
                table.deleted_from = True
            case _:  # a virtual table's, or CREATE … IF NOT EXISTS
                pass

    def _leave(self, name: str, table: Table) -> None:
        del self.named[name]
        self._vacated[name] = table

    def _take(self, name: str, table: Table) -> None:
        gone = self._vacated.pop(name, None)
        if gone is not None and gone is not table:
            gone.heirs.append(table)
        self.named[name] = table

    def fate(self, name: str) -> Fate:
        """Return what happened to the table that had this name before the first change."""
        table = self._before.get(name) or self._before[fold(name)]
        last = table.names[-1]
        if table.alive:
            taken = (old for old in table.names[:-1] if old in self.named)
            replaced = next((old for old in taken if not self.named[old].before), None)
            return Fate(last, last, False, False, replaced, table.deleted_from)
        line = table.line()
        heir = line[-1]
        if not heir.alive:
            return Fate(last, None, True, False, None, table.deleted_from)
        deleted_from = any(one.deleted_from for one in line)
        return Fate(last, heir.names[-1], True, not heir.before, None, deleted_from)

    def fates(self) -> dict[str, Fate]:
        """Return what happened to each table that was there before; names folded."""
        return {name: self.fate(name) for name in self._before}

    def now(self, name: str) -> str:
        """Return the present name of a table that had this one, or of its replacement; else the same."""
        return (self.fate(name).now or name) if name in self else name

    def __contains__(self, name: object) -> bool:
        """Tell whether there was a table of this (folded) name before."""
        return name in self._before

    def __iter__(self) -> Iterator[str]:
        """Yield the folded names of the tables that were there before."""
        return iter(self._before)
