"""A rebuilt table has what the old one had, or the migration is refused."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import VerificationFailed
from tests.migrate.workshop import NOTES, SAME, Workshop, rebuild, refused_unless


@pytest.fixture
def notes(shop: Workshop) -> Workshop:
    shop.add("0000_a", NOTES)
    shop.apply()
    return shop


def test_a_column_that_the_copy_leaves_out_is_refused(notes: Workshop) -> None:
    copy = "INSERT INTO __new(id, title, stars) SELECT id, title, stars FROM notes"
    message = refused_unless(notes, rebuild(SAME, copy), "changes_values notes.body")
    assert (
        message
        == "notes.body would be NULL in every row: the copy leaves it out, by the rebuild in 0001_b."
    )


@pytest.mark.parametrize(
    "default",
    ["(strftime('%f', 'now'))", "(hex(randomblob(8)))", "(random())", "CURRENT_TIMESTAMP"],
)
@pytest.mark.parametrize("seed", ["", "INSERT INTO t (id, made, b) VALUES (9, 'x', 1);"])
def test_a_column_left_to_a_default_that_is_never_the_same_is_refused(
    shop: Workshop, default: str, seed: str
) -> None:
    columns = f"id INTEGER PRIMARY KEY, made DEFAULT {default}, b"
    shop.add("0000_a", f"CREATE TABLE t({columns}); INSERT INTO t VALUES (1, 'm', 1), (2, 'n', 2);")
    shop.apply()
    sql = rebuild(columns, "INSERT INTO __new (id, b) SELECT id, b FROM t", table="t", after=seed)
    assert "the copy leaves it out" in refused_unless(shop, sql, "changes_values t.made")


def test_a_column_left_to_its_default_is_refused(notes: Workshop) -> None:
    copy = "INSERT INTO __new(id, title, body) SELECT id, title, body FROM notes"
    message = refused_unless(notes, rebuild(SAME, copy), "changes_values notes.stars")
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


def test_values_that_a_trigger_changes_in_the_copy_are_told(notes: Workshop) -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON __new BEGIN UPDATE __new SET body = 'now'; END;"
    copy = f"{trigger} INSERT INTO __new SELECT * FROM notes"
    notes.add("0001_b", rebuild(SAME, copy))
    _, (told,) = notes.apply()
    assert (told.kind, told.object) == ("changes_values", "notes.body")


@pytest.mark.parametrize(
    "copy",
    [
        "INSERT INTO __new(title, body, stars) SELECT title, body, stars FROM notes",
        "INSERT INTO __new SELECT 10 - id, title, body, stars FROM notes",
    ],
)
def test_rows_that_get_other_ids_are_refused(notes: Workshop, copy: str) -> None:
    message = refused_unless(notes, rebuild(SAME, copy), "rekeys_rows notes")
    assert message.startswith("The rows of notes would get other values of id")


KEYS = {
    "INTEGER PRIMARY KEY": "k INTEGER PRIMARY KEY",
    "text": "k TEXT PRIMARY KEY",
    "WITHOUT ROWID": "k TEXT PRIMARY KEY",
    "composite": "k, part DEFAULT 1",
    "none": "k",
}


def table_with(key: str, name: str = "t") -> str:
    end = {"composite": ", PRIMARY KEY (k, part)) ", "WITHOUT ROWID": ") WITHOUT ROWID"}.get(
        key, ")"
    )
    return f"CREATE TABLE {name}({KEYS[key]}, a, b{end};"


@pytest.mark.parametrize("key", KEYS)
def test_values_that_come_to_stand_in_other_rows_are_refused(shop: Workshop, key: str) -> None:
    rows = "INSERT INTO t (k, a, b) VALUES (1, 'x', 10), (5, 'y', 20), (7, 'z', 30);"
    shop.add("0000_a", table_with(key) + rows)
    shop.apply()
    mixed = (
        "INSERT INTO __new (k, a, b) SELECT one.k, one.a, two.b FROM t AS one"
        " JOIN t AS two ON two.k = CASE one.k WHEN 1 THEN 5 WHEN 5 THEN 1 ELSE one.k END"
    )
    swap = "DROP TABLE t; ALTER TABLE __new RENAME TO t;"
    sql = f"{table_with(key, '__new')} {mixed}; {swap}"
    message = refused_unless(shop, sql, "changes_values t.b")
    assert message == "t.b would stand beside other values of k, by the rebuild in 0001_b.".replace(
        "of k,", "of k and part," if key == "composite" else "of k,"
    )
    assert shop.rows("SELECT b FROM t WHERE a = 'x'") == [(20,)]
    whole = f"INSERT INTO __new (k, a, b) SELECT k, a, b FROM t ORDER BY b DESC; {swap}"
    shop.add("0002_c", f"{table_with(key, '__new')} {whole}")
    shop.apply()


def test_values_stand_beside_the_same_ones_when_another_column_goes_or_changes(
    shop: Workshop,
) -> None:
    shop.add(
        "0000_a", "CREATE TABLE t(a, b, c, d); INSERT INTO t VALUES (1, 2, 3, 4), (5, 6, 7, 8);"
    )
    shop.apply()
    shop.add(
        "0001_b",
        rebuild(
            "a, c, d", "INSERT INTO __new SELECT a, c * 2, d FROM t ORDER BY a DESC", table="t"
        ),
    )
    _, (told,) = shop.apply()
    assert told.object == "t.c"
    mixed = "INSERT INTO __new SELECT a, c * 3, 12 - d FROM t"
    assert "t.d would stand beside other values of a" in refused_later(shop, mixed)


def refused_later(shop: Workshop, copy: str) -> str:
    shop.add("0002_c", rebuild("a, c, d", copy, table="t"))
    with pytest.raises(VerificationFailed) as caught:
        shop.apply()
    return caught.value.message


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
DROPPED = {"view": "DROP VIEW vp;"}
MADE_AGAIN = {"trigger": TRIGGER, "view": BY_ROWID["view"].partition("; ")[2]}


def places_rebuilt(kind: str, copied: str) -> str:
    before, after = DROPPED.get(kind, ""), MADE_AGAIN.get(kind, "")
    return rebuild(NEW_PLACES, copied, table="places", before=before, after=after)


@pytest.mark.parametrize("kind", BY_ROWID)
def test_new_rowids_are_refused_where_something_goes_by_the_old_ones(
    shop: Workshop, kind: str
) -> None:
    shop.add("0000_a", PLACES + BY_ROWID[kind])
    shop.apply()
    sql = places_rebuilt(kind, "INSERT INTO __new SELECT code, name FROM places")
    message = refused_unless(shop, sql, "rekeys_rows places")
    assert message.startswith(
        "The rows of places would get new rowids by the rebuild in 0001_b, and"
    )


@pytest.mark.parametrize("kind", BY_ROWID)
def test_rowids_that_are_copied_are_fine(shop: Workshop, kind: str) -> None:
    shop.add("0000_a", PLACES + BY_ROWID[kind])
    shop.apply()
    copied = "INSERT INTO __new(rowid, code, name) SELECT rowid, code, name FROM places"
    sql = places_rebuilt(kind, copied)
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


@pytest.mark.parametrize(
    "new", ["id BIGINT PRIMARY KEY", "id INTEGER PRIMARY KEY DESC", "id INTEGER, UNIQUE (id)"]
)
@pytest.mark.parametrize("rowid", ["", ", content_rowid=rowid", ", content_rowid=id"])
def test_a_key_that_is_the_rowid_no_more_is_refused_where_something_goes_by_the_rowid(
    shop: Workshop, new: str, rowid: str
) -> None:
    over = f"CREATE VIRTUAL TABLE words USING fts5 (title, content=notes{rowid});"
    joined = "CREATE VIEW hits AS SELECT notes.id FROM words JOIN notes ON words.rowid = notes.id;"
    shop.add("0000_a", NOTES + over + joined + "INSERT INTO words (words) VALUES ('rebuild');")
    shop.apply()
    copy = "INSERT INTO __new (id, title) SELECT id, title FROM notes"
    columns = f"title TEXT, {new}"
    lossy = "-- guard: accept changes_values notes.body\n"
    shop.add("0001_b", "DROP VIEW hits;" + rebuild(columns, copy) + joined)
    if "=id" in rowid:
        shop.apply()
        assert shop.rows("SELECT rowid FROM words WHERE words MATCH 'c'") == [(9,)]
        return
    with pytest.raises(VerificationFailed, match="new rowids by the rebuild in 0001_b, and words"):
        shop.apply()
    kept = copy.replace("(id", "(rowid, id").replace("SELECT", "SELECT id,")
    (shop.path / "0001_b.sql").write_text(
        lossy + "DROP VIEW hits;" + rebuild(columns, kept) + joined
    )
    shop.apply()
    assert shop.rows("SELECT rowid FROM words WHERE words MATCH 'c'") == [(9,)]


VIRTUAL = {
    "fts5": ("fts5 (body)", "body"),
    "fts4": ("fts4 (body)", "body"),
    "contentless": ("fts5 (body, content='')", "body"),
    "rtree": ("rtree (id, x0, x1)", "id, x0, x1"),
}


@pytest.mark.parametrize("kind", VIRTUAL)
@pytest.mark.parametrize("only", [True, False])
def test_a_virtual_table_that_is_made_again_has_to_be_filled_again(
    shop: Workshop, kind: str, *, only: bool
) -> None:
    definition, columns = VIRTUAL[kind]
    values = "(4, 1, 2), (7, 2, 3)" if kind == "rtree" else "(4, 'apple'), (7, 'pear')"
    filled = columns if kind == "rtree" else f"rowid, {columns}"
    other = "" if only else "CREATE TABLE other (x);"
    shop.add(
        "0000_a",
        f"{other} CREATE VIRTUAL TABLE v USING {definition}; INSERT INTO v ({filled}) VALUES {values};",
    )
    shop.apply()
    again = f"CREATE VIRTUAL TABLE new USING {definition}; {{}} DROP TABLE v; ALTER TABLE new RENAME TO v;"
    message = refused_unless(shop, again.format(""), "loses_rows v")
    assert message.startswith("Table v had 2 rows and has 0 after its rebuild in 0001_b")


@pytest.mark.parametrize("kind", ["fts5", "fts4"])
def test_a_full_text_table_that_is_filled_without_its_rowids_is_refused(
    shop: Workshop, kind: str
) -> None:
    shop.add(
        "0000_a",
        f"CREATE VIRTUAL TABLE v USING {kind} (body); INSERT INTO v (rowid, body) VALUES (4, 'a'), (7, 'b');",
    )
    shop.apply()
    again = f"CREATE VIRTUAL TABLE n USING {kind} (body, prefix='2');"
    swap = "DROP TABLE v; ALTER TABLE n RENAME TO v;"
    sql = f"{again} INSERT INTO n SELECT body FROM v; {swap}"
    assert "rows of v would get new rowids" in refused_unless(shop, sql, "rekeys_rows v")
    shop.add("0002_c", f"{again} INSERT INTO n (rowid, body) SELECT rowid, body FROM v; {swap}")
    shop.apply()
    shop.add("0003_d", f"DELETE FROM v; DROP TABLE v; {again.replace(' n ', ' v ')}")
    shop.apply()


def test_an_index_over_a_table_that_is_made_again_has_to_be_built_again(shop: Workshop) -> None:
    over = "CREATE VIRTUAL TABLE words USING fts5 (title, content=notes, content_rowid=id{});"
    fill = "INSERT INTO words (words) VALUES ('rebuild');"
    shop.add("0000_a", NOTES + over.format("") + fill)
    shop.apply()
    again = "DROP TABLE words;" + over.format(", tokenize=porter")
    message = refused_unless(shop, again, "loses_rows words")
    assert message.startswith("The full-text table words has indexed 0 of 3 rows after 0001_b made")
    shop.add("0002_c", again + fill)
    shop.apply()
    shop.add("0003_d", "DELETE FROM notes WHERE id > 1; " + again + fill)
    shop.apply()
    assert shop.rows("SELECT rowid FROM words WHERE words MATCH 'a'") == [(1,)]


def test_a_list_of_terms_has_no_rows_to_lose(shop: Workshop) -> None:
    listing = "CREATE VIRTUAL TABLE terms USING fts5vocab (words, {});"
    shop.add(
        "0000_a",
        f"CREATE VIRTUAL TABLE words USING fts5 (a, b); {listing.format('col')}"
        " INSERT INTO words VALUES ('x', 'x');",
    )
    shop.apply()
    assert shop.rows("SELECT count(*) FROM terms") == [(2,)]
    shop.add("0001_b", f"DROP TABLE terms; {listing.format('row')}")
    shop.apply()
    assert shop.rows("SELECT count(*) FROM terms") == [(1,)]


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


def test_a_generated_column_that_becomes_an_ordinary_one_is_copied(shop: Workshop) -> None:
    shop.add(
        "0000_a",
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b AS (a * 2)); INSERT INTO t VALUES (1), (2);",
    )
    shop.apply()
    columns = "a INTEGER PRIMARY KEY, b"
    sql = rebuild(columns, "INSERT INTO __new(a) SELECT a FROM t", table="t")
    message = refused_unless(shop, sql, "changes_values t.b")
    assert message.startswith("t.b would be NULL in every row: the copy leaves it out")
    generated = rebuild(
        "a INTEGER PRIMARY KEY, b AS (a * 3)", "INSERT INTO __new(a) SELECT a FROM t", table="t"
    )
    shop.add("0002_c", generated)
    shop.add("0003_d", rebuild(columns, "INSERT INTO __new SELECT * FROM t", table="t"))
    shop.apply()
    assert shop.rows("SELECT * FROM t") == [(1, 3), (2, 6)]


CONSTRAINTS = {
    "PRIMARY KEY": "a PRIMARY KEY, b",
    "UNIQUE": "a, b, UNIQUE (a, b)",
    "FOREIGN KEY": "a REFERENCES other, b",
    "CHECK": "a CHECK (a > 0), b",
    "NOT NULL": "a NOT NULL, b",
    "DEFAULT": "a DEFAULT 7, b",
}
AS_SELECT = "CREATE TABLE __new AS SELECT * FROM t; DROP TABLE t; ALTER TABLE __new RENAME TO t;"


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_a_copy_by_create_table_as_may_not_lose_what_the_table_was(
    shop: Workshop, kind: str
) -> None:
    shop.add(
        "0000_a",
        f"CREATE TABLE other(x INTEGER PRIMARY KEY); CREATE TABLE t({CONSTRAINTS[kind]});",
    )
    shop.apply()
    message = refused_unless(shop, AS_SELECT, "drops_constraints t")
    assert message.startswith(
        f"Table t would have no {kind} after its rebuild in 0001_b: CREATE TABLE"
    )


def test_a_table_of_records_that_another_tool_keeps_may_be_copied_so(shop: Workshop) -> None:
    shop.add("0000_a", "CREATE TABLE alembic_version(v PRIMARY KEY); CREATE TABLE t(a);")
    shop.apply()
    shop.execute("INSERT INTO alembic_version VALUES ('one')")
    shop.add("0001_b", AS_SELECT.replace(" t;", " alembic_version;"))
    shop.apply()
    assert shop.rows("SELECT * FROM alembic_version") == [("one",)]


OUT_AND_IN = """CREATE TEMP TABLE kept AS SELECT * FROM n; DROP TABLE n;
CREATE TABLE n(a INTEGER PRIMARY KEY, b DEFAULT 4); INSERT INTO n SELECT * FROM kept;"""


@pytest.mark.parametrize(
    "sql",
    [
        AS_SELECT,  # it had none
        OUT_AND_IN,
        "CREATE TABLE IF NOT EXISTS main.copies AS SELECT * FROM n;",
    ],
)
def test_create_table_as_is_fine_where_nothing_is_lost(shop: Workshop, sql: str) -> None:
    shop.add(
        "0000_a", "CREATE TABLE t(a, b TEXT); CREATE TABLE n(a INTEGER PRIMARY KEY, b DEFAULT 4);"
    )
    shop.apply()
    shop.execute("INSERT INTO t VALUES (1, 2)", "INSERT INTO n VALUES (3, 4)")
    shop.add("0001_b", sql)
    shop.apply()
    assert shop.rows("SELECT * FROM t, n") == [(1, "2", 3, 4)]


def test_text_that_is_not_utf8_is_compared_as_it_is_stored(shop: Workshop) -> None:
    shop.add(
        "0000_a", "CREATE TABLE t(a TEXT, b); INSERT INTO t VALUES (CAST(x'ff00' AS TEXT), 1);"
    )
    shop.apply()
    shop.add("0001_b", rebuild("a TEXT, b", "INSERT INTO __new SELECT * FROM t", table="t"))
    _, told = shop.apply()
    assert told == ()
