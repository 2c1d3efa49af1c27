"""Double-quoted names that would silently become text, found before they do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from local_mcp_gateway.errors import DoubleQuotedString
from local_mcp_gateway.migrate.apply import Observer
from local_mcp_gateway.migrate.double_quotes import double_quoted, find_double_quoted
from local_mcp_gateway.migrate.folder import Migration, read_folder
from local_mcp_gateway.migrate.replay import extend, replay
from local_mcp_gateway.migrate.statements import Statement, split
from tests.migrate.workshop import Workshop


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ('INSERT INTO t("id", "name") SELECT "id", "name" FROM t', []),
        ('INSERT INTO t("id",\n "name") SELECT "id",\n "nmae" FROM t', [("nmae", 3)]),
        ('UPDATE t SET name = "hello"', [("hello", 1)]),
        ('UPDATE t SET name = "a", id = "b" WHERE name = "A"', [("a", 1), ("b", 1), ("A", 1)]),
        ('SELECT "na""me" FROM t', [('na"me', 1)]),
        ('SELECT name AS "alias" FROM t ORDER BY "alias"', []),
        ('SELECT "t"."name" FROM "t"', []),
        ('CREATE TABLE "u"("x" TEXT DEFAULT "pending", "y" INTEGER)', []),
        ('CREATE TABLE u(x CHECK ("x" IN ("a")))', [("a", 1)]),
        ('CREATE INDEX "i" ON "t"("name")', []),
        ('CREATE INDEX i ON t("nope")', [("nope", 1)]),
        ('CREATE VIEW v AS SELECT "name",\n"oops" FROM t', [("oops", 2)]),
        ('CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT "name" FROM t; END', []),
        ('DELETE FROM t WHERE "missing" = 1 AND nonsense = 2', []),
        ("SELECT 'a \"text\" in quotes' FROM t", []),
        ('ALTER TABLE t ADD z TEXT DEFAULT "z"', []),
    ],
)
def test_what_names_no_column_is_found(
    scratch: sqlite3.Connection, sql: str, found: list[tuple[str, int]]
) -> None:
    scratch.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)")
    (statement,) = split(sql)
    assert [(f.name, f.line) for f in find_double_quoted(scratch, statement)] == found


class Refuser(Observer):
    def before_statement(
        self, connection: sqlite3.Connection, migration: Migration, statement: Statement
    ) -> None:
        if (found := double_quoted(connection, migration, statement)) is not None:
            raise found


def replay_refusing(shop: Workshop) -> None:
    with replay(()) as connection:
        for migration in shop.read().migrations:
            extend(connection, migration, Refuser())


def test_a_migration_with_one_is_refused_with_its_line_unless_it_accepts(shop: Workshop) -> None:
    text = 'CREATE TABLE t(a);\nINSERT INTO t\n VALUES ("hello");'
    shop.add("0000_a", text)
    with pytest.raises(
        DoubleQuotedString, match=r'0000_a.sql, line 3, statement 2: "hello" is not a column'
    ):
        replay_refusing(shop)
    shop.entries.clear()
    shop.add("0000_a", "-- guard: accept double_quoted_strings\n" + text)
    replay_refusing(shop)


def test_a_file_is_named_with_its_folder_where_each_has_one(tmp_path: Path) -> None:
    file = tmp_path / "20240101000000_a" / "migration.sql"
    file.parent.mkdir()
    file.write_text('CREATE TABLE a(x CHECK ("x" <> "y"));')
    [migration] = read_folder(tmp_path).migrations
    with replay(()) as connection:
        found = double_quoted(connection, migration, migration.statements[0])
    assert found is not None
    assert found.message.startswith("20240101000000_a/migration.sql, line 1")
