"""Made databases, made migrations with and without slips: the guard refuses, or nothing is lost.

The oracle knows nothing of the guard: it runs the statements with plain SQLite and foreign keys off,
and compares what is there then, row by row and rowid by rowid, with what was there before.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, note, settings

from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.migrate.batch import apply_batch
from local_mcp_gateway.migrate.folder import Folder
from local_mcp_gateway.migrate.folder import Migration as OnDisk
from local_mcp_gateway.migrate.ledger import Ledger
from local_mcp_gateway.migrate.plan import Plan
from tests.guard.made_migrations import Database, Migration, cases
from tests.tally import Count

pytestmark = pytest.mark.skipif(
    sqlite3.sqlite_version_info < (3, 37), reason="the made tables use STRICT, from SQLite 3.37"
)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


class Table(NamedTuple):
    columns: list[str]
    rows: list[tuple[object, ...]]
    """The rowid (None without one), then the columns."""
    alias: bool


class Content(NamedTuple):
    tables: dict[str, Table]
    objects: dict[tuple[str, str], tuple[str, list[str]]]
    """(kind, name) of each trigger and index → its table, and the columns of an index."""
    texts: dict[str, str]
    """The text of each view and trigger."""
    unique: set[tuple[str, str]]
    """(table, first column) of each UNIQUE constraint."""
    orphans: Counter[str]
    """How many rows of each table name a parent that is not there."""
    failing: set[str]
    """What cannot be read or written."""


def last_number(connection: sqlite3.Connection) -> int:
    """The largest number that `notes` ever gave, if it counts them."""
    try:
        found = connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name IN ('notes', 'papers')"
        )
        return max((int(seq) for (seq,) in found), default=0)
    except sqlite3.OperationalError:
        return 0


def look(connection: sqlite3.Connection) -> Content:
    tables = {}
    for name, without in connection.execute(
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_\\_%' ESCAPE '\\'"
    ).fetchall():
        found = connection.execute(
            "SELECT name, pk, type FROM pragma_table_xinfo(?) WHERE hidden = 0", (name,)
        ).fetchall()
        columns = [row[0] for row in found]
        rowid = "NULL" if without else "rowid"
        rows = connection.execute(f"SELECT {rowid}, {', '.join(columns)} FROM {name}").fetchall()
        keys = [kind for _, pk, kind in found if pk]
        tables[name] = Table(columns, rows, keys == ["INTEGER"] and not without)
    objects = {}
    for kind, name, table in connection.execute(
        "SELECT type, name, tbl_name FROM sqlite_schema WHERE type IN ('trigger', 'index') AND sql IS NOT NULL"
    ).fetchall():
        columns = [
            str(row[0])
            for row in connection.execute("SELECT name FROM pragma_index_info(?)", (name,))
        ]
        objects[kind, name] = table, columns
    unique = {
        (table, column)
        for table in tables
        for (column,) in connection.execute(
            "SELECT c.name FROM pragma_index_list(?) AS i JOIN pragma_index_info(i.name) AS c"
            " WHERE i.origin = 'u' AND c.seqno = 0",
            (table,),
        )
    }
    orphans: Counter[str] = Counter()
    with suppress(sqlite3.Error):  # a mismatch, which `failing` finds
        orphans = Counter(row[0] for row in connection.execute("PRAGMA foreign_key_check"))
    texts = dict(
        connection.execute("SELECT name, sql FROM sqlite_schema WHERE type IN ('view', 'trigger')")
    )
    return Content(tables, objects, texts, unique, orphans, failing(connection))


def failing(connection: sqlite3.Connection) -> set[str]:
    connection.execute("PRAGMA foreign_keys = ON")
    uses = []
    for kind, name in connection.execute(
        "SELECT type, name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view')"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_\\_%' ESCAPE '\\'"
    ).fetchall():
        uses.append(f"SELECT * FROM {name}")
        if (
            kind == "view"
            and not connection.execute(
                "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?", (name,)
            ).fetchone()
        ):
            continue
        uses.append(f"DELETE FROM {name}")
        if kind == "table":
            columns = [
                row[0]
                for row in connection.execute(
                    "SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", (name,)
                )
            ]
            uses.append(f"INSERT INTO {name} DEFAULT VALUES")
            uses.append(f"UPDATE {name} SET {', '.join(f'{c} = {c}' for c in columns)}")
    found = set()
    virtual = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual'"
    ).fetchall()
    for use in [f"EXPLAIN {one}" for one in uses] + [
        f"SELECT * FROM {name}" for (name,) in virtual
    ]:
        try:
            connection.execute(use).fetchone()
        except sqlite3.Error:
            found.add(" ".join(use.removeprefix("EXPLAIN ").split()[:3]))
    connection.execute("PRAGMA foreign_keys = OFF")
    return found


def lost(before: Content, after: Content, database: Database, made: Migration) -> list[str]:
    """Say what was there before, is not there after, and was not meant to go."""
    now = {name: name for name in before.tables} | {"notes": made.renamed}
    found = []
    for name, full in before.tables.items():
        table = _without(full, made.deletes) if name == "notes" and made.deletes else full
        new = after.tables.get(now[name])
        if new is None or made.actions:
            continue  # a DROP TABLE, in so many words, or what a DELETE takes along
        fewer = len(new.rows) < len(table.rows) or made.adds
        if name == "notes" and made.rows and fewer:
            continue
        meant = made.columns if name == "notes" else frozenset()
        kept = [c for c in table.columns if c in new.columns and c not in meant]
        if projected(table, kept) - projected(new, kept):
            found.append(f"rows of {name}")
        by_rowid = name == "notes" and database.has_rowid and bool(database.by_rowid)
        numbered = table.alias and new.alias
        moved = projected(table, kept, rowid=True) - projected(new, kept, rowid=True)
        if (by_rowid or numbered) and moved and not made.replaces:
            found.append(f"rowids of {name}")
    for (kind, name), (owner, columns) in before.objects.items():
        home = now.get(owner, owner)
        there = after.objects.get((kind, name), ("", []))[0] == home
        said = any(f"DROP {kind.upper()} {name}" in sql for sql in made.statements)
        if there or said or name in made.objects or not is_there(home, after):
            continue
        if kind == "index" and replaced(home, columns, after):
            continue
        found.append(f"{kind} {name}")
    found += [
        f"{name} looks elsewhere fails"
        for name, text in after.texts.items()
        if "old_log" in text and "old_log" not in before.texts.get(name, "old_log")
    ]
    known = Counter({now.get(name, name): rows for name, rows in before.orphans.items()})
    found += [f"orphans in {name}" for name in after.orphans - known]
    renamed = {
        f"{' '.join(use.split()[:2])} {now.get(use.split()[2], use.split()[2])}"
        for use in before.failing
    }
    found += [f"{use} fails" for use in sorted(after.failing - before.failing - renamed)]
    return found


def _without(table: Table, b: int) -> Table:
    at = 1 + table.columns.index("b")
    return table._replace(rows=[row for row in table.rows if row[at] != b])


def is_there(name: str, content: Content) -> bool:
    return name in content.tables or f"SELECT * FROM {name}" in VIEWS


VIEWS = {"SELECT * FROM v", "SELECT * FROM w"}


def replaced(table: str, columns: list[str], after: Content) -> bool:
    """Tell whether a column of an index is gone, or a constraint brings an index on the same one."""
    if any((table, column) in after.unique for column in columns[:1]):
        return True
    names = after.tables[table].columns
    if any(column != "None" and column not in names for column in columns):
        return True
    return "None" in columns and "c" not in names


def projected(table: Table, columns: list[str], *, rowid: bool = False) -> Counter[tuple[str, ...]]:
    at = [1 + table.columns.index(column) for column in columns]
    return Counter(tuple(str(row[i]) for i in ([0] if rowid else []) + at) for row in table.rows)


class Outcome(NamedTuple):
    kind: str
    error: str


def judge(database: Database, made: Migration) -> Outcome:
    """Run one case through the guard's transaction and through plain SQLite, and compare."""
    with closing(database.create()) as live, closing(database.create()) as plain:
        before, number = look(live), last_number(live)
        error = ""
        plain.execute(f"PRAGMA foreign_keys = {'ON' if made.actions else 'OFF'}")
        try:
            for statement in made.statements:
                plain.execute(statement)
        except sqlite3.Error as caught:
            error = str(caught)
        plain.execute("PRAGMA legacy_alter_table = OFF")
        missed = [] if error else lost(before, look(plain), database, made)
        refusal = guard(live, made)
        if refusal is None:
            after = look(live)
            assert error == ""
            assert missed == []
            assert after == look(plain)
            if made.renamed in after.tables:
                assert last_number(live) >= number
            return Outcome("applied", "")
        note(refusal)
        assert look(live) == before
        assert refusal.endswith(".")
        if error:
            return Outcome("failing in plain SQLite too", refusal)
        if not missed:  # to accept lost rows is not to accept other values in the others
            missed = lost(before, look(plain), database, replace(made, rows=False))
        assert missed, f"refused although nothing is lost: {refusal}"
        what = missed[0].partition(" ")[0]
        kind = "fails" if missed[0].endswith("fails") else what
        return Outcome(f"refused ({NAMES[kind]})", refusal)


NAMES = {
    "rows": "rows or values",
    "rowids": "other rowids",
    "orphans": "orphans",
    "trigger": "a trigger goes",
    "index": "an index goes",
    "fails": "something cannot run",
}


def guard(live: sqlite3.Connection, made: Migration) -> str | None:
    """Apply it as a rehearsal does; return why not, rolled back."""
    pending = tuple(
        OnDisk(f"000{n}_made", n, n, sha256(sql.encode()).hexdigest(), sql, f"000{n}_made.sql")
        for n, sql in enumerate(made.files, 1)
    )
    plan = Plan.read(Folder(Path("migrations"), pending))
    live.execute("BEGIN IMMEDIATE")
    try:
        apply_batch(plan, Ledger(live))
    except GatewayError as error:
        live.execute("ROLLBACK")
        return error.message
    live.execute("COMMIT")
    return None


def judge_all(examples: int, count: Count, line: str) -> int:
    seen: set[str] = set()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples < 1_000,
        suppress_health_check=SLOW,
    )
    @given(cases())
    def each(case: tuple[Database, Migration]) -> None:
        database, made = case
        text = "\n".join([*database.statements(), *database.rows(), "---", *made.files])
        note(text)
        seen.add(key := sha256(text.encode()).hexdigest()[:16])
        count(line, judge(database, made).kind, key)

    each()
    return len(seen)


def test_a_sample_of_made_migrations_loses_nothing(count: Count) -> None:
    assert judge_all(120, count, "made migrations, a sample") > 100


@pytest.mark.nightly
def test_twenty_thousand_made_migrations_lose_nothing(count: Count) -> None:
    assert judge_all(30_000, count, "made migrations") >= 20_000  # some are made twice
