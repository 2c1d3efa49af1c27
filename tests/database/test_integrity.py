"""What the probe says about files that are not what they should be."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.connections import (
    begin,
    open_migration,
    open_reader,
    open_scratch,
    reading,
    set_foreign_keys,
)
from local_mcp_gateway.database.errors import translated_errors
from local_mcp_gateway.database.integrity import full_check, probe
from local_mcp_gateway.database.run import Run
from local_mcp_gateway.database.transactions import pages
from local_mcp_gateway.errors import (
    Damaged,
    DatabaseBusy,
    DatabasePathProblem,
    Interrupted,
    NotADatabase,
)


def fill(database: Path, rows: int = 2000) -> None:
    connection = open_migration(database)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)")
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<?)"
        " INSERT INTO t SELECT i, hex(randomblob(100)) FROM n",
        (rows,),
    )
    connection.execute("CREATE INDEX w ON t(word)")
    connection.close()


def test_no_file_and_an_empty_file_are_new(tmp_path: Path) -> None:
    assert probe(tmp_path / "a.db").state == "new"
    (tmp_path / "a.db").touch()
    assert probe(tmp_path / "a.db").state == "new"


def test_a_database_with_nothing_in_it_is_new_however_it_was_left(tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    open_migration(database).close()
    assert database.stat().st_size > 0
    assert probe(database).state == "new"
    with closing(open_migration(database)) as connection:
        connection.execute("CREATE VIEW v AS SELECT 1")
    assert probe(database).state == "checked"


def test_a_check_is_told_before_it_begins(tmp_path: Path) -> None:
    """On a large file an old SQLite says nothing until the end, minutes later."""
    database = tmp_path / "x.db"
    fill(database, rows=1)
    told: list[str] = []
    probe(database, run=Run(progress=lambda phase, *_: told.append(phase)))
    assert told == ["check"]


def test_a_text_file_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("hello, this is not a database at all\n" * 10)
    with pytest.raises(NotADatabase, match=r"a\.db is not a SQLite database"):
        probe(tmp_path / "a.db")
    with pytest.raises(NotADatabase), reading(tmp_path / "a.db"):
        pass


def test_a_folder_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatabasePathProblem, match="is a folder"):
        probe(tmp_path)
    with pytest.raises(DatabasePathProblem, match="does not exist"):
        probe(tmp_path / "no" / "a.db")
    with pytest.raises(DatabasePathProblem, match="does not exist"):
        open_migration(tmp_path / "no" / "a.db")
    with pytest.raises(DatabasePathProblem, match="no database"), reading(tmp_path / "a.db"):
        pass


def test_a_file_cut_in_its_header_or_later_is_damaged(tmp_path: Path) -> None:
    fill(tmp_path / "a.db")
    whole = (tmp_path / "a.db").read_bytes()
    for length in (50, 4096, len(whole) // 2):
        (tmp_path / "cut.db").write_bytes(whole[:length])
        with pytest.raises(Damaged):
            probe(tmp_path / "cut.db")


def test_an_overwritten_page_is_damage(tmp_path: Path) -> None:
    fill(tmp_path / "a.db")
    with (tmp_path / "a.db").open("r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096)
    with pytest.raises(Damaged, match="damaged"):
        probe(tmp_path / "a.db")


def test_a_null_in_a_column_that_forbids_it_is_not_damage(tmp_path: Path) -> None:
    connection = open_migration(tmp_path / "a.db")
    connection.execute("CREATE TABLE t(a)")
    connection.execute("INSERT INTO t VALUES (NULL)")
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql='CREATE TABLE t(a NOT NULL)'")
    connection.close()
    assert probe(tmp_path / "a.db").state == "checked"


def test_the_time_limit_of_the_quick_check_is_kept(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", 20_000)
    assert probe(tmp_path / "a.db", quick_check_limit_s=0.0).complete is False
    assert probe(tmp_path / "a.db").complete is True


def test_a_stop_interrupts_the_check(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", 20_000)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        probe(tmp_path / "a.db", run=Run(stop=stop))


def test_an_index_that_disagrees_is_found_by_the_full_check(tmp_path: Path) -> None:
    connection = open_scratch()
    connection.execute("CREATE TABLE t(a)")
    connection.execute("INSERT INTO t VALUES (1)")
    full_check(connection)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "INSERT INTO sqlite_schema SELECT 'index','i','t',rootpage,'CREATE INDEX i ON t(a)' FROM sqlite_schema"
    )
    connection.execute("PRAGMA writable_schema=RESET")
    with pytest.raises(Damaged):
        full_check(connection)
    connection.close()


def test_the_migration_connection_is_durable_and_without_foreign_keys(tmp_path: Path) -> None:
    connection = open_migration(tmp_path / "a.db")
    values = [
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert values == ["wal", 3, 0]
    assert (tmp_path / "a.db").stat().st_mode & 0o777 == 0o600
    connection.execute("BEGIN")
    with pytest.raises(RuntimeError, match="inside a transaction"):
        set_foreign_keys(connection, on=True)
    connection.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", 1)
    reader = open_reader(tmp_path / "a.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM t")
    reader.close()


def test_a_reader_recovers_a_hot_journal_first(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.execute("CREATE TABLE t(a)")
    connection.execute("PRAGMA cache_size=1")
    connection.execute("BEGIN")
    connection.execute(
        "INSERT INTO t SELECT randomblob(3000) FROM (WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<50) SELECT i FROM n)"
    )
    for suffix in ("", "-journal"):  # what a kill leaves
        (tmp_path / f"b.db{suffix}").write_bytes((tmp_path / f"a.db{suffix}").read_bytes())
    connection.close()
    reader = open_reader(tmp_path / "b.db")
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    reader.close()


def test_a_program_that_writes_is_told_as_busy(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", 1)
    other = open_migration(tmp_path / "a.db")
    other.execute("BEGIN IMMEDIATE")
    mine = open_migration(tmp_path / "a.db")
    mine.execute("PRAGMA busy_timeout=10")
    with pytest.raises(DatabaseBusy, match="Another program"), translated_errors(tmp_path / "a.db"):
        begin(mine)
    mine.close()
    other.close()


@pytest.fixture
def of_an_application(tmp_path: Path) -> Path:
    """Make a database whose indexes need a function and a collation that only its program has."""
    database = tmp_path / "a.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as own:
        own.create_collation(
            "unicase", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower())
        )
        own.create_function("slug", 1, str.lower, deterministic=True)
        own.execute("CREATE TABLE t (name TEXT COLLATE unicase CHECK (slug(name) <> ''))")
        own.execute("CREATE INDEX by_name ON t (name)")
        own.execute("CREATE INDEX by_slug ON t (slug(name))")
        own.executemany("INSERT INTO t VALUES (?)", [("a",), ("B",), ("c",)])
    return database


def test_functions_and_collations_of_an_application_are_no_damage(of_an_application: Path) -> None:
    assert probe(of_an_application).state == "checked"
    with closing(open_reader(of_an_application)) as reader:
        full_check(reader)


def test_damage_is_found_beside_functions_of_an_application(of_an_application: Path) -> None:
    with closing(sqlite3.connect(of_an_application)) as reader:
        (page,) = reader.execute("SELECT rootpage FROM sqlite_schema WHERE name='t'").fetchone()
        (size,) = reader.execute("PRAGMA page_size").fetchone()
    with of_an_application.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 100)
    with pytest.raises(Damaged):
        probe(of_an_application)


def notes(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "app.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE notes (text)")
    return connection


def test_what_is_seen_before_commit_is_what_another_connection_reads_after_it(
    tmp_path: Path,
) -> None:
    with closing(notes(tmp_path)) as writer, closing(other_connection(tmp_path)) as reader:
        before = pages(reader)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO notes VALUES ('new')")
        written = pages(writer)
        writer.execute("COMMIT")
        found = pages(reader)
    assert before is not None
    assert written is not None
    assert found is not None
    assert found.agree(written)
    assert not found.agree(before)


def test_a_page_that_was_never_written_shows(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    with closing(notes(tmp_path)) as writer:
        writer.execute("INSERT INTO notes VALUES ('old')")
        writer.execute("PRAGMA journal_mode=DELETE").fetchall()
        old = file.read_bytes()
        writer.execute("UPDATE notes SET text = 'new'")
        written = pages(writer)
    new = file.read_bytes()
    file.write_bytes(new[:4096] + old[4096:])
    with closing(other_connection(tmp_path)) as reader:
        found = pages(reader)
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert written is not None
    assert found is not None
    assert not found.agree(written)


def test_the_version_changes_when_another_connection_writes(tmp_path: Path) -> None:
    with closing(notes(tmp_path)) as mine, closing(other_connection(tmp_path)) as other:
        before = pages(mine)
        other.execute("INSERT INTO notes VALUES ('of another program')")
        after = pages(mine)
    assert before is not None
    assert after is not None
    assert after.version != before.version


def test_a_database_that_moves_pages_at_commit_is_not_compared(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "moving.db")) as connection:
        connection.execute("PRAGMA auto_vacuum=FULL")
        connection.execute("CREATE TABLE notes (text)")
        assert pages(connection) is None


def other_connection(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "app.db", isolation_level=None)
