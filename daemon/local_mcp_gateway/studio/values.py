"""Show and parse the values of columns, and put the key of a row into an address.

A list reads the beginning of a long text only, and no blob at all.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.database import Connection, Error
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import counted
from local_mcp_gateway.sql import literal as text_literal
from local_mcp_gateway.sql import spelled
from local_mcp_gateway.studio.tables import Column, Table, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence


CUT: Final = 200
"""How many characters of a text a list shows."""
KIND_BYTES: Final = 16
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
    stored: int | None = None
    """Bytes of a text of which no more can be shown: it goes on after a NUL, or is not all UTF-8."""

    @property
    def more(self) -> str:
        """Return what there is of a text that is not shown whole; empty if it is."""
        if self.stored is not None:
            return f"all {counted(self.stored, 'byte')}"
        cut = self.kind == "text" and self.length > len(self.value)
        return f"all {self.length:,} characters" if cut else ""

    @property
    def as_it_is(self) -> bool:
        """Return whether a list shows the value itself: most are, and a page has many."""
        if self.kind == "text":
            return self.stored is None and 0 < self.length == len(self.value)
        return self.kind in {"integer", "real"} and not self.time

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


def cell_of(
    connection: Connection,
    table: Table,
    column: Column,
    keys: Sequence[object],
    read: tuple[str, Any, int | None, int | None],
    encoding: str,
) -> Cell:
    """Return a value that was read as its type, itself (None for a blob), its length and a text's bytes."""
    kind, value, length, stored = read
    if kind == "blob":
        return Cell(kind, None, length or 0, _looks_like(connection, table, column, keys))
    if kind == "text":
        # SQLite counts only what is before a NUL, and gives no more of it.
        cut = len(value) < (length or 0)
        whole = "\ufffd" not in value and len(value.encode(encoding)) == stored
        return Cell(kind, value, length or 0, stored=None if cut or whole else stored)
    time = kind == "integer" and bool(_TIME.search(column.name)) and 10**11 < value < 10**13
    return Cell(kind, value, time=time)


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


def shown_as(text: str, *, is_null: bool) -> set[str]:
    """Return the digests of the values that the field of a form shows like this."""
    if is_null:
        return {Cell("null").digest}
    found = {Cell("text", one, len(one)).digest for one in (text, text.replace("\n", "\r\n"))}
    for kind, make in (("integer", int), ("real", float)):
        with suppress(ValueError):
            if str(number := make(text)) == text:
                found.add(Cell(kind, number).digest)
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


# --- typing and writing ------------------------------------------------------------------------


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


def exactly(name: str) -> str:
    """Return the SQL of a value as it is stored: the bytes of a text, and a blob as its literal."""
    return (
        f"CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB)"
        f" WHEN 'blob' THEN quote({name}) ELSE {name} END"
    )


def literal(value: object, encoding: str) -> str:
    """Return as SQL what `exactly` read; a text that its encoding does not allow by its bytes."""
    if isinstance(value, bytes):
        try:
            text = value.decode(encoding)
        except UnicodeDecodeError:
            return f"CAST(x'{value.hex()}' AS TEXT)"
        return spelled(text, "\0".__ne__) if "\0" in text else text_literal(text)
    if isinstance(value, float) and not isfinite(value):
        return "9e999" if value > 0 else "-9e999"
    return "NULL" if value is None else str(value)


def plain(value: object) -> object:
    """Return a value as text formats hold it: bytes as hexadecimal."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return str(value) if isinstance(value, float) and not isfinite(value) else value
