"""`db rehearse`, `db down` and `db drop`: tried on a copy, confirmed, and guarded like a migration."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.cli.kept import data_files
from tests.harness import Place


def test_rehearse_reports_rows_and_hazards_and_leaves_the_file_alone(kept: Place) -> None:
    kept.folder.add("more", "INSERT INTO notes (text) VALUES ('more')")
    kept.folder.add("clean", "DELETE FROM notes")
    before = kept.content()
    found = kept.run("db", "rehearse", "--json").json()
    one = {"table": "notes", "rows_before": 1, "rows_after": 2}
    none = {"table": "notes", "rows_before": 2, "rows_after": 0}
    assert [(m["tag"], m["tables"]) for m in found["migrations"]] == [
        ("0002_more", [one]),
        ("0003_clean", [none]),
    ]
    assert found["tables"] == [{"table": "notes", "rows_before": 1, "rows_after": 0}]
    assert [h["kind"] for h in found["hazards"]] == ["deletes_data"]
    assert found["bytes_needed"] > found["bytes_before"]
    assert kept.content() == before
    assert data_files(kept) == {"gateway.db", "gateway.db.lock"}
    assert len(kept.backups) == 1


def test_rehearse_says_in_words_what_becomes_of_each_table(kept: Place) -> None:
    kept.folder.add("swap", "CREATE TABLE tags (id INTEGER PRIMARY KEY)")
    kept.folder.add("more", "INSERT INTO notes (text) VALUES ('more'), ('most')")
    kept.folder.add("gone", "DROP TABLE notes")
    said = kept.run("db", "rehearse").stdout
    assert "tags: new, 0 rows" in said
    assert "notes: 1 → 3 rows" in said
    assert "notes: gone, with 3 rows" in said


def test_rehearse_refuses_the_hazard_that_the_real_run_would_refuse(kept: Place) -> None:
    tag = kept.folder.add("clean", "DELETE FROM notes")
    env = {"LMG_GUARD__DESTRUCTIVE": "refuse"}
    shown = kept.run("db", "rehearse", env=env)
    assert shown.code == kept.run("db", "migrate", env=env).code == 8
    assert f"{tag} is not accepted: Table notes goes from 1 row to 0" in shown.stderr
    assert "notes: 1 → 0 rows" in shown.stdout
    refused = kept.run("db", "rehearse", "--json", env=env)
    assert (refused.code, refused.json()["error"]["code"]) == (8, "hazard")
    kept.folder.write(tag, "-- guard: accept deletes_data\nDELETE FROM notes")
    assert kept.run("db", "rehearse", env=env).code == 0


def test_rehearse_on_a_file_that_is_no_database_says_which(kept: Place, tmp_path: Path) -> None:
    kept.folder.add("more", "INSERT INTO notes (text) VALUES ('more')")
    text = tmp_path / "text.db"
    text.write_text("no database")
    done = kept.run("db", "rehearse", "--on", text)
    assert done.code == 6
    assert done.stderr.startswith(f"{text} is not a SQLite database.")
    assert "restore" not in done.stderr


def test_rehearse_on_a_production_copy_fails_as_the_real_run_would(
    kept: Place, tmp_path: Path
) -> None:
    production = tmp_path / "production.db"
    production.write_bytes(kept.database.read_bytes())
    with closing(sqlite3.connect(production)) as connection:
        connection.execute("INSERT INTO notes VALUES (2, 'kept', 1)")
        connection.commit()
    kept.folder.add("unique", "CREATE UNIQUE INDEX notes_by_text ON notes (text)")
    assert kept.run("db", "rehearse").code == 0
    done = kept.run("db", "rehearse", "--on", production)
    assert done.code == 5
    assert "0002_unique" in done.stderr
    assert list((kept.database.parent / "backups").glob(".*")) == []
