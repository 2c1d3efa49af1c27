"""One row is changed and taken back, and whoever was faster wins."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.changes import FileWriter, delete, insert, take_back, update
from local_mcp_gateway.studio.tables import Table, opened, read_table
from local_mcp_gateway.studio.visit import Powers
from tests.studio.odd import make_odd


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_odd(tmp_path / "odd.db")


def table(database: Path, name: str) -> Table:
    with opened(Powers(database)) as connection:
        found = read_table(connection, name, frozenset())
    assert found is not None
    return found


def query(database: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def dump(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        return [
            str(connection.execute(f'SELECT * FROM "{n}"').fetchall())
            for n in ("people", "pets", "keyed", "computed")
        ]


async def test_a_change_an_insertion_and_a_deletion_are_taken_back_exactly(database: Path) -> None:
    before = dump(database)
    for name, key, old, new in (
        ("people", "[2]", {"note": None}, {"note": "", "born": 7}),
        ("people", "[2]", {"id": 2}, {"id": 20}),
        ("keyed", '["a", 2]', {"c": 2.5}, {"b": 9, "c": None}),
        ("computed", "[1]", {"a": 4}, {"a": 5}),
    ):
        async with FileWriter.open(database) as writer:
            key_now, back = await update(writer, table(database, name), key, old, new)
        assert dump(database) != before
        async with FileWriter.open(database) as writer:
            await take_back(writer, back)
        assert dump(database) == before, (name, key_now)
    for name, values in (
        ("people", {"name": "new"}),
        ("keyed", {"a": "z", "b": 1, "c": "x"}),
        ("computed", {"a": 1}),
    ):
        async with FileWriter.open(database) as writer:
            _, back = await insert(writer, table(database, name), values)
        assert dump(database) != before
        async with FileWriter.open(database) as writer:
            await take_back(writer, back)
        assert dump(database) == before
    for name, key in (("people", "[3]"), ("keyed", '["a", 1]'), ("computed", "[1]")):
        async with FileWriter.open(database) as writer:
            gone = await delete(writer, table(database, name), key, keep=True)
        assert gone is not None
        assert dump(database) != before
        async with FileWriter.open(database) as writer:
            await take_back(writer, gone)
        assert dump(database) == before


@pytest.mark.parametrize(("name", "count"), [("torn", 4), ("plain", 4)])
async def test_a_deleted_row_comes_back_byte_by_byte(database: Path, name: str, count: int) -> None:
    stored = f"SELECT rowid, * FROM {name}"

    def content() -> list[Any]:
        with closing(sqlite3.connect(database)) as connection:
            connection.text_factory = bytes
            return connection.execute(stored).fetchall()

    before = content()
    for rowid in range(1, count + 1):
        async with FileWriter.open(database) as writer:
            back = await delete(writer, table(database, name), f"[{rowid}]", keep=True)
        assert back is not None
        assert len(content()) == count - 1
        async with FileWriter.open(database) as writer:
            await take_back(writer, back)
        assert content() == before


async def test_a_row_that_another_changed_meanwhile_is_left_alone(database: Path) -> None:
    people = table(database, "people")
    async with FileWriter.open(database) as writer:
        with pytest.raises(UsageProblem, match="changed in the meantime"):
            await update(writer, people, "[1]", {"name": "Eve"}, {"name": "Mallory"})
        with pytest.raises(UsageProblem, match="in the meantime"):
            await update(writer, people, "[99]", {}, {"name": "x"})
        _, back = await update(writer, people, "[1]", {"name": "Ada"}, {"name": "A."})
    async with FileWriter.open(database) as writer:
        await writer.execute("UPDATE people SET name = 'later' WHERE id = 1")
        with pytest.raises(UsageProblem, match="not undone"):
            await take_back(writer, back)
    assert query(database, "SELECT name FROM people WHERE id = 1") == [("later",)]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("people", {"born": 1}, "NOT NULL constraint failed: people.name"),
        ("pets", {"name": "x" * 30}, "CHECK constraint failed"),
        ("pets", {"owner": 77}, "FOREIGN KEY constraint failed"),
        ("keyed", {"a": "a", "b": 1}, "UNIQUE constraint failed"),
        ("strictly", {"n": "text"}, "cannot store TEXT value in INTEGER column strictly.n"),
    ],
)
async def test_a_constraint_refuses_in_the_words_of_sqlite(
    database: Path, name: str, values: dict[str, object], said: str
) -> None:
    before = dump(database)
    with pytest.raises(sqlite3.IntegrityError, match=said):
        async with FileWriter.open(database) as writer:
            await insert(writer, table(database, name), values)
    assert dump(database) == before


@pytest.mark.parametrize(
    ("name", "column"), [("people", "api_token"), ("computed", "b"), ("people", "nothing")]
)
async def test_secrets_and_computed_columns_are_never_written(
    database: Path, name: str, column: str
) -> None:
    async with FileWriter.open(database) as writer:
        with pytest.raises(UsageProblem):
            await update(writer, table(database, name), "[1]", {}, {column: "x"})
        with pytest.raises(UsageProblem):
            await insert(writer, table(database, name), {column: "x"})


async def test_a_row_that_takes_others_along_has_no_way_back(database: Path) -> None:
    async with FileWriter.open(database) as writer:
        assert await delete(writer, table(database, "people"), "[1]", keep=False) is None
    assert query(database, "SELECT count(*) FROM pets") == [(1,)]


async def test_an_error_rolls_everything_back(database: Path) -> None:
    before = dump(database)
    people = table(database, "people")

    async def insert_and_fail() -> None:
        async with FileWriter.open(database) as writer:
            await insert(writer, people, {"name": "x"})
            await delete(writer, people, "[99]", keep=False)

    with pytest.raises(UsageProblem):
        await insert_and_fail()
    assert dump(database) == before
