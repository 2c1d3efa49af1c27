"""What SQLite accepts and cannot run is found, and what a migration breaks is refused."""

from __future__ import annotations

import sqlite3

import pytest

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.migrate.broken import find_broken
from tests.migrate.workshop import Workshop

OVER = "CREATE VIRTUAL TABLE words USING"
FULL_TEXT = {
    "fts5": f"{OVER} fts5 (body, content=notes, content_rowid=id);",
    "fts5 in quotes": f"{OVER} fts5 (body, content = 'notes', content_rowid = \"id\");",
    "fts4": f'{OVER} fts4 (content="notes", body);',
}
NOTES = """CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT, body TEXT);
INSERT INTO notes VALUES (3, 'a', 'apple'), (9, 'b', 'pear');"""
FILL = "INSERT INTO words (words) VALUES ('rebuild');"


@pytest.mark.parametrize("kind", FULL_TEXT)
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE notes RENAME TO papers;",
        "ALTER TABLE notes RENAME COLUMN body TO txt;",
        "ALTER TABLE notes DROP COLUMN body;",
        "DROP TABLE notes;",
    ],
)
def test_a_full_text_table_has_to_find_the_table_that_it_is_over(
    shop: Workshop, kind: str, change: str
) -> None:
    shop.add("0000_a", f"{NOTES} {FULL_TEXT[kind]} {FILL}")
    shop.apply()
    shop.add("0001_b", change)
    with pytest.raises(VerificationFailed, match="The virtual table words cannot be read: no such"):
        shop.apply()
    again = "DROP TABLE words; CREATE VIRTUAL TABLE words USING fts5 (title);"
    (shop.path / "0001_b.sql").write_text(f"-- guard: accept loses_rows words\n{change} {again}")
    shop.apply()
    assert shop.rows("SELECT * FROM words WHERE words MATCH 'pear'") == []


@pytest.mark.parametrize("module", ["fts5", "fts4"])
def test_a_full_text_table_that_is_made_again_has_to_find_its_table_too(
    shop: Workshop, module: str
) -> None:
    shop.add("0000_a", f"{NOTES} {OVER} {module} (body, content=notes); {FILL}")
    shop.apply()
    shop.add("0001_b", f"DROP TABLE words; {OVER} {module} (body, content=papers);")
    with pytest.raises(VerificationFailed, match="The virtual table words cannot be read: no such"):
        shop.apply()


@pytest.mark.parametrize(
    "words",
    [
        "fts5 (body, content='my notes', content_rowid='the id')",
        'fts5 (body, content="My Notes", content_rowid=[the id])',
        "fts5 (body, content=[my notes], content_rowid=`the id`)",
        'fts4 (body, content="my notes")',
        "fts4 (body, content=my notes)",
    ],
)
def test_the_table_of_a_full_text_table_may_have_a_name_of_two_words(
    shop: Workshop, words: str
) -> None:
    table = '"my notes" ("the id" INTEGER PRIMARY KEY, body)'
    shop.add("0000_a", f"CREATE TABLE {table}; INSERT INTO \"my notes\" VALUES (9, 'pear');")
    shop.apply()
    shop.add("0001_b", f"{OVER} {words}; {FILL}")
    shop.apply()
    assert shop.rows("SELECT rowid FROM words WHERE words MATCH 'pear'") == [(9,)]
    shop.add("0002_c", 'ALTER TABLE "my notes" RENAME TO notes;')
    with pytest.raises(VerificationFailed, match="cannot be read: no such table: my notes"):
        shop.apply()


def test_a_column_that_a_full_text_table_does_not_have_is_free(shop: Workshop) -> None:
    shop.add("0000_a", f"{NOTES} {FULL_TEXT['fts5']} {FILL}")
    shop.apply()
    shop.add(
        "0001_b", "ALTER TABLE notes RENAME COLUMN title TO head; ALTER TABLE notes ADD COLUMN x;"
    )
    shop.apply()
    assert shop.rows("SELECT rowid FROM words WHERE words MATCH 'pear'") == [(9,)]


@pytest.mark.parametrize(
    ("index", "listing"),
    [
        ("fts5", "CREATE VIRTUAL TABLE terms USING fts5vocab (words, row);"),
        ("fts5", "CREATE VIRTUAL TABLE terms USING fts5vocab ('Words', 'col');"),
        ("fts4", "CREATE VIRTUAL TABLE terms USING fts4aux (words);"),
    ],
)
def test_a_list_of_terms_has_to_find_its_index(shop: Workshop, index: str, listing: str) -> None:
    shop.add("0000_a", f"CREATE VIRTUAL TABLE words USING {index} (body); {listing}")
    shop.apply()
    shop.add("0001_b", "ALTER TABLE words RENAME TO found;")
    with pytest.raises(VerificationFailed, match="terms cannot be read: there is no table words"):
        shop.apply()


WATCHED = "CREATE TRIGGER watch AFTER UPDATE OF body ON notes BEGIN DELETE FROM log; END;"
RENAMED = """CREATE TABLE __new (id INTEGER PRIMARY KEY, title TEXT, txt TEXT);
INSERT INTO __new SELECT * FROM notes; DROP TABLE notes; ALTER TABLE __new RENAME TO notes;"""


def test_a_trigger_on_updates_of_a_column_that_went_never_runs(shop: Workshop) -> None:
    shop.add("0000_a", f"{NOTES} CREATE TABLE log (x); {WATCHED}")
    shop.apply()
    shop.add("0001_b", f"{RENAMED} {WATCHED}")
    with pytest.raises(VerificationFailed) as caught:
        shop.apply()
    assert caught.value.message == (
        "The trigger watch of notes never runs: there is no column body, after 0001_b."
    )
    assert caught.value.hint.startswith("Create the trigger again for the new schema")
    (shop.path / "0001_b.sql").write_text(f"{RENAMED} {WATCHED.replace('OF body', 'OF txt')}")
    shop.apply()


@pytest.mark.parametrize("of", ["OF title, body", "OF rowid", 'OF "BODY"', ""])
def test_a_trigger_on_updates_of_a_column_that_is_there_runs(
    scratch: sqlite3.Connection, of: str
) -> None:
    scratch.execute("CREATE TABLE notes (id, body)")
    scratch.execute(f"CREATE TRIGGER t AFTER UPDATE {of} ON notes BEGIN SELECT 1; END")
    assert find_broken(scratch) == ()


def test_an_instead_of_trigger_goes_by_the_columns_of_its_view(scratch: sqlite3.Connection) -> None:
    scratch.execute("CREATE VIEW v AS SELECT 1 AS a")
    scratch.execute("CREATE TRIGGER t INSTEAD OF UPDATE OF b, c ON v BEGIN SELECT 1; END")
    found, _ = find_broken(scratch)  # the other: no INSTEAD OF trigger, so the UPDATE fails
    assert found.sentence == "The trigger t of v never runs: there is no column b or c"
