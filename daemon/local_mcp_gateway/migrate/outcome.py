"""Everything that migrations make of an empty database: schema, rows and counters; compared, and as SQL.

Rows may depend on the moment or on chance (`datetime('now')`, `random()`), also through a DEFAULT or a
trigger. So migrations are replayed in made-up surroundings: SQLite's functions for the time and for
random values are replaced by ones that follow from a number. Same number, same rows; what differs
between two numbers differs between two databases.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from local_mcp_gateway.migrate.replay import replay
from local_mcp_gateway.migrate.statements import BREAKPOINT
from local_mcp_gateway.sql import joined, literal, quote, quote_all, spelled

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.folder import Migration
    from local_mcp_gateway.schema import Prepare

SEEDS = (0, 1)
"""The two numbers of surroundings to compare in."""

_MOMENTS = ("2031-05-06 07:08:09.123", "2043-10-21 22:23:24.567")
"""No two parts of them are the same."""
_UNSET = {"user_version": 0, "application_id": 0, "encoding": "UTF-8"}
_TIMES = ("date", "time", "datetime", "julianday", "unixepoch")
_NOW = frozenset({"now", "subsec", "subsecond"})
_NOW_EXPRESSIONS = (
    "CURRENT_TIMESTAMP",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "strftime('%s', 'now')",
    "(strftime('%s', 'now') * 1000)",
    "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
    "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')",
    "strftime('%Y-%m-%d %H:%M:%f', 'now')",
    "julianday('now')",
    "((julianday('now') - 2440587.5) * 86400000)",
)
"""How migrations write the present moment, whichever functions they call for it."""
_ROWS_PER_INSERT = 100
_SAFE_CONTROLS = str.maketrans("", "", "\n\t")

Value = tuple[type, object]
"""A value with its type, since 1 and 1.0 are equal in Python."""


class Rows(NamedTuple):
    """The rows of one table, in the order of its key."""

    columns: tuple[str, ...]
    """Those with stored values; the rowid comes first where there is one."""
    values: tuple[tuple[Value, ...], ...]
    has_rowid: bool
    key: int | None
    """The place of the column that alone is the primary key: it may be the rowid itself."""


class Outcome(NamedTuple):
    """What a database holds."""

    schema: tuple[tuple[str, str, str, str], ...]
    """(type, name, table, sql) of every object, in the order in which they were made."""
    virtual: frozenset[str]
    rows: dict[str, Rows]
    sequences: dict[str, int]
    """The largest rowid that an AUTOINCREMENT table ever had, if it had one."""
    settings: tuple[tuple[str, str | int], ...]
    """The PRAGMAs that a database keeps, with what they are where nobody has set them."""
    analyzed: bool
    linked: bool
    """A table with rows has foreign keys."""
    moments: dict[Value, str]
    """Expressions for the present moment, by their values in these surroundings."""

    def first_difference(self, other: Outcome) -> str | None:
        """Return what is not the same in the other, in words; None: nothing."""
        mine, its = ({row[:2]: row for row in one.schema} for one in (self, other))
        for key in sorted(mine.keys() | its.keys()):
            if mine.get(key) != its.get(key):
                return f"{key[0]} {key[1]}"
        for table in sorted(self.rows.keys() | other.rows.keys()):
            if self.rows.get(table) != other.rows.get(table):
                return f"the rows of {table}"
        if self.sequences != other.sequences:
            return "the numbers of AUTOINCREMENT"
        return next(
            (
                f"PRAGMA {name}"
                for name, value in self.settings
                if (name, value) not in other.settings
            ),
            None,
        )


def outcome_of(
    migrations: Iterable[Migration], *, seed: int, prepare: Prepare | None = None
) -> Outcome:
    """Replay migrations on an empty database, in the surroundings of this number.

    Raises what applying them raises.
    """
    with closing(sqlite3.connect(":memory:")) as real:

        def prepared(connection: sqlite3.Connection) -> None:
            if prepare is not None:
                prepare(connection)
            _surround(connection, seed, real)

        with replay(migrations, prepare=prepared) as connection:
            # A text need not be UTF-8; each has to differ from every other.
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            return _read(connection)


def _surround(connection: sqlite3.Connection, seed: int, real: sqlite3.Connection) -> None:
    """Replace the functions for the time and for random values; `real` has SQLite's own."""
    moment = _MOMENTS[seed % len(_MOMENTS)]
    known = {name for (name,) in real.execute("SELECT name FROM pragma_function_list")}

    def at_moment(name: str, time_at: int) -> Callable[..., Any]:
        def call(*arguments: object) -> object:
            given = list(arguments)
            if len(given) == time_at:
                given.append("now")
            if time_at < len(given) and str(given[time_at]).lower() in _NOW:
                given[time_at : time_at + 1] = (
                    [moment] if str(given[time_at]).lower() == "now" else [moment, given[time_at]]
                )
            marks = ", ".join("?" * len(given))
            return real.execute(f"SELECT {name}({marks})", given).fetchone()[0]

        return call

    for name in known.intersection(_TIMES):
        connection.create_function(name, -1, at_moment(name, 0), deterministic=True)
    connection.create_function("strftime", -1, at_moment("strftime", 1), deterministic=True)
    for name, text in (
        ("current_timestamp", moment[:19]),
        ("current_date", moment[:10]),
        ("current_time", moment[11:19]),
    ):
        connection.create_function(name, 0, lambda text=text: text)
    chance = Random(seed)
    connection.create_function("random", 0, lambda: chance.getrandbits(64) - (1 << 63))
    connection.create_function("randomblob", 1, lambda size: chance.randbytes(max(size or 0, 1)))


def _read(connection: sqlite3.Connection) -> Outcome:
    listed = connection.execute(
        "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'"
    ).fetchall()
    kinds = {name: (kind, bool(without_rowid)) for name, kind, without_rowid in listed}
    shadows = {name for name, (kind, _) in kinds.items() if kind == "shadow"}
    schema = tuple(
        (kind, name, table, sql.rstrip())
        for kind, name, table, sql in connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        )
        if table not in shadows
    )
    tables = [name for kind, name, _, _ in schema if kind == "table"]
    rows = {
        name: found
        for name in tables
        if (found := _rows_of(connection, name, without_rowid=kinds[name][1])).values
    }
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    sequences: dict[str, int] = {}
    if "sqlite_sequence" in names:
        for name, last in connection.execute("SELECT name, seq FROM sqlite_sequence"):
            if isinstance(last, int) and last > 0:  # a rebuild of an empty table leaves a 0
                sequences[name] = max(last, sequences.get(name, 0))
    return Outcome(
        schema,
        frozenset(name for name in tables if kinds[name][0] == "virtual"),
        rows,
        sequences,
        tuple((name, connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in _UNSET),
        analyzed="sqlite_stat1" in names,
        linked=any(
            connection.execute("SELECT 1 FROM pragma_foreign_key_list(?)", (name,)).fetchone()
            for name in rows
        ),
        moments=_moments_of(connection, rows),
    )


def _moments_of(connection: sqlite3.Connection, tables: Iterable[str]) -> dict[Value, str]:
    """Return what SQLite gives for the present moment, also by the defaults of these tables."""
    expressions = list(_NOW_EXPRESSIONS)
    for table in tables:
        expressions += [
            f"({text})"
            for (text,) in connection.execute(
                "SELECT dflt_value FROM pragma_table_xinfo(?) WHERE dflt_value LIKE '%now%'",
                (table,),
            )
        ]
    found: dict[Value, str] = {}
    for one in expressions:
        for cast in (one, *(f"CAST({one} AS {kind})" for kind in ("INTEGER", "TEXT", "REAL"))):
            with suppress(sqlite3.Error):
                (value,) = connection.execute(f"SELECT {cast}").fetchone()
                found.setdefault((type(value), value), cast)
    return found


def _rows_of(connection: sqlite3.Connection, table: str, *, without_rowid: bool) -> Rows:
    info = connection.execute(
        "SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden = 0", (table,)
    ).fetchall()
    columns = [name for name, _ in info]
    key = [name for name, place in sorted(info, key=lambda row: row[1]) if place]
    order = key or columns
    taken = {name.lower() for name in columns}
    rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)
    if rowid is not None and not without_rowid:
        columns, order = [rowid, *columns], [rowid]
    asked, by = ", ".join(quote_all(columns)), ", ".join(quote_all(order))
    found = connection.execute(f"SELECT {asked} FROM {quote(table)} ORDER BY {by}")
    values = tuple(tuple((type(value), value) for value in row) for row in found)
    has_rowid = order == [rowid]
    return Rows(tuple(columns), values, has_rowid, columns.index(key[0]) if len(key) == 1 else None)


def as_statements(outcome: Outcome, elsewhere: Outcome) -> list[str]:
    """Return statements that make this of an empty database, as far as SQL can say it.

    `elsewhere` is the outcome in other surroundings, to find what has to be the present moment. The
    caller replays the statements and compares: rows of virtual tables, and random values, cannot be
    written so. Rows come before indexes and triggers; foreign keys that the program enforces are checked
    at COMMIT.
    """
    made = [sql for kind, _, _, sql in outcome.schema if kind == "table"]
    if outcome.linked or not made:
        made.insert(0, "PRAGMA defer_foreign_keys=ON")
    for table, rows in outcome.rows.items():
        if table not in outcome.virtual:
            others = elsewhere.rows.get(table, rows)
            moments = _moments_in(rows, others, outcome.moments, elsewhere.moments)
            made += _inserts(table, rows, moments)
    made += [sql for kind, _, _, sql in outcome.schema if kind != "table"]
    for table, last in outcome.sequences.items():
        kept = outcome.rows.get(table)
        if kept is None:
            made.append(
                f"INSERT INTO sqlite_sequence (name, seq) VALUES ({literal(table)}, {last})"
            )
        elif kept.values[-1][0][1] != last:
            made.append(f"UPDATE sqlite_sequence SET seq = {last} WHERE name = {literal(table)}")
    settings = [
        f"PRAGMA {name}={value!r}" for name, value in outcome.settings if value != _UNSET[name]
    ]
    made = [*settings, *made]  # the encoding can only be set before there is a table
    return [*made, *(["ANALYZE"] if outcome.analyzed else [])]


def _moments_in(
    rows: Rows, others: Rows, here: dict[Value, str], there: dict[Value, str]
) -> dict[tuple[int, int], str]:
    """Return the expression of each value, by row and column, that is the moment in both surroundings."""
    found: dict[tuple[int, int], str] = {}
    for at, (row, other) in enumerate(zip(rows.values, others.values, strict=False)):
        for column, (value, changed) in enumerate(zip(row, other, strict=True)):
            expression = here.get(value)
            if value != changed and expression is not None and there.get(changed) == expression:
                found[at, column] = expression
    return found


def _inserts(table: str, rows: Rows, moments: dict[tuple[int, int], str]) -> Iterator[str]:
    first = 1 if rows.has_rowid and _numbers_itself(rows) else 0
    named = ", ".join(quote_all(rows.columns[first:]))
    written = [
        [moments.get((at, column)) or _literal(value) for column, (_, value) in enumerate(row)]
        for at, row in enumerate(rows.values)
    ]
    for start in range(0, len(written), _ROWS_PER_INSERT):
        lines = (
            f"  ({', '.join(row[first:])})" for row in written[start : start + _ROWS_PER_INSERT]
        )
        yield f"INSERT INTO {quote(table)} ({named}) VALUES\n" + ",\n".join(lines)


def _numbers_itself(rows: Rows) -> bool:
    """Return whether the rowids are what SQLite gives by itself, or are the primary key's values."""
    ids = [row[0] for row in rows.values]
    given = all(found == (int, n) for n, found in enumerate(ids, 1))
    return given or (rows.key is not None and ids == [row[rows.key] for row in rows.values])


def _literal(value: object) -> str:
    """Return a value as SQL has it; text that is not Unicode as the bytes that it is."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if not isinstance(value, str):
        text = repr(value)
        return {"inf": "9e999", "-inf": "-9e999"}.get(text, text)
    if value.translate(_SAFE_CONTROLS).isprintable() and BREAKPOINT not in value:
        return literal(value)
    if not _is_unicode(value):
        return f"CAST(x'{value.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
    first, *rest = value.split(BREAKPOINT)
    parts = [first]
    for piece in rest:  # the file is split at each breakpoint, in a text too
        parts[-1] += BREAKPOINT[:1]
        parts.append(BREAKPOINT[1:] + piece)
    return joined([spelled(part, _is_safe) for part in parts])


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_safe(character: str) -> bool:
    """Tell whether a file can hold a character as it is, whatever edits or shows it."""
    return not character.translate(_SAFE_CONTROLS) or character.isprintable()
