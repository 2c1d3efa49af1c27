"""What a database has: tables, keys and links, whatever their names are."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.database import Connection
from local_mcp_gateway.studio.tables import (
    MOST_COUNTED,
    Table,
    count,
    count_rows,
    links_to,
    list_tables,
    opened,
    quoted,
    read_table,
)
from local_mcp_gateway.studio.visit import Powers


def table(connection: Connection, name: str) -> Table:
    found = read_table(connection, name, frozenset({("pets", "name")}))
    assert found is not None
    return found


def test_everything_is_listed_but_what_belongs_to_others(connection: Connection) -> None:
    found = {one.name: one.kind for one in list_tables(connection)}
    assert found["good"] == found["broken"] == "view"
    assert found["texts"] == "virtual"
    assert found[""] == found['select "all" 🐘/../'] == "table"
    assert not [name for name in found if name.startswith(("texts_", "sqlite_"))]


def test_rows_are_counted_up_to_a_bound(connection: Connection) -> None:
    counts = count_rows(connection, list_tables(connection))
    assert counts["people"] == 3
    assert counts["good"] is None
    many = "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n)"
    assert count(connection, many) == MOST_COUNTED + 1


def test_a_row_is_named_by_its_rowid_or_its_primary_key(connection: Connection) -> None:
    assert table(connection, "people").key == ("rowid",)
    assert table(connection, "keyed").key == ("a", "b")
    assert not table(connection, "keyed").by_rowid
    assert table(connection, "shadowed").key == ()
    assert table(connection, "good").key == ()
    assert table(connection, "plain").editable
    for name in ("shadowed", "good", "texts"):
        assert not table(connection, name).editable


def test_a_column_that_a_check_lists_the_values_of_has_choices(connection: Connection) -> None:
    found = {column.name: column.choices for column in table(connection, "choosy").columns}
    assert found == {
        "id": (),
        "who": (),
        "rank": (),  # an AND next to it is more than a choice
        "state": ("open", "it's sent"),
        "size": ("1", "2"),
        "Mood": ("", "calm"),
    }


def test_columns_with_secrets_are_masked_by_name_or_because_they_are_listed(
    connection: Connection,
) -> None:
    assert [c.name for c in table(connection, "people").columns if c.masked] == ["api_token"]
    assert [c.name for c in table(connection, "pets").columns if c.masked] == ["name"]
    assert [c.name for c in table(connection, "computed").columns if c.generated] == ["b"]


def test_links_are_known_both_ways_though_they_do_not_name_the_column(
    connection: Connection,
) -> None:
    (link,) = table(connection, "pets").links
    assert (link.columns, link.to, link.to_columns) == (("owner",), "people", ("id",))
    assert list(links_to(connection, "people")) == [link]
    assert table(connection, "people").indexes[0].partial


def test_a_view_of_what_is_gone_says_so_and_a_table_that_is_not_there_is_none(
    connection: Connection,
) -> None:
    assert "gone" in table(connection, "broken").problem
    assert read_table(connection, "nothing", frozenset()) is None


def test_a_name_is_quoted_whatever_is_in_it(connection: Connection) -> None:
    name = 'select "all" 🐘/../'
    assert count(connection, quoted(name)) == 1


def test_a_page_that_reads_for_too_long_is_stopped(database: Path) -> None:
    with (
        opened(Powers(database), 0.05) as connection,
        pytest.raises(Exception, match="interrupted"),
    ):
        connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
        ).fetchall()
