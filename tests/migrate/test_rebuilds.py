"""A rebuilt table has what the old one had, or the migration is refused."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import MigrationFailed, VerificationFailed
from local_mcp_gateway.migrate import check_folder
from tests.migrate.workshop import Workshop

NOTES = """CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT, stars INTEGER DEFAULT 0);
INSERT INTO notes VALUES (1, 'a', 'x', 5), (4, 'b', 'y', NULL), (9, 'c', NULL, 2);"""


def rebuild(
    columns: str, copy: str, *, table: str = "notes", before: str = "", after: str = ""
) -> str:
    """The way that SQLite's documentation and Drizzle take."""
    return (
        f"{before} CREATE TABLE __new({columns}); {copy}; DROP TABLE {table};"
        f" ALTER TABLE __new RENAME TO {table}; {after}"
    )


def aside(columns: str, copy: str, *, table: str = "notes") -> str:
    """The other way: the old table is renamed first."""
    return f"ALTER TABLE {table} RENAME TO __new; CREATE TABLE {table}({columns}); {copy}; DROP TABLE __new;"


SAME = "id INTEGER PRIMARY KEY, title TEXT, body TEXT, stars INTEGER DEFAULT 0"


def refused(shop: Workshop, sql: str, accept: str) -> str:
    """Apply it: it is refused, and applied with the line that the hint gives."""
    shop.add("0001_b", sql)
    with pytest.raises(VerificationFailed) as caught:
        shop.apply()
    line = f"-- guard: accept {accept}"
    assert f"`{line}`" in caught.value.hint
    shop.path.joinpath("0001_b.sql").write_text(f"{line}\n{sql}")
    shop.apply()
    return caught.value.message


@pytest.fixture
def notes(shop: Workshop) -> Workshop:
    shop.add("0000_a", NOTES)
    shop.apply()
    return shop


@pytest.mark.parametrize(
    ("copy", "left"),
    [
        ("SELECT 1", 0),
        ("INSERT INTO __new SELECT * FROM notes WHERE body IS NOT NULL", 2),
        ("INSERT INTO __new SELECT * FROM notes LIMIT 1", 1),
        ("INSERT INTO __new SELECT a.* FROM notes AS a JOIN notes AS b ON b.id = a.id + 3", 1),
        ("INSERT OR IGNORE INTO __new SELECT 1, title, body, stars FROM notes", 1),
    ],
)
def test_a_copy_that_does_not_take_every_row_is_refused(
    notes: Workshop, copy: str, left: int
) -> None:
    message = refused(notes, rebuild(SAME, copy), "loses_rows notes")
    assert message == (
        f"Table notes had 3 rows and has {left} after its rebuild in 0001_b: not all of them are copied."
    )


def test_another_file_of_the_set_may_accept_what_this_one_loses(notes: Workshop) -> None:
    notes.add(
        "0001_applied_elsewhere", rebuild(SAME, "INSERT INTO __new SELECT * FROM notes LIMIT 1")
    )
    notes.add("0002_known", "-- guard: accept loses_rows notes\nSELECT 1;")
    _, (told,) = notes.apply()
    assert told.message == "Table notes goes from 3 rows to 1."


def test_a_table_moved_aside_has_to_be_copied_as_well(notes: Workshop) -> None:
    copy = "INSERT INTO notes SELECT * FROM __new WHERE id > 1"
    assert "had 3 rows and has 2" in refused(notes, aside(SAME, copy), "loses_rows notes")


def test_a_copy_over_two_migrations_has_to_be_whole_too(notes: Workshop) -> None:
    notes.add("0001_out", "CREATE TABLE kept AS SELECT * FROM notes; DROP TABLE notes;")
    notes.add(
        "0002_in", f"CREATE TABLE notes({SAME}); INSERT INTO notes SELECT * FROM kept LIMIT 2;"
    )
    with pytest.raises(VerificationFailed, match="had 3 rows and has 2 after its rebuild"):
        notes.apply()


def test_rows_that_an_earlier_migration_of_the_set_added_have_to_be_copied(notes: Workshop) -> None:
    notes.add("0001_more", "INSERT INTO notes(title) VALUES ('d'), ('e');")
    copy = "INSERT INTO __new SELECT * FROM notes ORDER BY id LIMIT 3"
    notes.add("0002_rebuild", rebuild(SAME, copy))
    with pytest.raises(VerificationFailed, match="had 5 rows and has 3 after its rebuild"):
        notes.apply()


@pytest.mark.parametrize("conflict", ["IGNORE", "REPLACE"])
def test_rows_that_a_conflict_clause_leaves_out_are_not_lost_in_silence(
    shop: Workshop, conflict: str
) -> None:
    shop.add("0000_a", "CREATE TABLE t(a, b); INSERT INTO t VALUES (1, 2), (1, 3), (2, 4);")
    shop.apply()
    sql = rebuild(
        f"a UNIQUE ON CONFLICT {conflict}, b", "INSERT INTO __new SELECT * FROM t", table="t"
    )
    assert "had 3 rows and has 2" in refused(shop, sql, "loses_rows t")


@pytest.mark.parametrize("where", ["notes", "__new"])
def test_rows_that_a_statement_deletes_are_told_and_not_refused(
    notes: Workshop, where: str
) -> None:
    delete = f"DELETE FROM {where} WHERE id = 4;"
    copy = "INSERT INTO __new SELECT * FROM notes"
    sql = rebuild(SAME, f"{delete} {copy}" if where == "notes" else f"{copy}; {delete}")
    notes.add("0001_b", sql)
    _, (told,) = notes.apply()
    assert told.message == "Table notes goes from 3 rows to 2."


def test_a_table_that_is_dropped_for_good_is_told_and_not_refused(notes: Workshop) -> None:
    notes.add("0001_b", "DROP TABLE notes;")
    _, (told,) = notes.apply()
    assert (told.kind, told.object) == ("deletes_data", "notes")


@pytest.mark.parametrize(
    "copy",
    [
        "INSERT INTO __new SELECT * FROM notes",
        "INSERT INTO __new(stars, id, body, title) SELECT stars, id, body, title FROM notes",
        "INSERT INTO __new SELECT id, title, body, CAST(stars AS TEXT) FROM notes ORDER BY title DESC",
    ],
)
@pytest.mark.parametrize("way", [rebuild, aside])
def test_a_whole_copy_passes_whatever_its_order_is(notes: Workshop, copy: str, way: object) -> None:
    if way is aside:
        copy = copy.replace("notes", "__old").replace("__new", "notes").replace("__old", "__new")
    notes.add("0001_b", way(SAME, copy))  # type: ignore[operator]
    _, told = notes.apply()
    assert told == ()


def test_a_column_that_the_copy_leaves_out_is_refused(notes: Workshop) -> None:
    copy = "INSERT INTO __new(id, title, stars) SELECT id, title, stars FROM notes"
    message = refused(notes, rebuild(SAME, copy), "changes_values notes.body")
    assert (
        message
        == "notes.body would be NULL in every row: the copy leaves it out, by the rebuild in 0001_b."
    )


def test_a_column_left_to_its_default_is_refused(notes: Workshop) -> None:
    copy = "INSERT INTO __new(id, title, body) SELECT id, title, body FROM notes"
    message = refused(notes, rebuild(SAME, copy), "changes_values notes.stars")
    assert message.startswith("notes.stars would be 0 in every row")


def test_columns_in_each_others_place_are_refused(notes: Workshop) -> None:
    moved = "id INTEGER PRIMARY KEY, body TEXT, title TEXT, stars INTEGER"
    sql = rebuild(moved, "INSERT INTO __new SELECT * FROM notes")
    notes.add("0001_b", sql)
    with pytest.raises(VerificationFailed, match=r"notes\.body would get the values of title"):
        notes.apply()
    line = "-- guard: accept changes_values notes.body, notes.title\n"
    notes.path.joinpath("0001_b.sql").write_text(line + sql)
    notes.apply()
    assert notes.rows("SELECT title, body FROM notes WHERE id = 1") == [("x", "a")]


def test_values_that_an_expression_changes_are_told(notes: Workshop) -> None:
    copy = "INSERT INTO __new SELECT id, upper(title), body, coalesce(stars, -1) FROM notes"
    notes.add("0001_b", rebuild(SAME, copy))
    _, told = notes.apply()
    assert [(change.kind, change.object) for change in told] == [
        ("changes_values", "notes.title"),
        ("changes_values", "notes.stars"),
    ]


@pytest.mark.parametrize(
    "update",
    ["UPDATE notes SET body = NULL", "UPDATE __new SET body = NULL"],
)
def test_values_that_an_update_changes_are_its_own_matter(notes: Workshop, update: str) -> None:
    after = f"{update};" if "notes" in update else ""
    copy = "INSERT INTO __new SELECT * FROM notes" + ("" if after else f"; {update}")
    notes.add("0001_b", rebuild(SAME, copy, after=after))
    _, told = notes.apply()
    assert told == ()


@pytest.mark.parametrize(
    "copy",
    [
        "INSERT INTO __new(title, body, stars) SELECT title, body, stars FROM notes",
        "INSERT INTO __new SELECT 10 - id, title, body, stars FROM notes",
    ],
)
def test_rows_that_get_other_ids_are_refused(notes: Workshop, copy: str) -> None:
    message = refused(notes, rebuild(SAME, copy), "rekeys_rows notes")
    assert message.startswith("The rows of notes would get other values of id")


PLACES = """CREATE TABLE places(code TEXT PRIMARY KEY, name TEXT);
INSERT INTO places VALUES ('a', 'Aachen'), ('b', 'Bonn'), ('c', 'Celle'); DELETE FROM places WHERE code = 'a';
"""
BY_ROWID = {
    "content": "CREATE VIRTUAL TABLE words USING fts5(name, content=places);"
    " INSERT INTO words(words) VALUES ('rebuild');",
    "rtree": "CREATE VIRTUAL TABLE geo USING rtree(id, x0, x1);"
    " INSERT INTO geo SELECT rowid, rowid, rowid FROM places;",
    "trigger": "CREATE TABLE seen(place); CREATE TRIGGER tp AFTER UPDATE ON places"
    " BEGIN INSERT INTO seen VALUES (new.rowid); END;",
    "view": "CREATE TABLE seen(place); CREATE VIEW vp AS SELECT name FROM seen JOIN places ON places.rowid = place;",
}
NEW_PLACES = "code TEXT PRIMARY KEY, name TEXT DEFAULT ''"
TRIGGER = BY_ROWID["trigger"].partition("; ")[2]


@pytest.mark.parametrize("kind", BY_ROWID)
def test_new_rowids_are_refused_where_something_goes_by_the_old_ones(
    shop: Workshop, kind: str
) -> None:
    shop.add("0000_a", PLACES + BY_ROWID[kind])
    shop.apply()
    sql = rebuild(
        NEW_PLACES,
        "INSERT INTO __new SELECT code, name FROM places",
        table="places",
        before="DROP VIEW vp;" if kind == "view" else "",
        after=TRIGGER
        if kind == "trigger"
        else BY_ROWID["view"].partition("; ")[2]
        if kind == "view"
        else "",
    )
    message = refused(shop, sql, "rekeys_rows places")
    assert message.startswith(
        "The rows of places would get new rowids by the rebuild in 0001_b, and"
    )


@pytest.mark.parametrize("kind", BY_ROWID)
def test_rowids_that_are_copied_are_fine(shop: Workshop, kind: str) -> None:
    shop.add("0000_a", PLACES + BY_ROWID[kind])
    shop.apply()
    sql = rebuild(
        NEW_PLACES,
        "INSERT INTO __new(rowid, code, name) SELECT rowid, code, name FROM places",
        table="places",
        before="DROP VIEW vp;" if kind == "view" else "",
        after=TRIGGER
        if kind == "trigger"
        else BY_ROWID["view"].partition("; ")[2]
        if kind == "view"
        else "",
    )
    shop.add("0001_b", sql)
    shop.apply()
    assert shop.rows("SELECT rowid, code FROM places") == [(2, "b"), (3, "c")]


def test_new_rowids_are_fine_where_the_file_fills_what_goes_by_them(shop: Workshop) -> None:
    shop.add("0000_a", PLACES + BY_ROWID["content"])
    shop.apply()
    copy = "INSERT INTO __new SELECT code, name FROM places"
    fill = "INSERT INTO words(words) VALUES ('rebuild');"
    shop.add("0001_b", rebuild(NEW_PLACES, copy, table="places", after=fill))
    shop.apply()
    assert shop.rows("SELECT rowid FROM words WHERE words MATCH 'Bonn'") == [(1,)]


def test_new_rowids_are_fine_where_nothing_goes_by_them(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        PLACES + "CREATE VIRTUAL TABLE other USING fts5(x); INSERT INTO other VALUES ('y');",
    )
    shop.apply()
    copy = "INSERT INTO __new SELECT code, name FROM places"
    shop.add("0001_b", rebuild(NEW_PLACES, copy, table="places"))
    shop.apply()


def test_a_table_without_rowid_is_compared_as_well(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE t(k TEXT PRIMARY KEY, a, b) WITHOUT ROWID; INSERT INTO t VALUES ('x', 1, 2), ('y', 3, 4);",
    )
    shop.apply()
    shop.add(
        "0001_b",
        "CREATE TABLE __new(k TEXT PRIMARY KEY, b, a) WITHOUT ROWID; INSERT INTO __new SELECT * FROM t;"
        " DROP TABLE t; ALTER TABLE __new RENAME TO t;",
    )
    with pytest.raises(VerificationFailed, match=r"t\.b would get the values of a"):
        shop.apply()


def test_generated_columns_are_computed_and_not_compared(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b AS (a * 2) STORED); INSERT INTO t VALUES (1), (2);",
    )
    shop.apply()
    shop.add(
        "0001_b",
        rebuild(
            "a INTEGER PRIMARY KEY, b AS (a * 3) STORED",
            "INSERT INTO __new(a) SELECT a FROM t",
            table="t",
        ),
    )
    shop.apply()
    assert shop.rows("SELECT b FROM t") == [(3,), (6,)]


def test_text_that_is_not_utf8_is_compared_as_it_is_stored(shop: Workshop) -> None:
    shop.add(
        "0000_a", "CREATE TABLE t(a TEXT, b); INSERT INTO t VALUES (CAST(x'ff00' AS TEXT), 1);"
    )
    shop.apply()
    shop.add("0001_b", rebuild("a TEXT, b", "INSERT INTO __new SELECT * FROM t", table="t"))
    _, told = shop.apply()
    assert told == ()


PARENT = """CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT, age INTEGER);
CREATE TABLE posts(id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users(id) ON DELETE CASCADE);
CREATE INDEX by_name ON users(name);
CREATE VIEW names AS SELECT name FROM users;
CREATE TABLE log(name TEXT);
CREATE TRIGGER added AFTER INSERT ON users BEGIN INSERT INTO log VALUES (new.name); END;
INSERT INTO users VALUES (3, 'a', 5), (8, 'b', NULL);
INSERT INTO posts VALUES (1, 3), (2, 8);"""


def test_the_alter_column_of_libsql_is_carried_out_as_a_rebuild(shop: Workshop) -> None:
    shop.add("0000_a", PARENT)
    shop.apply()
    shop.add(
        "0001_b", 'ALTER TABLE `users` ALTER COLUMN "name" TO "name" text NOT NULL DEFAULT \'x\';'
    )
    ((step,), losses) = shop.apply()
    assert (step.statements, step.drops, losses) == (1, frozenset(), ())
    assert shop.rows("SELECT * FROM users") == [(3, "a", 5), (8, "b", None)]
    assert shop.rows("SELECT * FROM posts") == [(1, 3), (2, 8)]
    assert shop.rows("SELECT * FROM log") == [("a",), ("b",)]
    users = shop.rows("SELECT type, name FROM sqlite_schema WHERE tbl_name IN ('users', 'names')")
    assert sorted(users) == [
        ("index", "by_name"), ("table", "users"), ("trigger", "added"), ("view", "names")
    ]  # fmt: skip
    assert shop.rows("SELECT \"notnull\", dflt_value FROM pragma_table_info('users')")[1] == (
        1,
        "'x'",
    )
    shop.execute("INSERT INTO users (age) VALUES (1)")
    assert shop.rows("SELECT * FROM log")[2:] == [("x",)]


def test_rows_that_an_altered_column_does_not_allow_are_not_left_as_libsql_leaves_them(
    shop: Workshop,
) -> None:
    shop.add("0000_a", PARENT)
    shop.apply()
    before = shop.rows("SELECT sql FROM sqlite_schema")
    shop.add("0001_b", "SELECT 1;\nALTER TABLE users ALTER COLUMN age TO age integer NOT NULL;")
    with pytest.raises(MigrationFailed) as caught:
        shop.apply()
    assert caught.value.message == (
        "0001_b.sql, line 2, statement 2: NOT NULL constraint failed: users.age."
    )
    assert "leaves rows as they are" in (caught.value.hint or "")
    assert shop.rows("SELECT sql FROM sqlite_schema") == before


def test_other_values_of_an_altered_column_are_told(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(code TEXT, n INTEGER); INSERT INTO a VALUES ('007', NULL);")
    shop.apply()
    shop.add("0001_b", "ALTER TABLE a ALTER COLUMN code TO code integer;")
    _, (told,) = shop.apply()
    assert (told.kind, told.object) == ("changes_values", "a.code")
    shop.add("0002_c", "ALTER TABLE a ALTER COLUMN n TO n integer NOT NULL DEFAULT 4;")
    _, (told,) = shop.apply()
    assert (told.kind, told.object) == ("changes_values", "a.n")
    assert shop.rows("SELECT * FROM a") == [(7, 4)]


def test_two_columns_of_one_table_may_be_altered_in_one_file(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE a(x TEXT, y TEXT); INSERT INTO a VALUES ('b', 'c');")
    shop.apply()
    sql = "ALTER TABLE a ALTER COLUMN x TO x text NOT NULL; ALTER TABLE a ALTER COLUMN y TO y text NOT NULL;"
    shop.add("0001_b", sql)
    kinds = {str(hazard.kind) for _, hazard in check_folder(shop.read()).hazards}
    assert "rebuild" in kinds
    assert "deletes_data" not in kinds
    shop.apply()
    assert shop.rows("SELECT * FROM a") == [("b", "c")]


def test_what_libsql_does_not_alter_is_refused_with_its_place(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE a(id INTEGER PRIMARY KEY, x);\nALTER TABLE a ALTER COLUMN id TO id text;",
    )
    with pytest.raises(
        MigrationFailed, match=r"line 2, statement 2: ALTER COLUMN cannot alter a PRIMARY"
    ):
        shop.apply()
