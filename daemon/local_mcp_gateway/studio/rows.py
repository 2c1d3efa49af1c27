"""The rows of one table: pages by key, filters, single rows, exports; and their changes with a way back.

A list never carries a blob, and of a long text only its beginning. What is changed is checked to be as
it was shown: whoever was faster wins, and the other is told.
"""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.database import Error
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.tables import Column, Link, Table, count, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from local_mcp_gateway.database import Connection

PAGE: Final = 50
CUT: Final = 200
"""How many characters of a text a list shows."""
MOST_COLUMNS: Final = 300
"""How many columns a list shows: SQLite gives at most 2,000 results for one row."""
LONGEST_EDIT: Final = 100_000
"""A longer text is not changed in a form."""
DEEPEST_OFFSET: Final = 100_000
KIND_BYTES: Final = 16
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
_TIME: Final = re.compile(r"(^|_)(at|time|date|when|on|until|since|created|updated|expires)$")
_MAGIC: Final = (
    (b"\x89PNG", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip"),
    (b"SQLite format 3", "SQLite database"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One value as it is shown."""

    kind: str
    """null, integer, real, text, blob or masked"""
    value: Any = None
    """The number, the text or its beginning; None for a blob."""
    length: int = 0
    """Characters of a text, bytes of a blob."""
    what: str = ""
    """What a blob looks like."""
    time: bool = False

    @property
    def cut(self) -> int:
        """Return how many characters are not shown."""
        return self.length - len(self.value) if self.kind == "text" else 0

    @property
    def typed(self) -> str:
        """Return it as a field of a form gives it back: a browser changes line ends."""
        return "" if self.value is None else str(self.value).replace("\r\n", "\n")

    @property
    def digest(self) -> str:
        """Return what tells whether it is still the same value."""
        return sha256(
            f"{self.kind} {self.length} {self.value!r}".encode("utf-8", "replace")
        ).hexdigest()[:20]

    @property
    def is_json(self) -> bool:
        """Return whether it looks like a JSON object or list."""
        return self.kind == "text" and self.value[:1] in {"{", "["}


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
    whole: bool = False,
) -> list[Row]:
    key = [quoted(name) for name in table.key]
    parts = list(key)
    for column in columns:
        name = quoted(column.name)
        text = name if whole else f"substr({name}, 1, {CUT})"
        parts += [
            f"typeof({name})",
            f"CASE typeof({name}) WHEN 'blob' THEN NULL WHEN 'text' THEN {text} ELSE {name} END",
            f"length({name})",
        ]
    sql = f"SELECT {', '.join(parts) or '1'} FROM {quoted(table.name)} WHERE {tail}"
    found = []
    for row in connection.execute(sql, values):
        given = row[len(key) :]
        keys = row[: len(key)]
        cells = tuple(
            _cell(connection, table, column, keys, *given[at * 3 : at * 3 + 3])
            for at, column in enumerate(columns)
        )
        found.append(Row(key_text(keys) if key else "", cells))
    return found


def _cell(
    connection: Connection,
    table: Table,
    column: Column,
    keys: Sequence[object],
    kind: str,
    value: Any,
    length: int | None,
) -> Cell:
    if kind == "blob":
        return Cell(kind, None, length or 0, _looks_like(connection, table, column, keys))
    time = kind == "integer" and bool(_TIME.search(column.name)) and 10**11 < value < 10**13
    return Cell(kind, value, (length or 0) if kind == "text" else 0, "", time)


def _looks_like(
    connection: Connection, table: Table, column: Column, keys: Sequence[object]
) -> str:
    """Return what the first bytes of a blob say; a blob handle reads no more than these."""
    if not table.by_rowid or table.kind != "table" or column.generated:
        return "blob"
    try:
        with connection.blobopen(table.name, column.name, int(str(keys[0])), readonly=True) as blob:
            beginning = blob.read(KIND_BYTES)
    except (*Error, ValueError, OverflowError):  # it is only a hint
        return "blob"
    return next((what for magic, what in _MAGIC if beginning.startswith(magic)), "blob")


def read_row(connection: Connection, table: Table, key: str) -> Row | None:
    """Return one row with whole texts up to LONGEST_EDIT; blobs only as what they are."""
    condition, values = by_key_text(table, key)
    (row,) = _select(
        connection, table, table.shown, f"{condition} LIMIT 1", values, whole=True
    ) or (None,)
    if row is None:
        return None
    cells = tuple(
        Cell(cell.kind, cell.value[:LONGEST_EDIT], cell.length, cell.what, cell.time)
        if cell.kind == "text"
        else cell
        for cell in row.cells
    )
    return Row(row.key, cells)


def pointing_at(
    connection: Connection, table: Table, key: str
) -> list[tuple[Link, int, tuple[Condition, ...]]]:
    """Return for each foreign key that refers to this table how many rows refer to this row."""
    found = []
    condition, keys = by_key_text(table, key)
    for link in table.pointing:
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


# --- keys ---------------------------------------------------------------------------------------


def key_text(values: Sequence[object]) -> str:
    """Return the values of a key as an address carries them; bytes as hexadecimal."""
    return json.dumps(
        [{"x": value.hex()} if isinstance(value, bytes) else value for value in values],
        ensure_ascii=False,
    )


def key_values(table: Table, text: str) -> list[object]:
    """Return the values of a key; raises UsageProblem if it is none of this table."""
    try:
        values = json.loads(text)
        found = [bytes.fromhex(v["x"]) if isinstance(v, dict) else v for v in values]
    except (ValueError, TypeError, KeyError, RecursionError):
        found = []
    plain = all(value is None or isinstance(value, (int, float, str, bytes)) for value in found)
    if not table.key or len(found) != len(table.key) or not plain:
        raise UsageProblem(f"This names no row of {table.name}.", hint="Open it from the list.")
    if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in found):
        raise UsageProblem(f"This names no row of {table.name}.", hint="Open it from the list.")
    return found


def by_key_text(table: Table, text: str) -> tuple[str, list[object]]:
    """Return the condition that a row has this key, and its values."""
    values = key_values(table, text)
    return " AND ".join(f"{quoted(name)} IS ?" for name in table.key), values


# --- values -------------------------------------------------------------------------------------


def typed(column: Column, text: str) -> object:
    """Return what was typed as the column's affinity takes it; what does not fit stays a text."""
    if column.affinity in {"integer", "real", "numeric"} or (
        column.affinity == "blob" and not column.type
    ):
        for make in (int, float):
            try:
                number = make(text.strip())
            except ValueError:
                continue
            if isinstance(number, float) and isfinite(number):
                return number
            if isinstance(number, int) and -(2**63) <= number < 2**63:
                return number
    return text


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


# --- exports ------------------------------------------------------------------------------------


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
        literal = " || ', ' || ".join(f"quote({quoted(name)})" for name in names) or "''"
        head = f"INSERT INTO {quoted(table.name)} ({listed}) VALUES ("
        for (row,) in connection.execute(f"SELECT {literal} {source}", values):
            yield f"{head}{row});\n"
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


def plain(value: object) -> object:
    """Return a value as text formats hold it: bytes as hexadecimal."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return str(value) if isinstance(value, float) and not isfinite(value) else value
