"""One transaction for all, unless a file asks for something that needs its own."""

from __future__ import annotations

import uuid

import pytest

from local_mcp_gateway.database.connections import open_migration, set_foreign_keys
from local_mcp_gateway.errors import ConfigProblem, ForbiddenStatement
from local_mcp_gateway.migrate.options import load, register_functions
from local_mcp_gateway.migrate.plan import make_batches
from local_mcp_gateway.migrate.verify import count_rows, verify
from tests.migrate.workshop import Workshop, apply_all


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
    batches = make_batches(shop.read().migrations)
    assert [[m.tag for m in batch.migrations] for batch in batches] == [
        ["a", "b"], ["c"], ["d"], ["e", "f"], ["g"],
    ]  # fmt: skip
    assert [batch.foreign_keys for batch in batches] == [False, False, False, True, False]
    assert [batch.no_transaction for batch in batches] == [False, True, True, False, False]


def test_nothing_pending_is_no_batch() -> None:
    assert make_batches(()) == ()


def test_what_is_read_out_of_a_file_is_read_once(shop: Workshop) -> None:
    shop.add("0000_a", "-- guard: accept nothing\nCREATE TABLE a(x); CREATE TABLE b(x);")
    (migration,) = shop.read().migrations
    assert migration.directives is migration.directives
    assert migration.statements is migration.statements
    assert len(migration.texts) == 2


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
        steps = apply_all(connection, shop.read().migrations[-1:])
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
    register_functions(
        connection,
        {"uuid_v4": lambda: str(uuid.uuid4())} | load({"base": "posixpath:basename"}),
    )
    connection.execute("BEGIN")
    apply_all(connection, shop.read().migrations)
    assert len(connection.execute("SELECT id FROM t").fetchone()[0]) == 36
    assert connection.execute("SELECT base('/a/b')").fetchone() == ("b",)
    connection.execute("COMMIT")
    connection.close()


@pytest.mark.parametrize("target", ["no_such_module:f", "json:nope", "json:__name__", "json", ""])
def test_a_function_that_is_not_there_is_a_problem_of_the_configuration(target: str) -> None:
    with pytest.raises(ConfigProblem, match="uuid_v4"):
        load({"uuid_v4": target})
