"""Read the rows of one table: pages by key, filters, single rows, the choices of a foreign key, exports."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.database import Connection, Error
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.tables import (
    Column,
    Link,
    Table,
    count,
    encoding_of,
    links_to,
    quoted,
)
from local_mcp_gateway.studio.values import (
    CUT,
    Cell,
    by_key_text,
    cell_of,
    exactly,
    key_text,
    key_values,
    literal,
    plain,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


PAGE: Final = 50
MOST_COLUMNS: Final = 300
"""How many columns a list shows: SQLite gives at most 2,000 results for one row."""
LONGEST_EDIT: Final = 100_000
"""A longer text is not changed in a form."""
DEEPEST_OFFSET: Final = 100_000
MOST_CHOICES: Final = 50
NAMING: Final = ("name", "title", "label", "tag", "email", "slug", "code", "description")
"""Columns that a person knows a row by, the best first; else its first text."""
OPERATORS: Final = {
    "=": "is",
    "<>": "is not",
    "<": "less than",
    ">": "more than",
    "contains": "contains",
    "starts": "starts with",
    "null": "is NULL",
    "value": "is not NULL",
    "match": "matches",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter: column, operator, value."""

    column: str
    operator: str
    value: str = ""

    @property
    def text(self) -> str:
        """Return it as the address carries it."""
        return json.dumps([self.column, self.operator, self.value], ensure_ascii=False)

    @classmethod
    def of(cls, text: str) -> Condition | None:
        """Read it from an address; None if it is none."""
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not (
            isinstance(parts, list) and len(parts) == 3 and all(isinstance(p, str) for p in parts)
        ):
            return None
        return cls(*parts) if parts[1] in OPERATORS else None


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows are asked for."""

    conditions: tuple[Condition, ...] = ()
    sort: str = ""
    down: bool = False
    after: str = ""
    before: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a page: its key as the address carries it, and a cell for each column."""

    key: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows, with what leads to the next and the previous one."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    newer: Mapping[str, object] | None
    older: Mapping[str, object] | None
    hidden: int
    """How many columns are not shown."""


# --- reading ------------------------------------------------------------------------------------


def where_of(table: Table, conditions: Sequence[Condition]) -> tuple[str, list[object]]:
    """Return the condition and its values; raises UsageProblem for a column that is not there."""
    terms: list[str] = []
    values: list[object] = []
    for condition in conditions:
        if condition.operator == "match":
            terms.append(f"{quoted(table.name)} MATCH ?")
            values.append(condition.value)
            continue
        column = table.column(condition.column)
        if column is None or column.masked:
            raise UsageProblem(
                f"{table.name} has no column {condition.column!r} to filter by.",
                hint="Remove this filter.",
            )
        name = quoted(column.name)
        match condition.operator:
            case "null" | "value":
                terms.append(f"{name} IS {'NOT ' if condition.operator == 'value' else ''}NULL")
                continue
            case "contains":
                terms.append(f"instr(lower({name}), lower(?)) > 0")
            case "starts":
                terms.append(f"substr({name}, 1, length(?)) = ?")
                values.append(condition.value)
            case _ as operator:
                terms.append(f"{name} {operator} ?")
        values.append(
            condition.value
            if condition.operator in {"contains", "starts"}
            else typed(column, condition.value)
        )
    return " AND ".join(f"({term})" for term in terms) or "1", values


def read_page(connection: Connection, table: Table, asked: Asked) -> Page:
    """Return one page of rows; by key, or by offset where they are sorted otherwise or have no key."""
    columns = table.shown[:MOST_COLUMNS]
    where, values = where_of(table, asked.conditions)
    sort = table.column(asked.sort) if asked.sort else None
    by_key = bool(table.key) and (sort is None or (sort.name,) == table.key)
    if not by_key:
        order = f" ORDER BY {quoted(sort.name)}{' DESC' if asked.down else ''}" if sort else ""
        offset = min(max(asked.offset, 0), DEEPEST_OFFSET)
        rows = _select(
            connection, table, columns, f"{where}{order} LIMIT {PAGE + 1} OFFSET {offset}", values
        )
        return Page(
            columns,
            tuple(rows[:PAGE]),
            {"offset": max(0, offset - PAGE) or None} if offset else None,
            {"offset": offset + PAGE} if len(rows) > PAGE and offset < DEEPEST_OFFSET else None,
            len(table.columns) - len(columns),
        )
    back = bool(asked.before)
    down = asked.down != back
    names = ", ".join(map(quoted, table.key))
    if mark := (asked.before or asked.after):
        marks = ", ".join("?" * len(table.key))
        where += f" AND ({names}) {'<' if down else '>'} ({marks})"
        values += key_values(table, mark)
    order = ", ".join(f"{quoted(name)}{' DESC' if down else ''}" for name in table.key)
    rows = _select(connection, table, columns, f"{where} ORDER BY {order} LIMIT {PAGE + 1}", values)
    more = len(rows) > PAGE
    rows = rows[:PAGE][::-1] if back else rows[:PAGE]
    first = rows[0].key if rows and ((back and more) or (mark and not back)) else None
    last = rows[-1].key if rows and ((not back and more) or back) else None
    return Page(
        columns,
        tuple(rows),
        {"before": first, "after": None} if first else None,
        {"after": last, "before": None} if last else None,
        len(table.columns) - len(columns),
    )


def _select(
    connection: Connection,
    table: Table,
    columns: Sequence[Column],
    tail: str,
    values: Sequence[object],
    *,
    longest: int = CUT,
) -> list[Row]:
    key = [quoted(name) for name in table.key]
    parts = list(key)
    for column in columns:
        name = quoted(column.name)
        text = f"substr({name}, 1, {longest})"
        parts += [
            f"typeof({name})",
            f"CASE typeof({name}) WHEN 'blob' THEN NULL WHEN 'text' THEN {text} ELSE {name} END",
            f"length({name})",
            f"CASE typeof({name}) WHEN 'text' THEN length(CAST({name} AS BLOB)) END",
        ]
    sql = f"SELECT {', '.join(parts) or '1'} FROM {quoted(table.name)} WHERE {tail}"
    found, encoding = [], encoding_of(connection)
    for row in connection.execute(sql, values):
        given = row[len(key) :]
        keys = row[: len(key)]
        cells = tuple(
            cell_of(connection, table, column, keys, given[at * 4 : at * 4 + 4], encoding)
            for at, column in enumerate(columns)
        )
        found.append(Row(key_text(keys) if key else "", cells))
    return found


def read_row(connection: Connection, table: Table, key: str) -> Row | None:
    """Return one row with texts up to LONGEST_EDIT; blobs only as what they are."""
    condition, values = by_key_text(table, key)
    cells: list[Cell] = []
    for at in range(0, max(1, len(table.shown)), MOST_COLUMNS):
        part = table.shown[at : at + MOST_COLUMNS]
        rows = _select(
            connection, table, part, f"{condition} LIMIT 1", values, longest=LONGEST_EDIT
        )
        if not rows:
            return None
        cells += rows[0].cells
    return Row(rows[0].key, tuple(cells))


def pointing_at(
    connection: Connection, table: Table, key: str
) -> list[tuple[Link, int, tuple[Condition, ...]]]:
    """Return for each foreign key that refers to this table how many rows refer to this row."""
    found = []
    condition, keys = by_key_text(table, key)
    for link in links_to(connection, table.name):
        wanted = ", ".join(map(quoted, link.to_columns))
        row = connection.execute(
            f"SELECT {wanted} FROM {quoted(table.name)} WHERE {condition}", keys
        ).fetchone()
        if row is None or any(value is None or isinstance(value, bytes) for value in row):
            continue
        terms = " AND ".join(f"{quoted(name)} = ?" for name in link.columns)
        rows = count(connection, f"{quoted(link.table)} WHERE {terms}", tuple(row))
        conditions = tuple(
            Condition(name, "=", str(value)) for name, value in zip(link.columns, row, strict=True)
        )
        found.append((link, rows, conditions))
    return found


# --- what a foreign key may refer to ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """A row that a foreign key may refer to: what is stored, and what a person knows it by."""

    value: str
    label: str


def choices(connection: Connection, table: Table, link: Link, text: str = "") -> list[Choice]:
    """Return rows that a foreign key to this table may refer to, at most MOST_CHOICES.

    With a text: those whose key begins with it or whose label contains it, as far as SQLite finds them
    before it is interrupted.
    """
    found: list[Choice] = []
    named = _named_by(table, link)
    if named is None:
        return found
    key, label = named
    where, values = "", []
    if text:
        where = f" WHERE instr(lower({label}), lower(?)) > 0 OR substr({key}, 1, length(?)) = ?"
        values = [text] * 3
    sql = f"SELECT {key}, substr({label}, 1, {CUT}) FROM {quoted(table.name)}{where}"
    try:
        for value, said in connection.execute(f"{sql} LIMIT {MOST_CHOICES}", values):
            if isinstance(value, (int, float, str)):
                found.append(Choice(str(value), "" if said == value else str(said or "")))
    except Error as error:
        if "interrupted" not in str(error):
            raise
    return found


def label_of(connection: Connection, table: Table, link: Link, value: object) -> str:
    """Return what a person knows the row by that a foreign key refers to; empty if there is none."""
    named = _named_by(table, link)
    if named is None or value is None:
        return ""
    key, label = named
    sql = f"SELECT substr({label}, 1, {CUT}) FROM {quoted(table.name)} WHERE {key} = ? LIMIT 1"
    row = connection.execute(sql, (value,)).fetchone()
    return str(row[0]) if row and row[0] not in (None, value) else ""


def _named_by(table: Table, link: Link) -> tuple[str, str] | None:
    """Return the column that a foreign key refers to and the one that names the row, quoted."""
    key = table.column(link.to_columns[0]) if len(link.columns) == 1 else None
    if key is None or key.masked:
        return None
    texts = [c for c in table.shown if c.affinity == "text" and not c.choices and c != key]
    best = min(
        texts,
        key=lambda c: NAMING.index(c.name.lower()) if c.name.lower() in NAMING else 99,
        default=key,
    )
    return quoted(key.name), quoted(best.name)


# --- changes and exports ------------------------------------------------------------------------


def check_writable(table: Table, column: Column) -> None:
    """Raise UsageProblem for a column that is not changed from here."""
    if column.masked or column.generated:
        why = "holds a secret" if column.masked else "is computed"
        raise UsageProblem(
            f"The column {column.name} {why} and is not changed here.", hint="Leave it."
        )
    if not table.editable:
        raise UsageProblem(
            f"The rows of {table.name} are not changed here.", hint="They are only shown."
        )


def export(
    connection: Connection, table: Table, conditions: Sequence[Condition], form: str
) -> Iterator[str]:
    """Yield the rows that a filter selects as CSV, JSON or SQL, in parts; secrets are left out."""
    where, values = where_of(table, conditions)
    columns = [column for column in table.shown if form != "sql" or not column.generated]
    names = [column.name for column in columns]
    listed = ", ".join(map(quoted, names)) or "NULL"
    source = f"FROM {quoted(table.name)} WHERE {where}"
    if form == "sql":
        stored = ", ".join(exactly(quoted(name)) for name in names) or "NULL"
        head = f"INSERT INTO {quoted(table.name)} ({listed}) VALUES"
        encoding = encoding_of(connection)
        for row in connection.execute(f"SELECT {stored} {source}", values):
            yield f"{head} ({', '.join(literal(value, encoding) for value in row)});\n"
        return
    rows = connection.execute(f"SELECT {listed} {source}", values)
    if form == "json":
        yield "["
        for at, row in enumerate(rows):
            pairs = {name: plain(value) for name, value in zip(names, row, strict=False)}
            yield (",\n " if at else "\n ") + json.dumps(pairs, ensure_ascii=False)
        yield "\n]\n"
        return
    for row in (names, *rows):
        buffer = io.StringIO()
        csv.writer(buffer).writerow([plain(value) for value in row])
        yield buffer.getvalue()
