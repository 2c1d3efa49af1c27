"""Schemas from .sql files, in any order and as SQLite's shell prints them, and from Python modules."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema.source import read_module, read_sql

NOTES = """CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT);
CREATE VIRTUAL TABLE found USING fts5(body, content=notes, content_rowid=id);
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1);
CREATE INDEX notes_body ON notes(body);
CREATE TRIGGER noted AFTER INSERT ON notes BEGIN INSERT INTO found(rowid, body) VALUES (new.id, new.body); END;
"""


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, sql in files.items():
        (folder / f"{name}.sql").write_text(sql)
    return folder


def test_what_the_shell_prints_as_schema_is_the_schema(tmp_path: Path) -> None:
    source = written(tmp_path / "source", notes=NOTES)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.executescript(NOTES + "INSERT INTO notes(body) VALUES ('a'); ANALYZE;")
        rows = connection.execute("SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL")
        dump = "\n".join(row[0] for row in rows)
    assert "sqlite_sequence" in dump
    assert "found_data" in dump
    assert read_sql(written(tmp_path / "dump", all=dump)) == read_sql(source)


def test_files_may_stand_in_any_order_of_dependence(tmp_path: Path) -> None:
    together = read_sql(written(tmp_path / "one", notes=NOTES))
    table, found, places, index, trigger = NOTES.splitlines()
    apart = {"a": trigger, "b": index, "c": found + places, "z": table}
    assert read_sql(written(tmp_path / "many", **apart)) == together


def test_a_table_that_never_comes_is_reported_where_it_is_missed(tmp_path: Path) -> None:
    folder = written(tmp_path / "s", a="CREATE TABLE t(x);", b="\nCREATE INDEX i ON missing(x);")
    with pytest.raises(SchemaProblem, match=r"b\.sql, line 2: no such table: main\.missing"):
        read_sql(folder)


def test_hidden_files_of_editors_are_ignored(tmp_path: Path) -> None:
    folder = written(tmp_path / "s", a="CREATE TABLE t(x);")
    (folder / ".#a.sql").write_text("CREATE TABLE nonsense(")
    assert list(read_sql(folder).tables) == ["t"]


def test_what_the_application_provides_is_to_be_registered(tmp_path: Path) -> None:
    file = tmp_path / "schema.sql"
    file.write_text("CREATE TABLE t(a CHECK (mine(a)));")
    with pytest.raises(SchemaProblem, match=r"no such function: mine") as caught:
        read_sql(file)
    assert "[migrations.functions] mine =" in str(caught.value.hint)


def test_the_second_of_two_quick_saves_of_a_module_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same size, and the same second on the disk."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    module = tmp_path / "tables.py"
    for name in ("one", "two"):
        module.write_text(
            "from sqlalchemy import Column, Integer, MetaData, Table\n"
            f"t = Table('{name}', MetaData(), Column('id', Integer))\n"
        )
        os.utime(module, (1_700_000_000, 1_700_000_000))
        assert list(read_module(str(module)).tables) == [name]
    assert list(tmp_path.iterdir()) == [module]
