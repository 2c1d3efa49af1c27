"""A table is followed to what replaces it, over every file of the set."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import MigrationFailed, VerificationFailed
from local_mcp_gateway.migrate import check_folder
from tests.migrate.workshop import NOTES, SAME, Workshop, aside, rebuild, refused_unless


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
    message = refused_unless(notes, rebuild(SAME, copy), "loses_rows notes")
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
    assert "had 3 rows and has 2" in refused_unless(notes, aside(SAME, copy), "loses_rows notes")


def test_a_copy_over_two_migrations_has_to_be_whole_too(notes: Workshop) -> None:
    notes.add("0001_out", "CREATE TABLE kept AS SELECT * FROM notes; DROP TABLE notes;")
    notes.add(
        "0002_in", f"CREATE TABLE notes({SAME}); INSERT INTO notes SELECT * FROM kept LIMIT 2;"
    )
    with pytest.raises(VerificationFailed, match="had 3 rows and has 2 after its rebuild"):
        notes.apply()


WHOLE = "INSERT INTO {0} SELECT * FROM {1}"
NO_BODY = "INSERT INTO {0} (id, title, stars) SELECT id, title, stars FROM {1}"
SPLIT = {
    "before the drop": (f"CREATE TABLE __new({SAME}); {{copy}};", "DROP TABLE notes; ALTER TABLE __new RENAME TO notes;"),
    "before the name": (f"CREATE TABLE __new({SAME}); {{copy}}; DROP TABLE notes;", "ALTER TABLE __new RENAME TO notes;"),
    "aside": (f"ALTER TABLE notes RENAME TO __old; CREATE TABLE notes({SAME});", "{copy}; DROP TABLE __old;"),
    "aside, then dropped": (f"ALTER TABLE notes RENAME TO __old; CREATE TABLE notes({SAME}); {{copy}};", "DROP TABLE __old;"),
    "out and in": ("CREATE TABLE __old AS SELECT * FROM notes; DROP TABLE notes;", f"CREATE TABLE notes({SAME}); {{copy}}; DROP TABLE __old;"),
    "out, and in later": (f"CREATE TABLE __old AS SELECT * FROM notes; DROP TABLE notes; CREATE TABLE notes({SAME});", "{copy}; DROP TABLE __old;"),
}  # fmt: skip


@pytest.mark.parametrize("where", SPLIT)
@pytest.mark.parametrize("between", ["", "ALTER TABLE other ADD COLUMN y;"])
def test_a_rebuild_over_two_files_is_compared_as_one(
    notes: Workshop, where: str, between: str
) -> None:
    notes.add("0001_other", "CREATE TABLE other(x);")
    notes.apply()
    target, source = ("__new", "notes") if "before" in where else ("notes", "__old")
    first, second = SPLIT[where]
    copy = NO_BODY.format(target, source)
    notes.add("0002_one", first.format(copy=copy))
    if between:
        notes.add("0003_between", between)
    notes.add("0004_two", second.format(copy=copy))
    with pytest.raises(VerificationFailed, match=r"notes\.body would be NULL in every row"):
        notes.apply()
    whole = WHOLE.format(target, source)
    (notes.path / "0002_one.sql").write_text(first.format(copy=whole))
    (notes.path / "0004_two.sql").write_text(second.format(copy=whole))
    _, told = notes.apply()
    assert told == ()
    assert notes.rows("SELECT body FROM notes") == [("x",), ("y",), (None,)]


def test_a_later_file_of_the_set_may_fill_what_a_copy_left_out(notes: Workshop) -> None:
    kept = "CREATE TABLE kept AS SELECT * FROM notes;"
    copy = "INSERT INTO __new SELECT * FROM notes WHERE id < 5"
    notes.add("0001_b", kept + rebuild(SAME, copy))
    notes.add("0002_other", "CREATE TABLE other(x);")
    with pytest.raises(
        VerificationFailed, match="had 3 rows and has 2 after its rebuild in 0001_b"
    ):
        notes.apply()
    rest = "INSERT INTO notes SELECT * FROM kept WHERE id >= 5; DROP TABLE kept;"
    notes.add("0003_rest", rest)
    _, told = notes.apply()
    assert told == ()
    assert notes.rows("SELECT count(*) FROM notes") == [(3,)]


def test_a_loss_that_is_accepted_does_not_hide_what_a_later_file_copies_badly(
    notes: Workshop,
) -> None:
    out = f"CREATE TABLE kept AS SELECT * FROM notes; DROP TABLE notes; CREATE TABLE notes({SAME});"
    notes.add("0001_out", f"-- guard: accept loses_rows notes\n{out}")
    notes.add("0002_in", "INSERT INTO notes SELECT id, body, title, stars FROM kept;")
    with pytest.raises(VerificationFailed, match=r"notes\.title would get the values of body"):
        notes.apply()


def test_a_column_may_go_in_one_file_and_come_again_in_the_next(notes: Workshop) -> None:
    columns = "id INTEGER PRIMARY KEY, title TEXT, stars INTEGER"
    copy = "INSERT INTO __new SELECT id, title, stars FROM notes"
    notes.add("0001_b", rebuild(columns, copy))
    notes.add("0002_c", "ALTER TABLE notes ADD COLUMN body TEXT;")
    notes.add(
        "0003_d",
        rebuild(SAME, "INSERT INTO __new (id, title, stars) SELECT id, title, stars FROM notes"),
    )
    _, told = notes.apply()
    assert told == ()
    assert notes.rows("SELECT body FROM notes") == [(None,)] * 3


def test_a_second_rebuild_in_the_set_is_compared_with_the_first_ones_table(notes: Workshop) -> None:
    notes.add("0001_b", aside(SAME, "INSERT INTO notes SELECT * FROM __new"))
    notes.add("0002_c", rebuild(SAME, "INSERT INTO __new SELECT * FROM notes LIMIT 1"))
    with pytest.raises(
        VerificationFailed, match="had 3 rows and has 1 after its rebuild in 0002_c"
    ):
        notes.apply()


def test_rows_that_are_deleted_do_not_excuse_a_copy_that_leaves_out_others(notes: Workshop) -> None:
    copy = "DELETE FROM notes WHERE id = 4; INSERT INTO __new SELECT * FROM notes LIMIT 1"
    message = refused_unless(notes, rebuild(SAME, copy), "loses_rows notes")
    assert message.startswith("Table notes had 2 rows and has 1 after its rebuild")


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
    assert "had 3 rows and has 2" in refused_unless(shop, sql, "loses_rows t")


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
    message = refused_unless(shop, sql, "loses_rows t")
    assert message.startswith("Table t had 2 rows and has 1 of them after its rebuild in 0001_b")


@pytest.mark.parametrize("temporary", ["", "TEMP"])
def test_nor_where_the_rows_are_taken_out_and_put_in_again(shop: Workshop, temporary: str) -> None:
    shop.add(
        "0000_a", "CREATE TABLE t(k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2);"
    )
    shop.apply()
    out = f"CREATE {temporary} TABLE kept AS SELECT * FROM t; DROP TABLE t; CREATE TABLE t(k TEXT PRIMARY KEY, v);"
    back = "INSERT INTO t SELECT * FROM kept WHERE v > 1; DROP TABLE kept; INSERT INTO t VALUES ('c', 3);"
    assert "had 2 rows and has 1 of them" in refused_unless(shop, out + back, "loses_rows t")


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


BESIDES = {
    "rows after": ("{copy}", "INSERT INTO notes(title, body) VALUES ('s', 'z'), ('t', NULL);"),
    "a row before": ("INSERT INTO __new VALUES (100, 's', 'z', 1); {copy}", ""),
    "on both sides": ("INSERT INTO __new VALUES (100, 's', 'z', 1); {copy}", "INSERT INTO notes(title) VALUES ('t');"),
    "from another table": ("{copy}; INSERT INTO __new(title) SELECT word FROM words", ""),
    "as many from another table": ("{copy}; INSERT INTO __new(title, stars) SELECT word, 1 FROM words WHERE word < 'm'", ""),
    "rows that go": ("{copy}; DELETE FROM __new WHERE id = 4", ""),
    "rows that go later": ("{copy}", "DELETE FROM notes WHERE id = 4;"),
}  # fmt: skip
COPY = "INSERT INTO __new (id, title, body, stars) SELECT id, title, body, stars FROM notes"


@pytest.fixture
def with_words(notes: Workshop) -> Workshop:
    notes.add(
        "0001_words",
        "CREATE TABLE words(word); INSERT INTO words VALUES ('a'), ('b'), ('c'), ('x'), ('y');",
    )
    notes.apply()
    return notes


@pytest.mark.parametrize("besides", BESIDES)
def test_values_are_compared_where_a_file_adds_or_deletes_rows_besides(
    with_words: Workshop, besides: str
) -> None:
    notes = with_words
    body, after = BESIDES[besides]
    swapped = COPY.replace("SELECT id, title, body", "SELECT id, body, title")
    notes.add("0002_b", rebuild(SAME, body.format(copy=swapped), after=after))
    with pytest.raises(VerificationFailed, match=r"notes\.title would get the values of body"):
        notes.apply()
    mixed = COPY.replace(
        "SELECT id, title",
        "SELECT id, CASE title WHEN 'a' THEN 'b' WHEN 'b' THEN 'a' ELSE title END",
    )
    (notes.path / "0002_b.sql").write_text(rebuild(SAME, body.format(copy=mixed), after=after))
    with pytest.raises(VerificationFailed, match=r"notes\.title would stand beside other values"):
        notes.apply()
    upper = COPY.replace("SELECT id, title", "SELECT id, upper(title)")
    (notes.path / "0002_b.sql").write_text(rebuild(SAME, body.format(copy=upper), after=after))
    _, told = notes.apply()
    assert ("changes_values", "notes.title") in [(one.kind, one.object) for one in told]
    notes.add("0003_b", rebuild(SAME, body.format(copy=COPY).replace("100", "200"), after=after))
    _, told = notes.apply()
    assert [one for one in told if one.kind == "changes_values"] == []
    assert notes.not_compared == []


def test_a_row_that_is_put_in_first_does_not_stand_for_one_that_the_copy_leaves_out(
    notes: Workshop,
) -> None:
    copy = f"INSERT INTO __new VALUES (100, 's', 'z', 1); {COPY} WHERE id > 1"
    message = refused_unless(notes, rebuild(SAME, copy), "loses_rows notes")
    assert message.startswith("Table notes had 3 rows and has 2 of them after its rebuild")


def test_a_delete_does_not_excuse_a_copy_that_leaves_out_other_rows(notes: Workshop) -> None:
    copy = f"{COPY} WHERE id < 9; DELETE FROM __new WHERE id = 4"
    message = refused_unless(notes, rebuild(SAME, copy), "loses_rows notes")
    assert message.startswith("Table notes had 3 rows and has 2 after its rebuild")
    delete = "DELETE FROM notes WHERE id = 4;"
    notes.add("0002_c", rebuild(SAME, "SELECT 1", after=delete))
    with pytest.raises(VerificationFailed, match="had 1 rows and has 0 after its rebuild"):
        notes.apply()


def test_values_that_cannot_be_told_from_others_are_said_not_to_be_compared(
    notes: Workshop,
) -> None:
    by_trigger = (
        "CREATE TABLE log(x); CREATE TRIGGER more AFTER INSERT ON log BEGIN"
        " INSERT INTO notes(title) VALUES (new.x); END; INSERT INTO log VALUES ('s'); DROP TRIGGER more;"
    )
    notes.add("0001_b", rebuild(SAME, COPY, after=by_trigger))
    notes.apply()
    assert notes.not_compared == [
        ("notes", 4, "rows come to it, or go, besides the copies"),
    ]


def test_of_a_large_table_the_values_of_each_column_are_counted(notes: Workshop) -> None:
    notes.limit = 5
    left_out = "INSERT INTO __new (id, title, stars) SELECT id, title, stars FROM notes"
    notes.add("0001_b", rebuild(SAME, left_out))
    with pytest.raises(VerificationFailed, match=r"notes\.body would be NULL in every row"):
        notes.apply()
    filled = COPY.replace("SELECT id, title, body", "SELECT id, title, coalesce(body, 'none')")
    (notes.path / "0001_b.sql").write_text(rebuild(SAME, filled))
    _, told = notes.apply()
    assert [(one.kind, one.object) for one in told] == [("changes_values", "notes.body")]
    (reason,) = {reason for _, _, reason in notes.not_compared}
    assert reason == "it has more values than `[guard] compare_limit_values`"
    renumbered = "INSERT INTO __new (title, body, stars) SELECT title, body, stars FROM notes"
    notes.add("0002_c", rebuild(SAME, renumbered))
    with pytest.raises(VerificationFailed, match="would get other values of id"):
        notes.apply()


@pytest.fixture
def copied_earlier(notes: Workshop) -> Workshop:
    """A rebuild of which one start has done the first half."""
    columns = SAME.replace("KEY", "KEY AUTOINCREMENT")
    notes.add("0001_first", rebuild(columns, COPY))
    notes.apply()
    notes.execute("INSERT INTO notes VALUES (50, 'gone', '', 0)", "DELETE FROM notes WHERE id = 50")
    notes.add("0002_copy", f"CREATE TABLE __new({columns}); {COPY};")
    notes.apply()
    notes.add("0003_swap", "DROP TABLE notes; ALTER TABLE __new RENAME TO notes;")
    return notes


def test_a_rebuild_over_two_starts_keeps_all_and_its_numbers(copied_earlier: Workshop) -> None:
    notes = copied_earlier
    assert notes.apply()[1] == ()
    assert notes.rows("SELECT id, title FROM notes") == [(1, "a"), (4, "b"), (9, "c")]
    assert notes.rows("SELECT seq FROM sqlite_sequence WHERE name = 'notes'") == [(50,)]


def test_rows_that_came_between_the_two_starts_of_a_rebuild_are_not_lost(
    copied_earlier: Workshop,
) -> None:
    notes = copied_earlier
    notes.execute("INSERT INTO notes VALUES (60, 'later', '', 0)")
    with pytest.raises(
        VerificationFailed, match="Table notes had 4 rows and has 3 after its rebuild"
    ):
        notes.apply()
    notes.execute(
        "DELETE FROM notes WHERE id = 60", "UPDATE notes SET title = 'other' WHERE id = 1"
    )
    (told,) = notes.apply()[1]
    assert (told.kind, told.object) == ("changes_values", "notes.title")


def test_a_table_that_no_file_copied_is_not_taken_for_a_copy(notes: Workshop) -> None:
    notes.add("0001_v2", f"CREATE TABLE other({SAME}); INSERT INTO other VALUES (1, 'z', 'z', 1);")
    notes.apply()
    notes.add("0002_swap", "DROP TABLE notes; ALTER TABLE other RENAME TO notes;")
    (told,) = notes.apply()[1]
    assert told.message == "Table notes goes from 3 rows to 1."


def test_a_table_moved_aside_in_one_start_and_dropped_in_the_next_is_told(notes: Workshop) -> None:
    notes.add(
        "0001_aside",
        f"ALTER TABLE notes RENAME TO __old; CREATE TABLE notes({SAME});"
        " INSERT INTO notes SELECT * FROM __old LIMIT 1;",
    )
    notes.apply()
    notes.add("0002_drop", "DROP TABLE __old;")
    (told,) = notes.apply()[1]
    assert (told.kind, told.message) == (
        "deletes_data",
        "Table __old goes from 3 rows to 0.",
    )


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
