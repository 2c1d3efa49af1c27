"""`db adopt` and `db repair`: every correction is shown, confirmed and recorded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.harness import Place

Validate = Callable[[str, Any], None]
LEDGER = 'CREATE TABLE "__drizzle_migrations" (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)'


def codes(place: Place) -> list[str]:
    return [problem["code"] for problem in place.run("db", "status", "--json").json()["problems"]]


def as_drizzle_left_it(place: Place) -> None:
    """A database with the folder applied and Drizzle's ledger, no history of ours."""
    connection = sqlite3.connect(place.database)
    connection.execute(LEDGER)
    for entry in place.folder.journal():
        connection.executescript((place.folder.path / f"{entry['tag']}.sql").read_text())
        connection.execute(
            "INSERT INTO __drizzle_migrations (hash, created_at) VALUES (?, ?)",
            (place.folder.hash_of(entry["tag"]), entry["when"]),
        )
    connection.commit()
    connection.close()


def test_a_drizzle_database_is_current_without_any_word(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    as_drizzle_left_it(place)
    before = place.content()
    assert place.run("db", "status", "--json").json()["state"] == "current"
    assert place.run("db", "migrate").code == 0
    assert place.content() == before


CHECKED_OUT = "CREATE TABLE a(\n  x CHECK (\n x > 0),\n y DEFAULT (1 +\n 1));\n"
FIRES = "CREATE TRIGGER t AFTER INSERT ON a BEGIN -- once\n  UPDATE a SET y = 2;\nEND;\n"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("by", ["us", "drizzle"])
def test_files_that_git_checked_out_with_other_line_ends_are_what_was_applied(
    place: Place, validate_json: Validate, by: str, mark: bytes
) -> None:
    tag = place.folder.add("a", CHECKED_OUT, FIRES)
    applied = place.folder.hash_of(tag)
    if by == "us":
        assert place.migrate().code == 0
    else:
        as_drizzle_left_it(place)
    file = place.folder.path / f"{tag}.sql"
    file.write_bytes(mark + file.read_bytes().replace(b"\n", b"\r\n"))
    status = place.run("db", "status", "--json")
    validate_json("db-status", status.json())
    (entry,) = status.json()["applied"]
    assert (status.code, entry["hash"], entry["line_ends_differ"]) == (0, applied, True)
    shown = place.run("db", "status").stdout
    assert f"note     {tag}: only line ends or a byte order mark differ" in shown
    before = place.content()
    assert place.run("db", "migrate").code == 0
    assert place.content() == before
    assert place.run("db", "check").code == 0
    assert place.run("db", "repair", "--accept-edited", tag, "--yes").code == 2

    place.folder.add("b", "CREATE TABLE b(x);")
    assert place.run("db", "migrate").code == 0
    assert place.query("SELECT hash FROM __drizzle_migrations")[0] == (applied,)
    place.write("CREATE TABLE by_hand(x)")
    drift = place.run("db", "status", "--json").json()["drift"]
    assert [(found["kind"], found["object"]) for found in drift] == [("table", "by_hand")]


def test_a_backup_of_what_had_other_line_ends_is_of_this_folder(place: Place) -> None:
    tag = place.folder.add("a", CHECKED_OUT)
    as_drizzle_left_it(place)  # without a history, its hash alone names it
    assert place.run("db", "backup", "create").code == 0
    file = place.folder.path / f"{tag}.sql"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    (backup,) = place.run("db", "backup", "list", "--json").json()["backups"]
    assert place.run("db", "restore", backup["name"], "--yes").code == 0


def test_files_edited_long_ago_are_refused_and_then_trusted(place: Place) -> None:
    tag = place.folder.add("a", "CREATE TABLE a(x);")
    as_drizzle_left_it(place)
    place.folder.write(tag, "CREATE TABLE a(x); -- tidied up")
    refused = place.run("db", "migrate")
    assert refused.code == 8
    assert "db adopt --trust-files" in refused.stderr
    assert place.run("db", "adopt", "--trust-files").code == 2  # nobody confirmed
    assert place.run("db", "adopt", "--trust-files", "--yes", "--json").json()["trusted"] == [tag]
    assert place.run("db", "migrate").code == 0
    assert place.query("SELECT event, previous_hash IS NOT NULL FROM __guard_history") == [
        ("trusted", 1)
    ]


def test_a_database_without_a_ledger_is_adopted_where_its_schema_is(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    place.folder.add("b", "CREATE TABLE b(x);")
    place.folder.add("c", "CREATE TABLE c(x);")
    connection = sqlite3.connect(place.database)
    connection.executescript(
        "CREATE TABLE b(x); CREATE TABLE a(x); CREATE TABLE schema_migrations(version);"
    )
    connection.close()
    done = place.run("db", "adopt", "--yes", "--json")
    assert done.json()["adopted"] == ["0000_a", "0001_b"]
    assert place.run("db", "migrate").code == 0
    assert place.query("SELECT event FROM __guard_history") == [
        ("adopted",),
        ("adopted",),
        ("applied",),
    ]
    again = place.run("db", "adopt", "--yes")
    assert again.code == 2
    assert "has a ledger already" in again.stderr


def test_a_schema_that_no_point_gives_is_refused_with_the_difference(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    connection = sqlite3.connect(place.database)
    connection.executescript("CREATE TABLE a(x, extra);")
    connection.close()
    refused = place.run("db", "adopt", "--yes")
    assert refused.code == 8
    assert "extra" in refused.stderr
    assert place.query("SELECT count(*) FROM sqlite_schema") == [(1,)]


def test_a_dbmate_folder_and_its_database_are_taken_over_in_one_go(place: Place) -> None:
    folder = place.root / "dbmate"
    folder.mkdir()
    (folder / "20240101000000_a.sql").write_text(
        "-- migrate:up\nCREATE TABLE a(x);\n-- migrate:down\nDROP TABLE a;\n"
    )
    connection = sqlite3.connect(place.database)
    connection.executescript(
        "CREATE TABLE a(x); CREATE TABLE schema_migrations(version);"
        "INSERT INTO schema_migrations VALUES ('20240101000000');"
    )
    connection.close()
    (folder / "20240102000000_rows.sql").write_text("-- migrate:up\nINSERT INTO a VALUES (1);\n")
    there = ("--migrations", str(folder), "db")
    done = place.run(*there, "adopt", "--format", "auto", "--yes", "--json").json()
    assert done == {
        "journaled": ["20240101000000_a", "20240102000000_rows"],
        "left_out": [],
        "adopted": ["20240101000000_a"],
        "trusted": [],
        "taken_over": None,
    }
    status = place.run(*there, "status", "--json").json()
    assert [entry["tag"] for entry in status["pending"]] == ["20240102000000_rows"]
    assert place.run(*there, "migrate").code == 0
    assert place.query("SELECT x FROM a") == [(1,)]
    assert place.run(*there, "check").code == 0


def test_a_person_says_where_a_database_stands_if_nothing_else_does(place: Place) -> None:
    tags = [place.folder.add("a", "CREATE TABLE a(x);")]
    tags.append(place.folder.add("b", "INSERT INTO a VALUES (1);"))
    place.write("CREATE TABLE a(x)")
    refused = place.run("db", "adopt", "--yes")
    assert refused.code == 2
    assert "Whether 0001_b ran cannot be seen" in refused.stderr
    done = place.run("db", "adopt", "--to", tags[0], "--yes", "--json")
    assert done.json()["adopted"] == tags[:1]


def test_flyways_undo_is_the_way_back_and_never_runs_as_a_step(place: Place) -> None:
    folder = place.folder.path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "V1__c.sql").write_text("CREATE TABLE c(x);\nINSERT INTO c VALUES (1);\n")
    (folder / "U1__c.sql").write_text("DROP TABLE c;\n")
    (folder / "U9__z.sql").write_text("DROP TABLE z;\n")
    assert place.run("db", "migrate").code == 8
    adopted = place.run("db", "adopt", "--format", "auto")
    assert adopted.stdout.splitlines()[:2] == ["journaled  V1__c", "left out  U9__z.sql"]
    assert place.run("db", "migrate").code == 0
    assert place.query("SELECT x FROM c") == [(1,)]
    assert place.run("db", "down", "--steps", "1", "--yes").code == 0
    assert place.query("SELECT count(*) FROM sqlite_schema WHERE name = 'c'") == [(0,)]


def test_an_accepted_edit_shows_the_difference_and_is_recorded(place: Place) -> None:
    tag = place.folder.add("a", "CREATE TABLE a(x);")
    assert place.migrate().code == 0
    place.folder.write(tag, "CREATE TABLE a(x);\n-- a comment\n")
    assert codes(place) == ["edited"]
    asked = place.run("db", "repair", "--accept-edited", tag)
    assert asked.code == 2
    assert "+-- a comment" in asked.stderr
    assert codes(place) == ["edited"]
    assert place.run("db", "repair", "--accept-edited", tag, "--yes").code == 0
    assert place.run("db", "status", "--json").json()["state"] == "current"
    assert place.query("SELECT event, tag FROM __guard_history ORDER BY id") == [
        ("applied", tag),
        ("edit_accepted", tag),
    ]
    assert place.run("db", "repair", "--accept-edited", tag, "--yes").code == 2


def by_hand(place: Place) -> tuple[str, str, str, str]:
    """Apply one migration; do two more by hand, the second of which writes rows too; a fourth waits."""
    tags = [place.folder.add("a", "CREATE TABLE a(x);")]
    assert place.migrate().code == 0
    tags.append(place.folder.add("b", "ALTER TABLE a ADD COLUMN y TEXT;", down="DROP TABLE b;"))
    tags.append(place.folder.add("c", "CREATE TABLE c(x);\nINSERT INTO c VALUES (1);"))
    tags.append(place.folder.add("d", "CREATE TABLE d(x);"))
    place.write("alter table a add column y text")
    place.write("CREATE TABLE c(x)")
    one, two, three, four = tags
    return one, two, three, four


def test_what_was_applied_by_hand_is_marked_as_applied(
    place: Place, validate_json: Validate
) -> None:
    one, two, three, four = by_hand(place)
    before = place.content()
    asked = place.run("db", "repair", "--mark-applied", three)
    assert asked.code == 2  # nobody confirmed
    assert f"{two} and {three} will be marked as applied." in asked.stderr
    assert f"{three} does more than change the schema" in asked.stderr
    assert f"{two} does more" not in asked.stderr
    assert place.content() == before

    marked = place.run("db", "repair", "--mark-applied", three, "--yes", "--json")
    validate_json("db-repair", marked.json())
    assert marked.json() == {
        "tag": three,
        "previous_hash": None,
        "hash": place.folder.hash_of(three),
        "marked": [two, three],
        "backup": None,
    }
    assert place.query("SELECT event, tag FROM __guard_history ORDER BY id") == [
        ("applied", one),
        ("marked_applied", two),
        ("marked_applied", three),
    ]
    status = place.run("db", "status", "--json").json()
    assert [entry["tag"] for entry in status["applied"]] == [one, two, three]
    assert (status["drift"], [entry["tag"] for entry in status["pending"]]) == ([], [four])
    assert place.run("db", "migrate").code == 0
    assert place.query("SELECT count(*) FROM c") == [(0,)]  # nothing of it ran


def test_what_was_applied_by_hand_is_named_with_the_command_that_marks_it(place: Place) -> None:
    _, _, three, _ = by_hand(place)
    hint = f"→ The schema is what the migrations up to {three} make: mark them as applied with"
    hint = f"{hint} `db repair --mark-applied {three}`."
    refused = place.run("db", "migrate")
    assert (refused.code, hint in refused.stderr) == (8, True)
    refused = place.run("db", "adopt", "--yes")
    assert (refused.code, hint in refused.stderr) == (2, True)
    assert hint in place.run("db", "status").stdout
    assert hint in place.run("db", "check").stdout
    failed = place.run("db", "migrate", env={"LMG_GUARD__DRIFT": "warn"})
    assert "duplicate column name: y" in failed.stderr
    assert f"{hint} The database is unchanged." in failed.stderr
    assert place.run("db", "check", "--json").json()["applied_by_hand"] == three

    place.write("CREATE TABLE more(x)")  # now no point of the folder makes the schema
    assert "write the change as a migration" in place.run("db", "migrate").stderr
    assert place.run("db", "status", "--json").json()["applied_by_hand"] is None


def test_only_what_the_schema_shows_can_be_marked_as_applied(place: Place) -> None:
    one, two, three, four = by_hand(place)
    before = place.content()
    for tag, said in [(two, "table c"), (four, "table d")]:
        refused = place.run("db", "repair", "--mark-applied", tag, "--yes")
        assert refused.code == 8
        assert f"is not what the migrations up to {tag} make: {said}" in refused.stderr
    for tag, said in [(one, "is applied already"), ("0009_x", "There is no migration `0009_x`")]:
        refused = place.run("db", "repair", "--mark-applied", tag, "--yes")
        assert refused.code == 2
        assert said in refused.stderr
    place.folder.write(one, "CREATE TABLE a(z);")
    refused = place.run("db", "repair", "--mark-applied", three, "--yes")
    assert (refused.code, "was edited after it was applied" in refused.stderr) == (8, True)
    assert place.content() == before


def test_a_database_without_a_ledger_is_marked_up_to_where_it_is(place: Place) -> None:
    one = place.folder.add("a", "CREATE TABLE a(x);")
    two = place.folder.add("b", "CREATE TABLE b(x);")
    place.write("CREATE TABLE a(x)")
    place.write("CREATE TABLE schema_migrations(version)")
    assert place.run("db", "repair", "--mark-applied", one, "--yes").stdout == f"marked  {one}\n"
    assert place.migrate().code == 0
    assert [row for (row,) in place.query("SELECT tag FROM __guard_history")] == [one, two]


def test_a_repair_is_of_one_kind(place: Place) -> None:
    tag = place.folder.add("a", "CREATE TABLE a(x);")
    place.migrate()
    both = ("--accept-edited", tag, "--mark-applied", tag)
    for options in ((), both, ("--reindex", "--mark-applied", tag)):
        refused = place.run("db", "repair", *options, "--yes")
        assert refused.code == 2
        assert "one of --accept-edited TAG, --mark-applied TAG and --reindex" in refused.stderr


def test_two_branches_with_one_number_are_renumbered(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    place.folder.add("mine", "CREATE TABLE mine(x);", down="DROP TABLE mine;")
    assert place.migrate().code == 0
    entries = place.folder.journal()
    place.folder.write("0001_theirs", "CREATE TABLE theirs(x);")
    place.folder.write("0001_theirs.down", "DROP TABLE theirs;")
    entries.append({**entries[1], "tag": "0001_theirs", "when": entries[1]["when"] - 1})
    place.folder.write_journal(entries)
    assert set(codes(place)) == {"duplicate", "out_of_order"}
    done = place.run("db", "renumber", "--json").json()
    assert done == {"moved": [{"from": "0001_theirs", "to": "0002_theirs"}]}
    assert not (place.folder.path / "0001_theirs.sql").exists()
    assert (place.folder.path / "0002_theirs.down.sql").read_text() == "DROP TABLE theirs;"
    assert place.migrate().code == 0
    assert place.query("SELECT count(*) FROM theirs") == [(0,)]
    journal = json.loads(place.folder.journal_file.read_text())
    assert [entry["idx"] for entry in journal["entries"]] == [0, 1, 2]


def test_renumbering_without_a_database_moves_the_later_one(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    entries = place.folder.journal()
    place.folder.write("0000_b", "CREATE TABLE b(x);")
    place.folder.write_journal(
        [*entries, {**entries[0], "tag": "0000_b", "when": entries[0]["when"] + 1}]
    )
    assert place.run("db", "renumber", "--json").json() == {
        "moved": [{"from": "0000_b", "to": "0001_b"}]
    }
    assert place.folder.journal()[1]["when"] == entries[0]["when"] + 1  # it was right
    assert place.migrate().code == 0


def test_down_asks_first_and_takes_back(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);", down="DROP TABLE a;")
    assert place.migrate().code == 0
    asked = place.run("db", "down")
    assert asked.code == 2
    assert "0000_a will be reverted" in asked.stderr
    done = place.run("db", "down", "--yes", "--json")
    assert [entry["tag"] for entry in done.json()["reverted"]] == ["0000_a"]
    assert place.run("db", "status", "--json").json()["state"] == "pending"
    assert place.run("db", "down", "--to", "x", "--steps", "1").code == 2


@pytest.mark.parametrize(
    "made",
    [
        (
            "CREATE TABLE schema_migrations (version uint64, dirty bool);"
            "CREATE UNIQUE INDEX version_unique ON schema_migrations (version);"
        ),
        "CREATE TABLE Migrations (id INTEGER PRIMARY KEY, migration VARCHAR, batch INTEGER);",
        'CREATE TABLE "SequelizeMeta" (name TEXT PRIMARY KEY);',
    ],
    ids=["golang-migrate", "laravel", "sequelize"],
)
def test_the_ledger_of_another_tool_is_no_difference(place: Place, made: str) -> None:
    tag = place.folder.add("a", "CREATE TABLE a(x);")
    with closing(sqlite3.connect(place.database)) as connection:
        connection.executescript("CREATE TABLE a(x);" + made)
    done = place.run("db", "adopt", "--yes", "--json")
    assert done.code == 0, done.stderr
    assert done.json()["adopted"] == [tag]


def test_a_folder_that_was_taken_over_is_told_when_its_database_is_not(place: Place) -> None:
    place.folder.journal_file.unlink()
    (place.folder.path / "0000_a.up.sql").write_text("CREATE TABLE a(x);")
    with closing(sqlite3.connect(place.database)) as connection:
        connection.execute("CREATE TABLE other(x)")
    done = place.run("db", "adopt", "--format", "updown", "--yes")
    assert done.code == 8
    assert "The folder itself is taken over" in done.stderr


def test_a_file_is_journaled_while_a_gateway_serves(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        shipped.folder.write("0104_tags", "CREATE TABLE tags (id INTEGER PRIMARY KEY);")
        refused = shipped.run("reload")
        assert refused.code == 8
        assert "db adopt --format journal" in refused.stderr
        assert shipped.run("db", "adopt", "--format", "journal").stdout == "journaled  0104_tags\n"
        assert shipped.run("reload").code == 0
    assert shipped.query("SELECT count(*) FROM tags") == [(0,)]
