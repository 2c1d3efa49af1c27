"""One transaction for all, unless a file asks for something that needs its own."""

from __future__ import annotations

import uuid

import pytest

from local_mcp_gateway.database.connections import open_migration, set_foreign_keys
from local_mcp_gateway.errors import ConfigProblem, ForbiddenStatement
from local_mcp_gateway.migrate.apply import apply_pending, first_group, wants_foreign_keys
from local_mcp_gateway.migrate.sql_functions import load_functions, register
from local_mcp_gateway.migrate.verify import count_rows, verify
from tests.migrate.workshop import Workshop


def groups(shop: Workshop) -> list[list[str]]:
    pending = shop.read().migrations
    found = []
    while pending:
        group = first_group(pending)
        found.append([migration.tag for migration in group])
        pending = pending[len(group) :]
    return found


def test_files_are_grouped_by_what_they_ask_for(shop: Workshop) -> None:
    for tag, head in {
        "a": "",
        "b": "",
        "c": "-- guard: no-transaction",
        "d": "-- guard: no-transaction",
        "e": "-- guard: foreign-keys=on",
        "f": "-- Guard: foreign_keys = ON",
        "g": "-- guard: accept x",
    }.items():
        shop.add(tag, head + "\nVACUUM;")
    assert groups(shop) == [["a", "b"], ["c"], ["d"], ["e", "f"], ["g"]]
    assert [wants_foreign_keys([m]) for m in shop.read().migrations] == [
        False,
        False,
        False,
        False,
        True,
        True,
        False,
    ]


FAMILY = (
    "CREATE TABLE parent(id INTEGER PRIMARY KEY);"
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id) ON DELETE CASCADE);"
    "INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2);"
)


def apply_last_with_foreign_keys(shop: Workshop) -> None:
    connection = open_migration(shop.database)
    set_foreign_keys(connection, on=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = count_rows(connection)
        steps = apply_pending(
            connection, shop.read().migrations[-1:], backup=None, program_version="1"
        )
        verify(connection, before, steps)
        connection.execute("COMMIT")
    finally:
        connection.close()


def test_a_delete_that_relies_on_the_cascade_gets_it_when_asked_for(shop: Workshop) -> None:
    shop.add("0000_a", FAMILY)
    shop.apply()
    shop.add("0001_b", "-- guard: foreign-keys=on\nDELETE FROM parent WHERE id = 1;")
    apply_last_with_foreign_keys(shop)
    assert shop.rows("SELECT id FROM child") == [(2,)]


def test_a_rebuild_with_foreign_keys_on_is_refused_before_it_wipes_the_children(
    shop: Workshop,
) -> None:
    shop.add("0000_a", FAMILY)
    shop.apply()
    shop.add(
        "0001_b",
        "-- guard: foreign-keys=on\nCREATE TABLE n(id INTEGER PRIMARY KEY, x);\nINSERT INTO n(id) SELECT id FROM parent;\n"
        "DROP TABLE parent;\nALTER TABLE n RENAME TO parent;",
    )
    with pytest.raises(
        ForbiddenStatement, match=r"line 4, statement 3: dropping parent .* rows of child"
    ):
        apply_last_with_foreign_keys(shop)
    assert shop.rows("SELECT count(*) FROM child") == [(2,)]


def test_a_function_of_the_application_can_be_called(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE t AS SELECT uuid_v4() AS id;")
    connection = open_migration(shop.database)
    register(
        connection,
        {"uuid_v4": lambda: str(uuid.uuid4())} | load_functions({"base": "posixpath:basename"}),
    )
    connection.execute("BEGIN")
    apply_pending(connection, shop.read().migrations, backup=None, program_version="1")
    assert len(connection.execute("SELECT id FROM t").fetchone()[0]) == 36
    assert connection.execute("SELECT base('/a/b')").fetchone() == ("b",)
    connection.execute("COMMIT")
    connection.close()


@pytest.mark.parametrize("target", ["no_such_module:f", "json:nope", "json:__name__", "json", ""])
def test_a_function_that_is_not_there_is_a_problem_of_the_configuration(target: str) -> None:
    with pytest.raises(ConfigProblem, match="uuid_v4"):
        load_functions({"uuid_v4": target})
