"""Databases, migrations and tools that no page is made for: each shows what it can and says what it cannot."""

from __future__ import annotations

import json
import resource
import sqlite3
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest

from local_mcp_gateway.database import Connection, reading
from local_mcp_gateway.studio.schema_form import arguments_of, fields_of
from tests.harness import DEADLINE_S, MigrationFolder
from tests.studio.conftest import Inside

PAGE_BYTES: Final = 65_536
LARGE_PAGES: Final = 20 * 2**30 // PAGE_BYTES
PENDING_BYTE_PAGE: Final = 2**30 // PAGE_BYTES + 1
"""The page that SQLite locks and never uses ("File Locking", section 3)."""
MIB: Final = 2**20


def at(table: str, *rest: str) -> str:
    return "/".join(["/studio/data", quote(table, safe=""), *rest])


async def test_every_page_bears_every_name_value_and_key(database: Path) -> None:
    inside = Inside.of(database)
    listed = await inside.page("/studio/data")
    with closing(sqlite3.connect(database)) as connection:
        names = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'view') AND name NOT LIKE 'sqlite%'"
            )
        ]
    assert {"", "keyed", "nullkeys", "broken"} <= set(names)
    for name in names:
        assert f'href="{at(name)}"' in listed.text
        shown = await inside.page(at(name))
        await inside.page(at(name, "structure"))
        if name == "broken":
            assert "This view fails: no such table: main.gone" in shown.words
            assert "CREATE VIEW broken" in (await inside.page(at(name, "structure"))).words
            continue
        for form in ("csv", "json", "sql"):
            await inside.page(at(name, f"export?form={form}"))
        for row in shown.text.split(' data-row aria-label="')[:-1]:
            address = row.rpartition('href="')[2].partition('"')[0].replace("&amp;", "&")
            await inside.page(address)
    for path in ("/studio/sql", "/studio/diagram"):
        await inside.page(path)


async def test_a_database_that_another_program_has_locked_is_read_or_said_to_be(
    tmp_path: Path,
) -> None:
    path = tmp_path / "locked.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT)")
        other.execute("INSERT INTO t VALUES (1, 'old')")
        inside = Inside.of(path)
        form = await inside.page(at("t", "row?key=[1]"))
        seen = form.text.partition('name="w1" value="')[2].partition('"')[0]
        other.execute("BEGIN IMMEDIATE")
        assert "old" in (await inside.page(at("t"))).words
        refused = await inside.ask(at("t", "row"), {"key": "[1]", "v1": "kept", "w1": seen})
        assert refused.status == 400
        assert "Another program holds the write lock; your change is still here." in refused.words
        assert 'value="kept"' in refused.text
        other.execute("COMMIT")
        other.execute("BEGIN EXCLUSIVE")
        reply = await inside.ask(at("t"))
        assert "Another program is using" in reply.words
        assert reply.status == 400
        other.execute("COMMIT")
        assert "old" in (await inside.page(at("t"))).words


@pytest.mark.parametrize("number", ["9" * 5_000, "\u0669", "-1", "", "1e3"])
async def test_a_number_that_no_page_made_is_passed_over(database: Path, number: str) -> None:
    inside = Inside.of(database)
    await inside.page(f"{at('people')}?{urlencode({'offset': number})}")
    await inside.page(f"/studio/diagram?{urlencode({'zoom': number})}")
    undone = await inside.ask("/studio/undo", {"number": number})
    assert "There is nothing to undo any more." in undone.words


async def test_a_damaged_table_says_so_and_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.executescript(
            "CREATE TABLE bad (x TEXT); CREATE TABLE good (x TEXT); INSERT INTO good VALUES ('well')"
        )
        made.execute("INSERT INTO bad VALUES ('lost')")
        (root,) = made.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'bad'").fetchone()
        (size,) = made.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xa5" * 64)
    inside = Inside.of(path)
    listed = await inside.page("/studio/data")
    assert "bad table not counted" in listed.words
    assert "good table 1" in listed.words
    assert "well" in (await inside.page(at("good"))).words
    assert (
        "It cannot be read: database disk image is malformed"
        in (await inside.page(at("bad"))).words
    )
    assert "CREATE TABLE bad" in (await inside.page(at("bad", "structure"))).words


async def test_a_database_of_twenty_gigabytes_costs_its_pages_nothing(tmp_path: Path) -> None:
    """As a large deletion leaves it: nearly all pages are free, and what came later is at the far end."""
    path = tmp_path / "large.db"
    make_large(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert path.stat().st_size == LARGE_PAGES * PAGE_BYTES
    inside = Inside.of(path)
    assert (
        "20.0 GiB" in (await inside.page("/studio/data")).words
        or "20 GiB" in (await inside.page("/studio/data")).words
    )
    for page in (at("late"), at("late", "structure"), at("late", "row?key=[3]"), "/studio/diagram"):
        assert "late" in (await inside.page(page)).words
    assert "row 3" in (await inside.page(at("late", "export?form=csv"))).text


def make_large(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        made.execute("CREATE TABLE early (x)")
        (used,) = made.execute("PRAGMA page_count").fetchone()
    with path.open("r+b") as file:
        file.truncate(LARGE_PAGES * PAGE_BYTES)  # sparse: free pages are never read
        free = [page for page in range(used + 1, LARGE_PAGES + 1) if page != PENDING_BYTE_PAGE]
        most = PAGE_BYTES // 4 - 8
        trunks, leaves = free[: len(free) // most + 1], free[len(free) // most + 1 :]
        for number, trunk in enumerate(trunks):
            after = trunks[number + 1] if number + 1 < len(trunks) else 0
            mine = leaves[number * most : (number + 1) * most]
            file.seek((trunk - 1) * PAGE_BYTES)
            file.write(struct.pack(f">{len(mine) + 2}I", after, len(mine), *mine))
        file.seek(28)
        file.write(struct.pack(">3I", LARGE_PAGES, trunks[0], len(free)))
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("CREATE TABLE late (id INTEGER PRIMARY KEY, x TEXT)")
        made.executemany("INSERT INTO late (x) VALUES (?)", [(f"row {n}",) for n in range(1, 6)])


async def test_two_thousand_tables_are_listed_once_and_not_beside_each_row(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as made:
        made.execute("BEGIN")
        for number in range(2_000):
            made.execute(f"CREATE TABLE t{number:04} (id INTEGER PRIMARY KEY, x REFERENCES t0000)")
        made.execute("COMMIT")
    inside = Inside.of(path)
    assert "2000 tables" in (await inside.page("/studio/data")).words
    rows = await inside.page(at("t1500"))
    assert "1,800 more under Data" in rows.words
    assert "t1499" in rows.words
    assert len(rows.text) < 60_000
    assert "t1999" in (await inside.page(at("t0000", "structure"))).words


@pytest.mark.parametrize("size", [5 * MIB, pytest.param(100 * MIB, marks=pytest.mark.nightly)])
async def test_a_cell_of_many_megabytes_is_shown_by_its_beginning_and_saved_whole(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "cells.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE cells (id INTEGER PRIMARY KEY, words TEXT, body BLOB)")
        made.execute(
            "INSERT INTO cells VALUES (1, printf('%.*c', ?, 'x'), zeroblob(?))", (size, size)
        )
        made.commit()
    inside = Inside.of(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, row = await inside.page(at("cells")), await inside.page(at("cells", "row?key=[1]"))
    assert len(rows.text) + len(row.text) < 40_000
    assert f"all {size:,} characters" in row.words
    for column in ("words", "body"):
        blob = await inside.page(at("cells", f"blob?key=[1]&column={column}"))
        assert len(blob.text) == size
    del blob
    asked = await inside.ask("/studio/sql", {"sql": "SELECT words FROM cells"})
    assert ("SQLite refused: string or blob too big" in asked.words) is (size > 64 * MIB)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 8 * size + 64 * MIB


@pytest.mark.parametrize("size", [2 * MIB, pytest.param(50 * MIB, marks=pytest.mark.nightly)])
async def test_a_large_migration_is_shown_by_its_beginning_and_read_once(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "data.db"
    folder = MigrationFolder(tmp_path / "migrations")
    insert = f"INSERT INTO t VALUES ('{'y' * 500}')"
    folder.add("large", "CREATE TABLE t (x)", *[";\n".join([insert] * (size // 5_300))] * 10)
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE other (x)")
    inside = Inside.of(path, folder.path)
    for _ in range(2):  # the first page may be there before the migration was read
        line = await inside.page("/studio/migrations")
    assert "1 migration is pending" in line.words
    assert len(line.text) < 100_000
    file = await inside.page("/studio/migrations/file/0000_large")
    assert "These are the first 1,000,000 of" in file.words
    before = (await inside.studio.standing()).status
    assert (await inside.studio.standing()).status is before
    folder.add("small", "CREATE TABLE small (x)")
    after = (await inside.studio.standing()).status
    assert after is not None
    assert len(after.pending) == 2
    inside.studio.forget_pending()
    assert "Migrations 2 pending" in (await inside.page("/studio/data")).words


async def test_a_count_that_began_before_a_change_is_not_shown_after_it(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    folder = MigrationFolder(tmp_path / "migrations")
    folder.add("first", "CREATE TABLE t (x)")
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE other (x)")
    go_on = threading.Event()
    go_on.set()

    @contextmanager
    def look(database: Path) -> Iterator[Connection]:
        with reading(database) as connection:
            yield connection
        go_on.wait(DEADLINE_S)

    inside = Inside.of(path, folder.path, look=look)
    assert "Migrations 1 pending" in (await inside.ask("/studio/nowhere")).words
    inside.studio.forget_pending()
    go_on.clear()
    await inside.ask("/studio/nowhere")  # answered before the count has ended
    folder.add("second", "CREATE TABLE u (x)")
    inside.studio.forget_pending()
    go_on.set()
    assert "Migrations 2 pending" in (await inside.ask("/studio/nowhere")).words


async def test_a_folder_with_a_problem_is_not_said_to_be_applied(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    folder = MigrationFolder(tmp_path / "migrations")
    folder.journal_file.write_text("[")
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE other (x)")
    line = await Inside.of(path, folder.path).page("/studio/migrations")
    assert "1 problem to fix before anything is applied" in line.words
    assert "Every migration of the folder is applied" not in line.words


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "required": ["a"], "properties": {"a": schema}}
    return schema


RECURSIVE: Final = {
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/node"}, "loop": {"$ref": "#/$defs/loop"}},
    "$defs": {
        "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}},
        "loop": {"$ref": "#/$defs/loop"},
    },
}


@pytest.mark.parametrize(
    "schema", [nested(50), nested(900), RECURSIVE], ids=["50", "900", "itself"]
)
def test_a_schema_that_is_nested_deep_or_recursive_is_a_form_with_json_where_it_ends(
    schema: dict[str, Any],
) -> None:
    fields = fields_of(schema)
    assert 1 < len(fields) < 10
    last = next(field for field in fields if field.kind == "json")
    assert arguments_of(schema, {last.name: ['{"deep": 1}']})
    value = json.loads('{"a":' * 60 + "1" + "}" * 60)
    assert arguments_of(schema, {"document": [json.dumps(value)]}) == value
