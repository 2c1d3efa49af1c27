"""A database with a damaged index is refused before anything changes, and repaired on request."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import Place

MARK = "UPDATE words SET word = 'marked' WHERE word = 'word-0777'"


def damage_index(database: Path) -> None:
    """Change one key in a leaf of the index, as a bad disk would: the page is as valid as before."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(database.read_bytes())
    leaves = (page for page in range(0, len(data), size) if data[page] == 0x0A)
    found = [at for page in leaves if (at := data.find(b"word-0777", page, page + size)) > 0]
    data[found[0] : found[0] + 4] = b"wore"
    database.write_bytes(data)


@pytest.fixture
def words(place: Place) -> Place:
    """A place with a thousand rows in an indexed table."""
    place.folder.add("words", "CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT)")
    place.folder.add(
        "filled",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
        " INSERT INTO words SELECT i, printf('word-%04d', i) FROM n",
        "CREATE INDEX by_word ON words (word)",
    )
    place.migrate()
    return place


def marked(place: Place) -> int:
    return len(place.query("SELECT 1 FROM words NOT INDEXED WHERE word = 'marked'"))


def test_a_damaged_index_is_found_before_anything_is_applied_and_mended(words: Place) -> None:
    damage_index(words.database)
    words.folder.add("mark", MARK)
    before = words.database.read_bytes()
    for _ in range(2):  # a refusal does not make the next start believe that all is well
        refused = words.run("db", "migrate")
        assert refused.code == 6, refused
        assert "missing from index by_word" in refused.stderr
        assert "`db repair --reindex`" in refused.stderr
        assert words.database.read_bytes() == before
        assert words.backups == []
    assert words.run("db", "repair", "--reindex").code == 0
    assert words.run("db", "check").code == 3  # the migration is pending, nothing else
    words.migrate()
    assert marked(words) == 1


def test_no_command_changes_a_database_with_a_damaged_index(words: Place) -> None:
    damage_index(words.database)
    seed = words.root / "seed.sql"
    seed.write_text(MARK)
    refused = words.run("db", "seed", seed)
    assert refused.code == 6, refused
    assert "`db repair --reindex`" in refused.stderr
    assert marked(words) == 0


def test_a_backup_of_a_damaged_database_is_marked_and_never_offered(words: Place) -> None:
    assert words.run("db", "backup", "create").code == 0
    (good,) = words.backups
    damage_index(words.database)
    made = words.run("db", "backup", "create", "--json")
    assert made.code == 6
    assert "index by_word" in made.json()["damage"]
    assert "`db repair --reindex`" in made.stderr
    listed = words.run("db", "backup", "list", "--json").json()
    assert [item["name"] for item in listed["backups"]] == [good.stem]
    assert "damaged database" in listed["unusable"][0]["reason"]
    status = words.run("db", "status", "--json").json()
    assert [item["name"] for item in status["backups"]] == [good.stem]
    refused = words.run("db", "restore", made.json()["name"], "--yes")
    assert refused.code == 8
    assert "damaged database" in refused.stderr
    restored = words.run("db", "restore", "latest", "--yes", "--json").json()
    assert restored["restored"]["name"] == good.stem
    assert words.run("db", "check").code == 0


def test_the_backup_of_a_reindex_is_marked_as_damaged(words: Place) -> None:
    damage_index(words.database)
    done = words.run("db", "repair", "--reindex", "--json").json()
    assert words.run("db", "backup", "list", "--json").json()["backups"] == []
    assert [backup.stem for backup in words.backups] == [done["backup"]]
    events = words.run("db", "history", "--json").json()
    assert [(event["event"], event["backup"]) for event in events][-1] == (
        "reindexed",
        done["backup"],
    )


def test_an_index_that_cannot_be_built_anew_leaves_the_database_as_it_was(place: Place) -> None:
    place.folder.add("words", "CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT UNIQUE)")
    place.folder.add(
        "filled",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
        " INSERT INTO words SELECT i, printf('word-%04d', i) FROM n",
    )
    place.migrate()
    damage_index(place.database)
    place.write("INSERT INTO words (word) VALUES ('word-0777')")
    before = place.content()
    refused = place.run("db", "repair", "--reindex")
    assert refused.code == 6, refused
    assert "UNIQUE constraint failed: words.word" in refused.stderr
    assert place.content() == before


def test_a_database_above_the_limit_is_only_checked_quickly_and_that_is_said(words: Place) -> None:
    words.folder.add("more", "ALTER TABLE words ADD COLUMN more TEXT")
    done = words.run(
        "--log-format", "json", "db", "migrate", env={"LMG_GUARD__FULL_CHECK_LIMIT_BYTES": "4096"}
    )
    assert done.code == 0, done
    (event,) = [e for e in done.events() if e["event"] == "guard.not_checked_in_full"]
    assert event["limit_bytes"] == 4096
    assert event["bytes"] > 4096
