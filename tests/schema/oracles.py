"""The six oracles of a plan, over one pair of schemas with rows in every table."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from local_mcp_gateway.schema import Schema, compare, inspect
from local_mcp_gateway.schema.create_table import affinity
from local_mcp_gateway.schema.model import DELETING, HazardKind
from local_mcp_gateway.schema.plan import (
    NotDerivable,
    Plan,
    derive_down,
    make_plan,
    missing_values,
    schema_copy,
)
from local_mcp_gateway.schema.renames import Renames
from local_mcp_gateway.sql import fold, quote, unquote
from tests.schema import seeding

if TYPE_CHECKING:
    from local_mcp_gateway.schema.model import Column, Table
    from tests.tally import Count

STRICTER = {
    HazardKind.ADDS_UNIQUE,
    HazardKind.ADDS_CHECK,
    HazardKind.CHANGES_PRIMARY_KEY,
    HazardKind.NARROWS_TYPE,
    HazardKind.NOT_NULL_WITHOUT_DEFAULT,
}
"""Kinds that SQLite may refuse on rows that exist; a refusal is right then, and must change nothing."""

LETTERS = "bcdef"
"""The oracles that `judge` runs: (a), the text of the plan, is for the cases that a person wrote."""

Reference = tuple[str, str, tuple[str, ...]]
"""Child, parent, and the child's columns."""
Rows = dict[str, list[dict[str, object]]]


@dataclass
class Verdict:
    """What failed, by oracle letter, and what was noted on the way."""

    failures: dict[str, str] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)
    plan: Plan | None = None

    def counted(self, count: Count, line: str, case: str) -> None:
        """Count the case, the oracles that it passes, and what made one of them easier."""
        count(line, "judged", case)
        for letter in LETTERS:
            if letter not in self.failures:
                count(line, f"pass ({letter})", case)
        for note in self.notes:
            count(line, note.partition(":")[0], case)


def judge(old: Schema, new: Schema, renames: Renames | None = None) -> Verdict:
    """Run oracles (b) to (f) on one pair, in memory."""
    verdict = Verdict()
    decided = renames or Renames()
    fills = {
        (table.key, column.key): _fill(new, table, column)
        for table, column in missing_values(old, new, decided)
    }
    plan = verdict.plan = make_plan(old, new, renames=decided, fills=fills)
    if not plan.statements:
        verdict.notes.add("nothing to do")
    live = schema_copy(old)
    for table in seeding.seed(live, old):
        verdict.notes.add(f"unseeded: {table}")
    before = _rows(live, old)
    damaged = _dangling(live, old)
    refusal = _apply(live, plan)
    if refusal is not None:
        if not fills and not {hazard.kind for hazard in plan.hazards} & STRICTER:
            verdict.failures["b"] = f"refused without a hazard that says so: {refusal}"
            return verdict
        if _rows(live, old) != before or compare(old, inspect(live)):
            verdict.failures["d"] = "a refused plan changed something"
        verdict.notes.add(f"refused on rows: {refusal}")
        live.close()
        live = schema_copy(old)
        before, damaged = _rows(live, old), _dangling(live, old)
        refusal = _apply(live, plan)
        if refusal is not None:
            verdict.failures["b"] = refusal
            return verdict
    found = inspect(live)
    if left := compare(new, found):
        verdict.failures["b"] = str(left[0])
    if again := make_plan(found, new).statements:
        verdict.failures["c"] = again[0]
    _same_rows(verdict, "d", before, _rows(live, found), old, found, decided)
    _clean(verdict, live, found, damaged, _told(plan))
    _way_back(verdict, live, old, new, decided)
    live.close()
    return verdict


def _told(plan: Plan) -> set[str]:
    """Return the tables that the plan deletes from, and the references that rows may violate, as it says."""
    checked = {h.object.lower() for h in plan.hazards if h.kind is HazardKind.ADDS_CHECK}
    deleting = (hazard for hazard in plan.hazards if hazard.kind in DELETING)
    return checked | {fold(unquote(hazard.object.partition(".")[0])) for hazard in deleting}


def _apply(live: sqlite3.Connection, plan: Plan) -> str | None:
    """Run a plan as the guard does: foreign keys off, one transaction; return why it failed."""
    live.execute("BEGIN IMMEDIATE")
    try:
        for statement in plan.statements:
            live.execute(statement)
    except sqlite3.Error as error:
        live.execute("ROLLBACK")
        return str(error)
    live.execute("COMMIT")
    return None


def _way_back(
    verdict: Verdict,
    live: sqlite3.Connection,
    old: Schema,
    new: Schema,
    renames: Renames,
) -> None:
    """(e): down leads back to A, with the rows of what both have."""
    try:
        down = derive_down(old, new, renames)
    except NotDerivable as why:
        verdict.notes.add(f"no down: {why}")
        return
    before, damaged = _rows(live, new), _dangling(live, new)
    refusal = _apply(live, down)
    if refusal is not None:
        if not {hazard.kind for hazard in down.hazards} & STRICTER:
            verdict.failures["e"] = f"down refused: {refusal}"
            return
        verdict.notes.add(f"down refused on rows: {refusal}")
        for table in new.tables.values():
            live.execute(f"DELETE FROM {quote(table.name)}")
        before, damaged = _rows(live, new), _dangling(live, new)
        refusal = _apply(live, down)
        if refusal is not None:
            verdict.failures["e"] = f"down refused: {refusal}"
            return
    found = inspect(live)
    if left := compare(old, found):
        verdict.failures["e"] = str(left[0])
    _same_rows(verdict, "e", before, _rows(live, found), new, found, renames.inverse())
    _clean(verdict, live, found, damaged, _told(down))


def _clean(
    verdict: Verdict,
    live: sqlite3.Connection,
    schema: Schema,
    before: Counter[Reference],
    deleted: set[str],
) -> None:
    """(f): the file is whole, and no reference dangles that both schemas have and that held before.

    Where the values of a parent were deleted on purpose, its children dangle on purpose.
    """
    [(result,)] = live.execute("PRAGMA integrity_check(1)").fetchall()
    if result != "ok":
        verdict.failures["f"] = result
    for reference, count in _dangling(live, schema).items():
        if count <= before[reference]:
            continue
        table, parent, columns = reference
        nowhere = parent not in schema.tables  # the schema references a table that it does not have
        place = f"{quote(table)}({', '.join(columns)})"
        if nowhere or place in deleted or reference not in before or parent in deleted:
            verdict.notes.add("new references do not hold for made-up rows")
        else:
            verdict.failures["f"] = f"{table}({', '.join(columns)}) → {parent} dangles"


def _dangling(live: sqlite3.Connection, schema: Schema) -> Counter[Reference]:
    """Count the dangling rows of each reference; zero is counted too, to tell known from new."""
    links = {
        (table.key, link.table, link.columns): 0
        for table in schema.tables.values()
        for link in table.foreign_keys
    }
    found: Counter[Reference] = Counter(links)
    for table in {table for table, _, _ in links}:
        listed: dict[int, list[str]] = {}
        for row in live.execute(f"PRAGMA foreign_key_list({quote(table)})"):
            listed.setdefault(row[0], []).append(row[3].lower())
        try:
            for _, _, parent, number in live.execute(f"PRAGMA foreign_key_check({quote(table)})"):
                found[table, parent.lower(), tuple(listed[number])] += 1
        except sqlite3.OperationalError:  # the parent has no such key: the schema itself is broken
            continue
    return found


def _rows(connection: sqlite3.Connection, schema: Schema) -> Rows:
    found: Rows = {}
    for table in schema.tables.values():
        names = [column.key for column in table.columns.values() if column.generated is None]
        listed = ", ".join(map(quote, names))
        cursor = connection.execute(f"SELECT {listed} FROM {quote(table.name)}")
        found[table.key] = [dict(zip(names, row, strict=True)) for row in cursor]
    return found


def _same_rows(
    verdict: Verdict,
    letter: str,
    before: Rows,
    after: Rows,
    old: Schema,
    new: Schema,
    renames: Renames,
) -> None:
    """(d): every table that both have keeps its rows, and every column that both have its values."""
    names = {key: name.lower() for key, name in renames.tables.items()}
    for key, rows in before.items():
        now = names.get(key, key)
        taken = now in names.values() and key not in names  # dropped: another table has its name
        if now not in after or taken:
            continue
        if len(rows) != len(after[now]):
            verdict.failures[letter] = f"{key}: {len(rows)} rows became {len(after[now])}"
            return
        moved = {
            column: renames.columns.get((now, column), column).lower()
            for column in old.tables[key].columns
        }
        reached = {n.lower() for (table, _), n in renames.columns.items() if table == now}
        for column in old.tables[key].columns.values():
            if column.key in reached and (now, column.key) not in renames.columns:
                continue  # dropped: another column has its name by now
            target = new.tables[now].columns.get(moved[column.key])
            if target is None or target.generated or column.generated:
                continue
            exact = column.type == target.type
            was = sorted(
                _shown(row[column.key], exact=exact) for row in rows if row[column.key] is not None
            )
            is_ = [_shown(row[target.key], exact=exact) for row in after[now]]
            if any(value not in is_ for value in was):
                verdict.failures[letter] = f"{key}.{column.key}: {was} became {is_}"


def _shown(value: object, *, exact: bool) -> str:
    if exact:
        return repr(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value).removesuffix(".0")


def _fill(schema: Schema, table: Table, column: Column) -> str:
    """Return what a person could give to `--fill` for a column that must have a value."""
    for link in table.foreign_keys:
        if column.key in link.columns and link.table in schema.tables:
            to = link.to[link.columns.index(column.key)] if link.to else "rowid"
            return f"(SELECT {quote(to)} FROM {quote(link.table)} LIMIT 1)"
    kind = affinity(column.type.normal)
    keys = [key.columns for key in (table.primary_key, *table.uniques) if key]
    keys += [tuple(p.sql.normal for p in i.parts) for i in schema.indexes_of(table.key) if i.unique]
    if any(column.key in key for key in keys):
        return "hex(randomblob(8))" if kind in {"text", "blob"} else "abs(random())"
    for check in table.checks:
        if column.key in check.expression.normal.split():
            found = seeding.LITERAL.search(check.expression.text)
            if found:
                return found.group()
    return {"text": "'{}'", "blob": "x''"}.get(kind, "0")
