"""A plan from one schema to another: its statements, its hazards, and what it refuses."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema import compare, fingerprint, inspect
from local_mcp_gateway.schema.hazards import rebuild_cost
from local_mcp_gateway.schema.model import HazardKind
from local_mcp_gateway.schema.naming import name_of
from local_mcp_gateway.schema.plan import NotDerivable, derive_down, make_plan
from local_mcp_gateway.schema.renames import Renames, candidates, parse_renames
from tests.schema.read import schema_of

T = "CREATE TABLE t (\n  id INTEGER PRIMARY KEY,\n  a TEXT\n);"


def test_equal_schemas_need_no_statement() -> None:
    plan = make_plan(schema_of(T), schema_of(T.replace("TEXT", "text")))
    assert (plan.statements, plan.sql, plan.before) == ((), "", plan.after)


def test_a_plan_carries_the_fingerprints_that_it_was_made_for() -> None:
    old, new = schema_of(T), schema_of(T + "CREATE TABLE u(x);")
    plan = make_plan(old, new)
    assert (plan.before, plan.after) == (fingerprint(old), fingerprint(new))


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t(a CHECK (a <> %s), b AS (a || %s))",
        "CREATE TABLE t(a); CREATE INDEX i ON t(a) WHERE a = %s AND a <> %s",
        "CREATE TABLE t(a); CREATE VIEW v AS SELECT a, %s AS b FROM t WHERE a <> %s",
    ],
)
def test_text_in_double_quotes_is_written_as_the_guard_takes_it(sql: str) -> None:
    strings, doubles = schema_of(sql % ("'x'", "'y''z'")), schema_of(sql % ('"x"', '"y\'z"'))
    assert compare(strings, doubles) == ()
    plan = make_plan(schema_of(""), doubles)
    assert '"' not in plan.sql
    assert compare(schema_of(plan.sql), strings) == ()


def test_where_sqlite_refuses_the_alter_the_table_is_rebuilt() -> None:
    old = schema_of("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT, CHECK (a <> b))")
    plan = make_plan(old, schema_of("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)"))
    assert plan.rebuilds == 1


def test_a_column_is_added_with_all_that_belongs_to_it() -> None:
    new = T.replace(
        "a TEXT",
        "a TEXT, b TEXT COLLATE RTRIM NOT NULL ON CONFLICT IGNORE DEFAULT 'x', "
        "c INT REFERENCES t(id) ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED, "
        "d CONSTRAINT positive CHECK (d > 0)",
    )
    assert make_plan(schema_of(T), schema_of(new)).statements == (
        "ALTER TABLE t ADD COLUMN b TEXT COLLATE RTRIM NOT NULL ON CONFLICT IGNORE DEFAULT 'x'",
        "ALTER TABLE t ADD COLUMN c INT REFERENCES t(id) ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED",
        "ALTER TABLE t ADD COLUMN d CONSTRAINT positive CHECK (d > 0)",
    )


def test_a_table_without_a_common_column_keeps_its_number_of_rows() -> None:
    plan = make_plan(schema_of("CREATE TABLE t(a)"), schema_of("CREATE TABLE t(b UNIQUE, c)"))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as live:
        live.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)")
        for statement in plan.statements:
            live.execute(statement)
        assert live.execute("SELECT count(*) FROM t").fetchall() == [(2,)]


def test_a_view_that_is_broken_before_does_not_stand_in_the_way() -> None:
    broken = "CREATE VIEW v AS SELECT x FROM gone;"
    plan = make_plan(
        schema_of(T + broken), schema_of(T.replace("a TEXT", "a TEXT UNIQUE") + broken)
    )
    assert "DROP VIEW v" in plan.statements
    assert plan.statements[-1].startswith("CREATE VIEW v")


def test_a_change_of_one_table_does_not_look_at_the_others() -> None:
    others = "".join(f"CREATE TABLE o{n}(x); CREATE INDEX i{n} ON o{n}(x);" for n in range(50))
    plan = make_plan(
        schema_of(others + T), schema_of(others + T.replace("a TEXT", "a TEXT, b TEXT"))
    )
    assert plan.statements == ("ALTER TABLE t ADD COLUMN b TEXT",)


def test_a_left_over_of_an_interrupted_rebuild_is_not_in_the_way() -> None:
    left = "CREATE TABLE __new_t(x);"
    plan = make_plan(schema_of(T + left), schema_of(T.replace("a TEXT", "a TEXT UNIQUE") + left))
    assert plan.statements[0].startswith("CREATE TABLE __new_t_ (")


def test_a_virtual_table_that_stays_needs_no_module() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(T)
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING vec0(e)')"
        )
        old = inspect(connection)
    new = schema_of(T.replace("a TEXT", "b TEXT, c INT UNIQUE"))
    new = replace(new, virtual_tables=old.virtual_tables)
    plan = make_plan(old, new, renames=Renames(columns={("t", "a"): "b"}))
    assert plan.rebuilds == 1
    assert "vec0" not in plan.sql


def test_a_fill_that_sqlite_refuses_is_said() -> None:
    new = schema_of(T.replace("a TEXT", "a TEXT, b TEXT NOT NULL"))
    with pytest.raises(SchemaProblem, match="no such function: nonsense"):
        make_plan(schema_of(T), new, fills={("t", "b"): "nonsense()"})


def test_the_sequence_of_an_autoincrement_table_outlives_its_rebuild() -> None:
    sql = "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT{});"
    plan = make_plan(schema_of(sql.format("")), schema_of(sql.format(" UNIQUE")))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as live:
        live.executescript(sql.format("") + "INSERT INTO t(a) VALUES ('x'), ('y'); DELETE FROM t;")
        for statement in plan.statements:
            live.execute(statement)
        live.execute("INSERT INTO t(a) VALUES ('z')")
        assert live.execute("SELECT id FROM t").fetchall() == [(3,)]


def test_rows_keep_their_hidden_numbers_under_a_full_text_index() -> None:
    fts = "CREATE VIRTUAL TABLE f USING fts5(a, content='n');"
    sql = "CREATE TABLE n (a TEXT{});" + fts
    plan = make_plan(schema_of(sql.format("")), schema_of(sql.format(" UNIQUE")))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as live:
        live.executescript(
            sql.format("") + "INSERT INTO n(rowid, a) VALUES (7, 'seven'), (9, 'nine')"
        )
        live.execute("INSERT INTO f(f) VALUES ('rebuild')")
        for statement in plan.statements:
            live.execute(statement)
        assert live.execute("SELECT rowid, a FROM f WHERE f MATCH 'nine'").fetchall() == [
            (9, "nine")
        ]


# --- the way back -------------------------------------------------------------------------------


def test_the_way_back_of_a_rename_is_a_rename() -> None:
    old, new = schema_of(T), schema_of(T.replace("a TEXT", "b TEXT").replace("TABLE t", "TABLE u"))
    renames = parse_renames(["t=u", "u.a=u.b"], old, new)
    down = derive_down(old, new, renames)
    assert down.statements == ("ALTER TABLE u RENAME TO t", "ALTER TABLE t RENAME COLUMN b TO a")


def test_the_way_back_gives_a_stand_in_where_values_are_gone() -> None:
    old = schema_of(T.replace("a TEXT", "a TEXT NOT NULL, n INTEGER NOT NULL"))
    down = derive_down(old, schema_of("CREATE TABLE t (id INTEGER PRIMARY KEY)"), Renames())
    assert "SELECT id, '', 0 FROM t" in down.statements[1]


@pytest.mark.parametrize("column", ["a TEXT NOT NULL UNIQUE", "a INT NOT NULL REFERENCES t(id)"])
def test_there_is_no_way_back_where_a_stand_in_could_not_be_right(column: str) -> None:
    with pytest.raises(NotDerivable, match=r"the values of t\.a are gone"):
        derive_down(
            schema_of(T.replace("a TEXT", column)),
            schema_of("CREATE TABLE t (id INTEGER PRIMARY KEY)"),
            Renames(),
        )


# --- renames ------------------------------------------------------------------------------------


def test_candidates_are_every_pair_of_what_went_and_what_came() -> None:
    old = schema_of("CREATE TABLE t(id, a, b); CREATE TABLE gone(id)")
    new = schema_of("CREATE TABLE t(id, c); CREATE TABLE came(id)")
    assert list(map(str, candidates(old, new, Renames()))) == ["gone=came", "t.a=t.c", "t.b=t.c"]
    decided = parse_renames(["gone=came", "t.b=t.c"], old, new)
    assert candidates(old, new, decided) == ()


def test_a_circle_of_renames_is_opened() -> None:
    old, new = (
        schema_of("CREATE TABLE a(x); CREATE TABLE b(y)"),
        schema_of("CREATE TABLE a(y); CREATE TABLE b(x)"),
    )
    plan = make_plan(old, new, renames=Renames({"a": "b", "b": "a"}))
    assert plan.statements == (
        "ALTER TABLE a RENAME TO __renamed_a",
        "ALTER TABLE b RENAME TO a",
        "ALTER TABLE __renamed_a RENAME TO b",
    )


# --- names and weights --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        (T, T.replace("a TEXT", "a TEXT, b TEXT"), "add_t_b"),
        (T, "", "drop_t"),
        (T, T + "CREATE TABLE u(x);", "create_u"),
        (T, T.replace("a TEXT", "a INT"), "change_t"),
        (T, T + "CREATE INDEX i ON t(a);", "add_i"),
        (T + "CREATE INDEX i ON t(a);", T, "drop_i"),
        (T, T + "CREATE VIEW v AS SELECT 1;", "create_v"),
        (T, T + "CREATE TABLE u(x); CREATE VIEW v AS SELECT 1;", "create_u_and_create_v"),
        (T, T + "CREATE TABLE u(x); CREATE TABLE w(x); CREATE TABLE x(x);", "create_u_and_2_more"),
        (T, T + 'CREATE TABLE "Größe / x"(x);', "create_gr_e_x"),
    ],
)
def test_a_name_says_what_changes(old: str, new: str, name: str) -> None:
    assert name_of(schema_of(old), schema_of(new), Renames()) == name


def test_a_rebuild_is_weighed_and_other_hazards_stay() -> None:
    old, new = schema_of(T), schema_of(T.replace("a TEXT", "a TEXT UNIQUE"))
    hazards = make_plan(old, new).hazards
    with closing(sqlite3.connect(":memory:")) as live:
        live.executescript(T + "INSERT INTO t VALUES (1, 'x')")
        weighed = rebuild_cost(hazards, live)
    assert [hazard.kind for hazard in weighed] == [HazardKind.REBUILD, HazardKind.ADDS_UNIQUE]
    assert "1 row," in weighed[0].message
    assert weighed[1] == hazards[1]


def test_a_rebuild_of_a_table_that_is_not_there_yet_weighs_nothing() -> None:
    hazards = make_plan(schema_of(T), schema_of(T.replace("a TEXT", "a TEXT UNIQUE"))).hazards
    with closing(sqlite3.connect(":memory:")) as live:
        assert rebuild_cost(hazards, live) == hazards


def test_the_difference_of_two_plans_is_found_whatever_the_order_of_creation() -> None:
    one = schema_of("CREATE TABLE a(x); CREATE TABLE b(y)")
    other = schema_of("CREATE TABLE b(y); CREATE TABLE a(x)")
    assert compare(one, other) == ()
    assert make_plan(one, other).statements == ()
