"""A schema as it is read from a database, whatever its names and statements are."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.schema.comparison import compare, fingerprint
from local_mcp_gateway.schema.inspection import inspect
from local_mcp_gateway.schema.model import Schema

PARENT = "CREATE TABLE p(id INTEGER PRIMARY KEY);"


def schema_of(sql: str) -> Schema:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(sql)
        return inspect(connection)
    finally:
        connection.close()


SAME = {
    "case of keywords and names": (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, Name TEXT NOT NULL)",
        "create table T(ID integer primary key, name text not null)",
    ),
    "quotes of every kind": (
        "CREATE TABLE t(a TEXT CHECK (a <> ''), b TEXT)",
        "CREATE TABLE `t`([a] TEXT CHECK (\"a\" != ''), 'b' TEXT)",
    ),
    "spaces and comments": (
        "CREATE TABLE t(a VARCHAR(20) DEFAULT (1+2)) -- x",
        "CREATE TABLE t /* t */ (\n  a VARCHAR( 20 ) -- twenty, at most\n DEFAULT ( 1 + 2 ) )",
    ),
    "a column that was added later": (
        "CREATE TABLE t(a TEXT, b TEXT NOT NULL DEFAULT 'x' COLLATE NOCASE)",
        "CREATE TABLE t(a TEXT); ALTER TABLE t ADD b TEXT COLLATE NOCASE DEFAULT 'x' NOT NULL",
    ),
    "the order of columns": (
        "CREATE TABLE t(a TEXT, b TEXT)",
        "CREATE TABLE t(b TEXT); ALTER TABLE t ADD a TEXT",
    ),
    "a renamed column": (
        "CREATE TABLE t(b TEXT CHECK (b > 0)); CREATE INDEX i ON t(b) WHERE b > 1",
        (
            "CREATE TABLE t(a TEXT CHECK (a > 0)); CREATE INDEX i ON t(a) WHERE a > 1; "
            "ALTER TABLE t RENAME a TO b"
        ),
    ),
    "a renamed table": (
        "CREATE TABLE t(a); CREATE TABLE c(a REFERENCES t(a)); CREATE VIEW v AS SELECT a FROM t",
        (
            "CREATE TABLE s(a); CREATE TABLE c(a REFERENCES s(a)); CREATE VIEW v AS SELECT a FROM s; "
            "ALTER TABLE s RENAME TO t"
        ),
    ),
    "constraints next to the column or below": (
        PARENT + "CREATE TABLE t(a INT UNIQUE CHECK (a > 0) REFERENCES p(id) ON DELETE CASCADE)",
        PARENT + "CREATE TABLE t(a INT, CONSTRAINT u UNIQUE (a), CONSTRAINT c CHECK (a > 0), "
        "FOREIGN KEY (a) REFERENCES p ON DELETE CASCADE)",
    ),
    "a default that is a string in three ways": (
        "CREATE TABLE t(a TEXT DEFAULT 'x')",
        'CREATE TABLE t(a TEXT DEFAULT "x")',
    ),
    "clauses that say nothing": (
        PARENT + "CREATE TABLE t(a INT REFERENCES p(id) ON DELETE NO ACTION, b INT DEFAULT -1)",
        PARENT
        + "CREATE TABLE t(a INT NULL REFERENCES p MATCH FULL ON UPDATE NO ACTION NOT DEFERRABLE"
        " INITIALLY DEFERRED, b INT CONSTRAINT n NULL ON CONFLICT ABORT DEFAULT - 1)",
    ),
    "deferrable but immediate": (
        PARENT + "CREATE TABLE t(a INT REFERENCES p(id))",
        PARENT + "CREATE TABLE t(a INT REFERENCES p(id) DEFERRABLE INITIALLY IMMEDIATE)",
    ),
    "deferred, said elsewhere": (
        PARENT + "CREATE TABLE t(a INT NOT NULL REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)",
        PARENT + "CREATE TABLE t(a INT REFERENCES p(id) NOT NULL DEFERRABLE INITIALLY DEFERRED)",
    ),
    "not null on what is the rowid": (
        "CREATE TABLE t(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t(id INTEGER NOT NULL, PRIMARY KEY (id))",
    ),
    "an index as written": (
        "CREATE TABLE t(a TEXT); CREATE INDEX i ON t(a)",
        'CREATE TABLE t(a TEXT); create index if not exists I on "t" (a ASC)',
    ),
    "the records of other tools, and what hangs on them": (
        "CREATE TABLE t(a)",
        "CREATE TABLE t(a)"
        + "".join(
            f"; CREATE TABLE {name}(version TEXT); CREATE INDEX {name}_i ON {name}(version)"
            for name in (
                *("alembic_version", "schema_migrations", "_prisma_migrations", "goose_db_version"),
                *("_sqlx_migrations", "flyway_schema_history", "knex_migrations", "d1_migrations"),
                *("knex_migrations_lock", "django_migrations", "__diesel_schema_migrations"),
                *("_cf_KV", "_cf_METADATA", "_litestream_lock", "SequelizeMeta"),
            )
        )
        + "; CREATE TABLE migrations(id INTEGER PRIMARY KEY, migration TEXT, batch INTEGER); ANALYZE",
    ),
    "tables that are not ours": (
        "CREATE TABLE t(a)",
        (
            "CREATE TABLE t(a); CREATE TABLE __drizzle_migrations(id); CREATE TABLE __guard_history(x);"
            "CREATE TABLE _litestream_seq(id); CREATE TABLE libsql_wasm(x); CREATE TABLE x(i INTEGER "
            "PRIMARY KEY AUTOINCREMENT); DROP TABLE x"
        ),
    ),
}

DIFFERENT = {
    "type": ("t(a TEXT)", "t(a INTEGER)"),
    "not null": ("t(a TEXT)", "t(a TEXT NOT NULL)"),
    "on conflict of not null": ("t(a NOT NULL)", "t(a NOT NULL ON CONFLICT IGNORE)"),
    "default": ("t(a DEFAULT 1)", "t(a DEFAULT '1')"),
    "default in capitals": ("t(a DEFAULT 'x')", "t(a DEFAULT 'X')"),
    "collation": ("t(a TEXT)", "t(a TEXT COLLATE NOCASE)"),
    "generated": ("t(a, b AS (a + 1))", "t(a, b AS (a + 2))"),
    "stored": ("t(a, b AS (a))", "t(a, b AS (a) STORED)"),
    "check": ("t(a)", "t(a CHECK (a > 0))"),
    "unique": ("t(a)", "t(a UNIQUE)"),
    "on conflict of unique": ("t(a UNIQUE)", "t(a UNIQUE ON CONFLICT REPLACE)"),
    "primary key": ("t(a)", "t(a PRIMARY KEY)"),
    "order of the primary key": ("t(a, b, PRIMARY KEY(a, b))", "t(a, b, PRIMARY KEY(b, a))"),
    "rowid or not": ("t(a INTEGER PRIMARY KEY)", "t(a INTEGER PRIMARY KEY DESC)"),
    "autoincrement": ("t(a INTEGER PRIMARY KEY)", "t(a INTEGER PRIMARY KEY AUTOINCREMENT)"),
    "without rowid": (
        "t(a TEXT PRIMARY KEY NOT NULL)",
        "t(a TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID",
    ),
    "foreign key": ("t(a)", "t(a REFERENCES p(id))"),
    "migrations that are no tool's": ("migrations(id, bird)", "migrations(id, bird, year)"),
    "action": ("t(a REFERENCES p(id))", "t(a REFERENCES p(id) ON DELETE SET NULL)"),
    "deferred": ("t(a REFERENCES p(id))", "t(a REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)"),
}

INDEXES = [
    "t(a)",
    "t(a DESC)",
    "t(a COLLATE NOCASE)",
    "t(a, b)",
    "t(b, a)",
    "t(lower(a))",
    "t(a) WHERE b > 1",
    "t(a) WHERE b > 2",
]


@pytest.mark.parametrize("case", SAME)
def test_two_ways_of_writing_the_same_schema_are_equal(case: str) -> None:
    one, other = map(schema_of, SAME[case])
    assert compare(one, other) == ()
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize("case", DIFFERENT)
def test_everything_that_behaves_differently_is_a_difference(case: str) -> None:
    one, other = (schema_of(f"{PARENT} CREATE TABLE {body}") for body in DIFFERENT[case])
    assert compare(one, other)
    assert fingerprint(one) != fingerprint(other)


def test_every_kind_of_index_has_its_own_fingerprint() -> None:
    prints = {
        fingerprint(schema_of(f"CREATE TABLE t(a, b); CREATE {unique} INDEX i ON {body}"))
        for body in INDEXES
        for unique in ("", "UNIQUE")
    }
    assert len(prints) == 2 * len(INDEXES)


def test_double_quotes_are_a_string_where_no_column_has_that_name() -> None:
    try:
        upper = schema_of('CREATE TABLE t(a TEXT CHECK (a <> "Nobody"))')
    except sqlite3.OperationalError:
        pytest.skip("this SQLite reads double quotes as names only")
    assert compare(upper, schema_of("CREATE TABLE t(a TEXT CHECK (a <> 'Nobody'))")) == ()
    assert compare(upper, schema_of("CREATE TABLE t(a TEXT CHECK (a <> 'nobody'))"))


def test_a_column_with_its_tables_name_before_it_is_the_column() -> None:
    one = schema_of("CREATE TABLE t(a CHECK (t.a > 0)); CREATE INDEX i ON t(a) WHERE t.a > 1")
    assert (
        compare(
            one, schema_of("CREATE TABLE t(a CHECK (a > 0)); CREATE INDEX i ON t(a) WHERE a > 1")
        )
        == ()
    )


def test_a_strict_table_differs_from_one_that_is_not() -> None:
    if sqlite3.sqlite_version_info < (3, 37):
        pytest.skip("STRICT needs SQLite 3.37")
    assert compare(schema_of("CREATE TABLE t(a TEXT)"), schema_of("CREATE TABLE t(a TEXT) STRICT"))


def test_shadow_tables_belong_to_their_virtual_table() -> None:
    schema = schema_of(
        "CREATE VIRTUAL TABLE f USING fts5(a); CREATE TABLE f_other(a); CREATE TABLE data(a)"
    )
    assert list(schema.virtual_tables) == ["f"]
    assert list(schema.tables) == ["f_other", "data"]


def test_a_broken_view_does_not_stop_the_reading() -> None:
    schema = schema_of("CREATE TABLE t(a); CREATE VIEW v AS SELECT * FROM gone")
    assert list(schema.views) == ["v"]


def test_names_that_are_keywords_or_hold_quotes_are_read() -> None:
    schema = schema_of(
        'CREATE TABLE "select"("check" TEXT UNIQUE, "a""b,c(" INT, [x y] INT CHECK ([x y] > 0))'
    )
    table = schema.tables["select"]
    assert list(table.columns) == ["check", 'a"b,c(', "x y"]
    assert [key.columns for key in table.uniques] == [("check",)]
    assert len(table.checks) == 1


WORDS = st.text(
    st.characters(codec="utf-8", min_codepoint=0x80) | st.sampled_from("aZ_"),
    min_size=1,
    max_size=8,
)


@given(WORDS, WORDS)
def test_whatever_is_not_ascii_is_a_letter_of_a_bare_name(table: str, column: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(
            f"CREATE TABLE x{table} (id INTEGER, x{column} TEXT CHECK (x{column} > ''))"
        )
        [found] = inspect(connection).tables.values()
    assert found.name == f"x{table}"
    assert [column.name for column in found.columns.values()] == ["id", f"x{column}"]


@pytest.mark.parametrize(
    "body",
    [
        "a INT CONSTRAINT foo, b INT",
        "a INT CONSTRAINT foo CONSTRAINT bar NOT NULL, b",
        "a, b, CONSTRAINT c",
    ],
)
def test_a_constraint_that_is_only_a_name_is_read_over(body: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t ({body})")
        assert list(inspect(connection).tables["t"].columns) == ["a", "b"]


def test_what_was_written_is_kept_beside_what_it_means() -> None:
    schema = schema_of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n  TEXT  Default 'x' /* why */ NOT NULL)"
    )
    assert schema.tables["t"].columns["n"].sql == "n  TEXT  Default 'x' /* why */ NOT NULL"


def test_a_missing_table_is_one_difference_and_its_index_another() -> None:
    full = schema_of("CREATE TABLE t(a, b); CREATE INDEX i ON t(a)")
    missing = [(d.kind, d.object, d.found) for d in compare(full, Schema())]
    assert missing == [("table", "t", None), ("index", "i", None)]


def test_an_object_changed_by_hand_is_named_with_both_sides() -> None:
    [found] = compare(schema_of("CREATE TABLE t(a TEXT)"), schema_of("CREATE TABLE t(a INT)"))
    assert (found.kind, found.object, found.expected, found.found) == (
        "column",
        "t.a",
        "text",
        "int",
    )
    assert str(found) == "column t.a is `int` where `text` is expected"


def test_a_virtual_table_of_a_module_that_is_not_loaded_is_read_with_its_shadows() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE v_chunks(x); CREATE TABLE v_vector_chunks00(x); CREATE TABLE v_mine(x)"
    )
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, "
        "'CREATE VIRTUAL TABLE v USING vec0(embedding float[3])')"
    )
    schema = inspect(connection)
    connection.close()
    assert list(schema.virtual_tables) == ["v"]
    assert list(schema.tables) == ["v_mine"]
