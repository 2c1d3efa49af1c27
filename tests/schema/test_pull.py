"""A schema that is pulled is the same schema when it is read again."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from local_mcp_gateway.schema import Schema, compare, inspect, read_module, read_sql
from local_mcp_gateway.schema.pull import NotExpressible, pull_module, pull_sql
from tests.schema.made import schemas
from tests.schema.made_schema import S

SCHEMA = r"""
CREATE TABLE Users (Id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL DEFAULT 'it''s %s \: :x' UNIQUE,
  "a b" VARCHAR(20) COLLATE NOCASE, made DATETIME DEFAULT CURRENT_TIMESTAMP, kind int DEFAULT (1 + 2),
  twice TEXT AS (name || ':y') STORED, size, CHECK (Id > 0), CONSTRAINT short CHECK (name <> ':z%'));
CREATE TABLE posts (a INTEGER REFERENCES users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, b TEXT NOT NULL ON
  CONFLICT REPLACE DEFAULT '', c TEXT, CONSTRAINT both PRIMARY KEY (b, a) ON CONFLICT IGNORE, UNIQUE (c) ON CONFLICT
  REPLACE, CONSTRAINT upwards FOREIGN KEY (c) REFERENCES Users (name) ON UPDATE SET NULL);
CREATE TABLE "two words" (code TEXT PRIMARY KEY, x ANY) STRICT, WITHOUT ROWID;
CREATE TABLE one (id INTEGER PRIMARY KEY, other REFERENCES other);
CREATE TABLE other (id INTEGER PRIMARY KEY, one REFERENCES one);
CREATE TABLE "class" (self TEXT PRIMARY KEY REFERENCES "class");
CREATE TABLE lost (x REFERENCES nowhere);
CREATE TABLE odd (id INTEGER PRIMARY KEY DESC, x TEXT, UNIQUE (x COLLATE NOCASE));
CREATE TABLE of_odd (odd REFERENCES odd (id));
CREATE UNIQUE INDEX by_low ON Users (lower(name), kind DESC, "a b" COLLATE BINARY) WHERE Id > 1 AND name <> ':q';
CREATE INDEX by_x ON odd (x);
CREATE VIRTUAL TABLE found USING fts5 (name, content = 'Users');
CREATE VIEW names AS SELECT name FROM Users WHERE name LIKE 'a%' AND name <> ':v';
CREATE TRIGGER added AFTER INSERT ON Users BEGIN
  UPDATE Users SET kind = 1 WHERE name = '"\';
END;
"""


def made(sql: str) -> Schema:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(sql)
        return inspect(connection)


def again(schema: Schema, folder: Path) -> tuple[Schema, Schema]:
    """Pull it both ways, and read both."""
    (folder / "pulled.sql").write_text(pull_sql(schema))
    (folder / "pulled.py").write_text(pull_module(schema))
    return read_sql(folder / "pulled.sql"), read_module(str(folder / "pulled.py"))


def test_a_schema_comes_back_as_sql_and_as_a_module(tmp_path: Path) -> None:
    schema = made(SCHEMA)
    assert [compare(schema, found) for found in again(schema, tmp_path)] == [(), ()]


def test_only_what_sqlalchemy_cannot_express_stands_in_the_module_as_sql(tmp_path: Path) -> None:
    text = pull_module(made(SCHEMA))
    names = ("Users", "posts", "one", "odd", "of_odd", "lost")
    assert [name for name in names if f"CREATE TABLE {name} (" in text] == ["odd", "of_odd", "lost"]
    compile(text, "pulled.py", "exec")


def test_an_index_names_a_column_as_sqlite_does_which_folds_ascii_letters_only() -> None:
    text = pull_module(made('CREATE TABLE t ("Ä b" TEXT); CREATE INDEX i ON t ("Ä B");'))
    assert 'Index("i", "Ä b")' in text


def test_a_schema_without_a_table_for_sqlalchemy_is_left_to_sql() -> None:
    with pytest.raises(NotExpressible):
        pull_module(made("CREATE TABLE lost (x REFERENCES nowhere)"))


@given(schemas())
@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_schema_comes_back(tmp_path: Path, schema: S) -> None:
    found = schema.schema()
    (tmp_path / "pulled.sql").write_text(pull_sql(found))
    assert compare(found, read_sql(tmp_path / "pulled.sql")) == ()
    with suppress(NotExpressible):
        (tmp_path / "pulled.py").write_text(pull_module(found))
        assert compare(found, read_module(str(tmp_path / "pulled.py"))) == ()
