"""Pages of rows, filters, keys, values and exports."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database import Connection
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.rows import (
    MOST_CHOICES,
    PAGE,
    Asked,
    Choice,
    Condition,
    Page,
    choices,
    export,
    label_of,
    pointing_at,
    read_page,
    read_row,
)
from local_mcp_gateway.studio.tables import Table, opened, read_table
from local_mcp_gateway.studio.visit import Powers


def table(connection: Connection, name: str) -> Table:
    found = read_table(connection, name, frozenset())
    assert found is not None
    return found


def page(connection: Connection, name: str, **asked: Any) -> Page:
    return read_page(connection, table(connection, name), Asked(**asked))


def values(shown: Page) -> list[list[Any]]:
    return [[cell.value for cell in row.cells] for row in shown.rows]


def test_a_text_that_cannot_be_shown_whole_says_so(connection: Connection) -> None:
    shown = [row.cells[1] for row in page(connection, "torn").rows]
    assert [cell.value for cell in shown] == ["a", "\ufffd(", "", "é"]
    assert [cell.more for cell in shown] == ["all 3 bytes", "all 2 bytes", "all 1 byte", ""]
    assert [cell.as_it_is for cell in shown] == [False, False, False, True]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_texts_of_every_encoding_are_shown_whole_and_exported(
    tmp_path: Path, encoding: str
) -> None:
    with closing(sqlite3.connect(tmp_path / "wide.db")) as made:
        made.execute(f"PRAGMA encoding = '{encoding}'")
        made.execute("CREATE TABLE texts (t TEXT)")
        made.execute("INSERT INTO texts VALUES ('é 🐘 it''s'), ('a' || char(0) || 'b')")
        made.commit()
    with opened(Powers(tmp_path / "wide.db")) as connection:
        first, second = (row.cells[0] for row in page(connection, "texts").rows)
        assert (first.value, first.more) == ("é 🐘 it's", "")
        assert (second.value, bool(second.more)) == ("a", True)
        sql = "".join(export(connection, table(connection, "texts"), (), "sql"))
        assert "VALUES ('é 🐘 it''s');" in sql
        texts = connection.execute("SELECT CAST(t AS BLOB) FROM texts").fetchall()
    for other in ("UTF-8", "UTF-16le"):
        with closing(sqlite3.connect(":memory:")) as copy:
            copy.execute(f"PRAGMA encoding = '{other}'")
            copy.executescript(f"CREATE TABLE texts (t TEXT);\n{sql}")
            copied = copy.execute("SELECT CAST(t AS BLOB) FROM texts").fetchall()
        assert [text.decode(other) for (text,) in copied] == [
            text.decode(encoding) for (text,) in texts
        ]


def test_a_row_of_more_columns_than_sqlite_gives_at_once_is_read(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(1_900)]
    with closing(sqlite3.connect(tmp_path / "wide.db")) as made:
        made.execute(f"CREATE TABLE wide ({', '.join(names)})")
        made.execute("INSERT INTO wide (c0, c1899) VALUES ('first', 'last')")
        made.commit()
    with opened(Powers(tmp_path / "wide.db")) as connection:
        row = read_row(connection, table(connection, "wide"), "[1]")
        assert row is not None
        assert [row.cells[0].value, row.cells[1].value, row.cells[-1].value] == [
            "first",
            None,
            "last",
        ]
        assert "'last'" in "".join(export(connection, table(connection, "wide"), (), "sql"))


def test_a_blob_never_travels_with_its_row_and_says_what_it_is(connection: Connection) -> None:
    first, second = page(connection, "files").rows
    assert (first.cells[1].value, first.cells[1].length) == (None, 20_000_000)
    assert second.cells[1].what == "PNG image"
    assert first.cells[2].time
    assert not second.cells[2].time


def test_every_kind_of_value_is_told_apart(connection: Connection) -> None:
    kinds = [[cell.kind for cell in row.cells] for row in page(connection, "plain").rows]
    assert kinds == [["integer", "text"], ["null", "blob"], ["text", "text"], ["text", "text"]]
    assert "\ufffd" in page(connection, "plain").rows[3].cells[0].value
    secret = [[cell.value for cell in row.cells] for row in page(connection, "people").rows]
    assert "hunter2" not in str(secret)


@pytest.mark.parametrize("name", ["", 'select "all" 🐘/../', "keyed", "shadowed", "good", "texts"])
def test_odd_tables_are_shown_like_any_other(connection: Connection, name: str) -> None:
    assert page(connection, name).rows


def test_pages_by_key_lead_on_and_back_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE n (a TEXT, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID")
        made.executemany("INSERT INTO n VALUES (?, ?)", [(f"{i // 7:03}", i) for i in range(120)])
        made.commit()
    with opened(Powers(path)) as connection:
        for down in (False, True):
            asked: dict[str, Any] = {}
            seen, pages = [], []
            while True:
                shown = page(connection, "n", down=down, **asked)
                seen += [row[1] for row in values(shown)]
                pages.append(values(shown))
                if shown.older is None:
                    break
                asked = {"after": shown.older["after"]}
            expected = sorted(range(120), reverse=down)
            if not down:
                assert seen == expected
            assert len(pages) == 3
            while shown.newer is not None:
                shown = page(connection, "n", down=down, before=shown.newer["before"])
                pages.pop()
                assert values(shown) == pages[-1]
            assert len(pages) == 1


def test_a_page_that_is_sorted_otherwise_is_paged_by_place(connection: Connection) -> None:
    names = [row[1] for row in values(page(connection, "people", sort="name", down=True))]
    assert names == sorted(names, reverse=True)
    assert page(connection, "people", sort="name", offset=PAGE).rows == ()


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (Condition("name", "=", "Ada"), [1]),
        (Condition("born", "=", "1815"), [1]),
        (Condition("born", ">", "10"), [1]),
        (Condition("name", "contains", "<B>"), [2]),
        (Condition("name", "starts", "C's"), [3]),
        (Condition("note", "null"), [2]),
        (Condition("note", "value"), [1, 3]),
        (Condition("note", "=", ""), [1]),
        (Condition("name", "=", "' OR 1=1 --"), []),
    ],
)
def test_a_filter_selects_rows(
    connection: Connection, condition: Condition, found: list[int]
) -> None:
    assert [row[0] for row in values(page(connection, "people", conditions=(condition,)))] == found


def test_full_text_is_searched_where_it_is_there(connection: Connection) -> None:
    shown = page(connection, "texts", conditions=(Condition("texts", "match", "grey"),))
    assert [row[0] for row in values(shown)] == ["Elephants"]


@pytest.mark.parametrize("column", ["api_token", "nothing"])
def test_a_secret_column_cannot_be_guessed_by_filters(connection: Connection, column: str) -> None:
    with pytest.raises(UsageProblem, match="no column"):
        page(connection, "people", conditions=(Condition(column, "starts", "h"),))


@pytest.mark.parametrize(
    "text", ["x", "[]", "[1]", '["a", "b", 3]', '["a", "; DROP", "c"]', "[" * 9999]
)
def test_a_condition_that_is_none_is_left_out(text: str) -> None:
    assert Condition.of(text) is None


def test_one_row_is_read_whole_with_what_points_at_it(connection: Connection) -> None:
    people = table(connection, "people")
    row = read_row(connection, people, "[1]")
    assert row is not None
    assert read_row(connection, people, "[99]") is None
    ((link, count, conditions),) = pointing_at(connection, people, "[1]")
    assert (link.table, count, conditions) == ("pets", 2, (Condition("owner", "=", "1"),))


def test_a_foreign_key_is_offered_rows_with_their_names_and_finds_more(
    connection: Connection,
) -> None:
    people = table(connection, "people")
    (link,) = table(connection, "pets").links
    assert choices(connection, people, link) == [
        Choice("1", "Ada"),
        Choice("2", "<b>Bob</b>"),
        Choice("3", 'C\'s "x"'),
    ]
    for text in ("AD", "1"):
        assert choices(connection, people, link, text) == [Choice("1", "Ada")]
    assert label_of(connection, people, link, 2) == "<b>Bob</b>"
    assert label_of(connection, people, link, 99) == label_of(connection, people, link, None) == ""


def test_a_foreign_key_to_a_large_table_is_offered_a_few_rows_and_a_search_ends_in_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / "large.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(
            "CREATE TABLE large (id INTEGER PRIMARY KEY, name TEXT);"
            "CREATE TABLE small (to_large REFERENCES large);"
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
            " INSERT INTO large SELECT i, 'row ' || i FROM n"
        )
    with opened(Powers(path)) as connection:
        large, (link,) = table(connection, "large"), table(connection, "small").links
        assert len(choices(connection, large, link)) == MOST_CHOICES
        assert choices(connection, large, link, "row 49999") == [Choice("49999", "row 49999")]
    with opened(Powers(path), limit_s=0.0) as connection:
        assert choices(connection, large, link, "row 49999") == []  # SQLite was interrupted


def test_a_key_of_nulls_names_its_row_by_the_rowid(connection: Connection) -> None:
    shown = page(connection, "nullkeys")
    assert values(shown) == [[None, "first"], [None, "second"], ["k", "third"]]
    row = read_row(connection, table(connection, "nullkeys"), shown.rows[1].key)
    assert row is not None
    assert row.cells[1].value == "second"


def test_an_export_holds_every_row_and_no_secret(connection: Connection) -> None:
    people = table(connection, "people")
    as_csv = "".join(export(connection, people, (), "csv"))
    read = list(csv.reader(io.StringIO(as_csv)))
    assert read[0] == ["id", "name", "born", "note"]
    assert [row[1] for row in read[1:]] == ["Ada", "<b>Bob</b>", 'C\'s "x"']
    as_json = json.loads("".join(export(connection, people, (), "json")))
    assert as_json[1] == {"id": 2, "name": "<b>Bob</b>", "born": None, "note": None}
    assert "hunter" not in as_csv
    assert (
        json.loads("".join(export(connection, table(connection, "keyed"), (), "json")))[0]["c"]
        == "0x00ff"
    )


@pytest.mark.parametrize(
    "name", ["people", "keyed", "plain", 'select "all" 🐘/../', "computed", "torn"]
)
def test_an_export_as_sql_makes_the_same_rows_again(
    connection: Connection, database: Path, name: str, tmp_path: Path
) -> None:
    source = table(connection, name)
    made = "".join(export(connection, source, (), "sql"))
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        copy.text_factory = bytes
        copy.execute(source.sql)
        copy.executescript(made)
        names = ", ".join('"' + c.name.replace('"', '""') + '"' for c in source.shown)
        quoted = '"' + name.replace('"', '""') + '"'
        copied = copy.execute(f"SELECT {names} FROM {quoted}").fetchall()
        connection.text_factory = bytes
        assert copied == connection.execute(f"SELECT {names} FROM {quoted}").fetchall()
