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
    assert "the copy leaves it out" in refused(shop, sql, "changes_values t.made")


@pytest.mark.parametrize("way", [rebuild, aside])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_rows_that_are_put_in_besides_do_not_stand_for_rows_that_are_lost(
    shop: Workshop, way: object, rows: int
) -> None:
    shop.add(
        "0000_a", "CREATE TABLE t(k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2);"
    )
    shop.apply()
    source, target = ("t", "__new") if way is rebuild else ("__new", "t")
    copy = f"INSERT INTO {target} SELECT * FROM {source} WHERE v > 1"
    seeds = "; ".join(f"INSERT INTO t VALUES ('s{n}', {n})" for n in range(rows))
    sql = way("k TEXT PRIMARY KEY, v", copy, table="t") + seeds + ";"  # type: ignore[operator]
    message = refused(shop, sql, "loses_rows t")
    assert message.startswith("Table t had 2 rows and has 1 of them after its rebuild in 0001_b")


@pytest.mark.parametrize("temporary", ["", "TEMP"])
def test_nor_where_the_rows_are_taken_out_and_put_in_again(shop: Workshop, temporary: str) -> None:
    shop.add(
        "0000_a", "CREATE TABLE t(k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2);"
    )
    shop.apply()
    out = f"CREATE {temporary} TABLE kept AS SELECT * FROM t; DROP TABLE t; CREATE TABLE t(k TEXT PRIMARY KEY, v);"
    back = "INSERT INTO t SELECT * FROM kept WHERE v > 1; DROP TABLE kept; INSERT INTO t VALUES ('c', 3);"
    assert "had 2 rows and has 1 of them" in refused(shop, out + back, "loses_rows t")


def test_rows_that_a_join_multiplies_do_not_stand_for_rows_that_are_lost(notes: Workshop) -> None:
    notes.add(
        "0001_tags", "CREATE TABLE tags AS SELECT 1 AS note UNION ALL SELECT 1 UNION ALL SELECT 4;"
    )
    notes.apply()
    columns = SAME.replace("id INTEGER PRIMARY KEY", "id INTEGER, n INTEGER PRIMARY KEY")
    copy = "INSERT INTO __new (id, title, body) SELECT id, title, body FROM notes JOIN tags ON note = id"
    notes.add("0002_b", rebuild(columns, copy))
    with pytest.raises(VerificationFailed, match=r"notes\.stars would be 0 in every row"):
        notes.apply()
    more = "INSERT INTO __new SELECT * FROM notes WHERE id > 1; INSERT INTO __new (title) VALUES ('s'), ('t')"
    (notes.path / "0002_b.sql").write_text(rebuild(SAME, more))
    with pytest.raises(VerificationFailed, match="had 3 rows and has 2 of them after its rebuild"):
        notes.apply()


def test_rows_that_are_put_in_besides_are_fine(notes: Workshop) -> None:
    copy = "INSERT INTO __new SELECT * FROM notes"
    notes.add("0001_b", rebuild(SAME, copy, after="INSERT INTO notes(title) VALUES ('s');"))
    notes.apply()
    before = "INSERT INTO __new VALUES (100, 'first', 'x', 1); "
    notes.add("0002_b", rebuild(SAME, before + copy))
    notes.apply()
    halves = f"{copy} WHERE id > 4; CREATE TABLE kept AS SELECT * FROM notes WHERE id <= 4"
    rest = "INSERT INTO notes SELECT * FROM kept; DROP TABLE kept;"
    notes.add("0003_b", rebuild(SAME, halves, after=rest))
    notes.apply()
    assert notes.rows("SELECT count(*) FROM notes") == [(5,)]


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


def test_values_that_a_trigger_changes_in_the_copy_are_told(notes: Workshop) -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON __new BEGIN UPDATE __new SET body = 'now'; END;"
    copy = f"{trigger} INSERT INTO __new SELECT * FROM notes"
    notes.add("0001_b", rebuild(SAME, copy))
    _, (told,) = notes.apply()
    assert (told.kind, told.object) == ("changes_values", "notes.body")


def test_a_temporary_table_of_the_same_name_is_another_table(notes: Workshop) -> None:
    notes.add("0001_a", "CREATE TRIGGER t AFTER INSERT ON notes BEGIN SELECT 1; END;")
    notes.apply()
    temporary = (
        "CREATE TEMP TABLE notes AS SELECT * FROM main.notes; ALTER TABLE temp.notes RENAME TO n;"
    )
    notes.add("0002_b", f"{temporary} DELETE FROM n; DROP TABLE n;")
    _, told = notes.apply()
    assert told == ()
    assert notes.rows("SELECT count(*) FROM notes") == [(3,)]


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
    message = refused(shop, again.format(""), "loses_rows v")
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
    assert "rows of v would get new rowids" in refused(shop, sql, "rekeys_rows v")
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
    message = refused(shop, again, "loses_rows words")
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


COUNTED = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v);"
NEXT = "INSERT INTO t (v) VALUES (0) RETURNING id"


@pytest.mark.parametrize("left", ["id < 5", "0"])
@pytest.mark.parametrize("way", [rebuild, aside])
def test_a_rebuild_does_not_give_the_numbers_of_deleted_rows_again(
    shop: Workshop, way: object, left: str
) -> None:
    shop.add("0000_a", COUNTED + "INSERT INTO t VALUES (1, 1), (4, 4), (9, 9);")
    shop.apply()
    shop.execute(f"DELETE FROM t WHERE NOT ({left})")
    source, target = ("t", "__new") if way is rebuild else ("__new", "t")
    sql = way(  # type: ignore[operator]
        "id INTEGER PRIMARY KEY AUTOINCREMENT, v DEFAULT 1",
        f"INSERT INTO {target} SELECT * FROM {source}",
        table="t",
    )
    shop.add("0001_b", sql)
    shop.apply()
    assert shop.rows("SELECT * FROM sqlite_sequence") == [("t", 9)]
    assert shop.rows(NEXT) == [(10,)]


@pytest.mark.parametrize(
    ("columns", "after", "left"),
    [
        ("id INTEGER PRIMARY KEY, v", "", []),
        (
            "id INTEGER PRIMARY KEY AUTOINCREMENT, v",
            "UPDATE sqlite_sequence SET seq = 2 WHERE name = 't';",
            [("t", 2)],
        ),
    ],
)
def test_numbers_that_a_file_gives_up_are_given_up(
    shop: Workshop, columns: str, after: str, left: list[object]
) -> None:
    shop.add("0000_a", COUNTED + "INSERT INTO t VALUES (1, 1), (9, 9); DELETE FROM t WHERE id = 9;")
    shop.apply()
    shop.add(
        "0001_b", rebuild(columns, "INSERT INTO __new SELECT * FROM t", table="t", after=after)
    )
    shop.apply()
    assert shop.rows("SELECT * FROM sqlite_sequence") == left


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
    message = refused(shop, sql, "changes_values t.b")
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
    message = refused(shop, AS_SELECT, "drops_constraints t")
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
