"""Made migrations: whatever SQLite accepts of them, in any order."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, suppress
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

_PARTS = (
    "CREATE TABLE {t} (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'x', b REAL)",
    "CREATE TABLE {t} (id INTEGER PRIMARY KEY AUTOINCREMENT, a, b NOT NULL DEFAULT 0)",
    "CREATE TABLE {t} (a, b DEFAULT CURRENT_TIMESTAMP, UNIQUE (a, b))",
    "CREATE TABLE {t} (a TEXT PRIMARY KEY, b REFERENCES {u}) WITHOUT ROWID",
    "CREATE TABLE {t} AS SELECT * FROM {u}",
    "INSERT INTO {t} (a) VALUES ({v})",
    "INSERT INTO {t} (a, b) VALUES ({v}, {w}), ({w}, {v})",
    "INSERT INTO {t} (a) SELECT a || {v} FROM {u}",
    "UPDATE {t} SET a = {v} WHERE rowid % 2",
    "UPDATE {t} SET b = datetime('now') WHERE a = {v}",
    "DELETE FROM {t} WHERE a = {v}",
    "DELETE FROM {t} WHERE rowid = (SELECT max(rowid) FROM {t})",
    "ALTER TABLE {t} ADD COLUMN c DEFAULT {v}",
    "ALTER TABLE {t} RENAME TO {u}",
    "ALTER TABLE {t} RENAME COLUMN b TO d",
    "ALTER TABLE {t} DROP COLUMN c",
    "DROP TABLE {t}",
    "CREATE INDEX i_{t} ON {t} (a) WHERE a IS NOT NULL",
    "CREATE VIEW v_{t} AS SELECT a FROM {t}",
    "CREATE TRIGGER g_{t} AFTER INSERT ON {t} BEGIN UPDATE {t} SET a = new.a || '!' WHERE a = {v}; END",
    "DROP VIEW v_{t}",
    "PRAGMA user_version=3",
)
_VALUES = ("1", "'1'", "1.5", "NULL", "x'00'", "'it''s'", "'ü\n'", "CAST(x'00ff' AS TEXT)", "-7")


@st.composite
def texts(draw: Any) -> list[str]:
    """At least two migrations that follow each other without an error."""
    parts = draw(
        st.lists(
            st.builds(
                lambda part, t, u, v, w: part.format(t=t, u=u, v=v, w=w),
                st.sampled_from(_PARTS),
                *(st.sampled_from(("t", "u", '"odd name"')),) * 2,
                *(st.sampled_from(_VALUES),) * 2,
            ),
            min_size=4,
            max_size=24,
        )
    )
    accepted = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for part in parts:
            with suppress(sqlite3.Error):
                connection.execute(part)
                accepted.append(part)
    cuts = sorted(draw(st.lists(st.integers(0, len(accepted)), min_size=1, max_size=4)))
    bounds = [0, *cuts, len(accepted)]
    return [";\n".join(accepted[a:b]) for a, b in pairwise(bounds)]


def dump(connection: sqlite3.Connection) -> list[str]:
    """Everything in a database but our own tables, with moments and random bytes as `NOW`."""
    made = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " AND name NOT LIKE '\\_\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall()
    found = [f"{name}: {sql.strip()}" for name, sql in made]
    found += [f"user_version {connection.execute('PRAGMA user_version').fetchone()}"]
    for name, without_rowid in connection.execute(
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall():
        info = connection.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
        values = ", ".join(f'typeof("{column}"), quote("{column}")' for (column,) in info)
        rowid = "0" if without_rowid else "rowid"
        rows = connection.execute(
            f'SELECT {rowid}, {values} FROM "{name}" ORDER BY 1, 3'
        ).fetchall()
        found += [re.sub(_MOMENT, "NOW", f"{name}: {row}") for row in rows]
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchone():
        counted = connection.execute(
            "SELECT name, max(seq) FROM sqlite_sequence WHERE seq > 0 GROUP BY name ORDER BY name"
        ).fetchall()
        found += [f"sqlite_sequence: {row}" for row in counted]
    return found


_MOMENT = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d|\b1[78]\d{8}(?:\d{3})?\b|\b[0-9a-f]{16,}\b"
"""A moment as text, or in seconds or milliseconds since 1970; or random bytes."""
