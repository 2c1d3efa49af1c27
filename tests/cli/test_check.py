"""`db check`, by the command line on real files."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.cli.schemas import DESCRIBED, SERVERS, Validate, generate, schema
from tests.harness import Place


def test_check_finds_what_is_wrong_with_a_folder(place: Place, validate_json: Validate) -> None:
    generate(place, SERVERS)
    generate(place, DESCRIBED)
    fine = place.run("db", "check", "--json")
    validate_json("db-check", fine.json())
    assert (fine.code, fine.json()["warnings"]) == (0, [])
    down = place.folder.path / "0001_add_mcp_servers_description.down.sql"
    down.write_text("ALTER TABLE mcp_servers DROP COLUMN name;")
    snapshot = place.folder.path / "meta" / "0001_snapshot.json"
    snapshot.write_text(snapshot.read_text().replace('"description"', '"describing"'))
    found = place.run("db", "check", "--json")
    validate_json("db-check", found.json())
    assert found.code == 3
    assert [problem["code"] for problem in found.json()["warnings"]] == ["snapshot", "down"]
    assert "db check --write-snapshots" in found.json()["warnings"][0]["hint"]
    mended = place.run("db", "check", "--write-snapshots", "--json")
    assert "snapshot of 0001_add_mcp_servers_description was written again" in mended.stderr
    assert [problem["code"] for problem in mended.json()["warnings"]] == ["down"]


def test_check_tells_one_cause_once_and_says_what_is_pending(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    for columns in ("a TEXT", "a TEXT,\n  b TEXT"):
        generate(place, SERVERS.replace("NOT NULL\n)", f"NOT NULL,\n  {columns}\n)"))
    for snapshot in (place.folder.path / "meta").glob("*_snapshot.json"):
        snapshot.write_text(snapshot.read_text().replace('"notNull": true', '"notNull": false'))
    found = place.run("db", "check")
    assert found.stdout.count("is not what the migrations make") == 1
    assert "2 migrations pending: 0001" in found.stdout
    assert "are fine" not in found.stdout
    before = {tag["id"]: tag["prevId"] for tag in snapshots(place)}
    assert place.run("db", "check", "--write-snapshots").stdout.count("snapshot") == 0
    assert {tag["id"]: tag["prevId"] for tag in snapshots(place)} == before


def snapshots(place: Place) -> list[dict[str, str]]:
    files = sorted((place.folder.path / "meta").glob("*_snapshot.json"))
    return [json.loads(file.read_text()) for file in files]


def test_check_warns_of_names_that_sqlite_would_read_as_text(place: Place) -> None:
    place.folder.add("a", 'CREATE TABLE a(x);\nUPDATE a\n SET x = "y";')
    done = place.run("db", "check", "--json")
    assert done.code == 3, "pending"
    (warning,) = done.json()["warnings"]
    assert (warning["code"], warning["tag"]) == ("double_quoted_string", "0000_a")
    assert warning["message"].startswith(
        '0000_a.sql, line 3, statement 2: "y" is not a column here'
    )
    place.folder.write(
        "0000_a", '-- guard: accept double_quoted_strings\nCREATE TABLE a(x); UPDATE a SET x = "y";'
    )
    assert place.run("db", "check", "--json").json()["warnings"] == []


def test_check_finds_what_can_no_longer_run(place: Place, validate_json: Validate) -> None:
    place.folder.add("a", "CREATE TABLE a(x); CREATE VIEW v AS SELECT x FROM a;")
    place.migrate()
    assert place.run("db", "check", "--json").code == 0
    place.write("DROP TABLE a")
    found = place.run("db", "check", "--json")
    validate_json("db-check", found.json())
    assert found.code == 8
    (problem,) = found.json()["problems"]
    assert problem["code"] == "cannot_run"
    assert problem["message"] == "The view v cannot be read: no such table: main.a."


@pytest.mark.parametrize("module", ["fts5 (body, content=notes)", "fts4 (content=notes, body)"])
def test_check_finds_a_full_text_table_that_is_out_of_step(
    place: Place, validate_json: Validate, module: str
) -> None:
    place.folder.add(
        "a",
        f"CREATE TABLE notes(id INTEGER PRIMARY KEY, body); CREATE VIRTUAL TABLE words USING {module};"
        "CREATE VIRTUAL TABLE own USING fts5 (a); CREATE VIRTUAL TABLE none USING fts5 (a, content='');",
    )
    place.migrate()
    place.write("INSERT INTO notes VALUES (1, 'apple'), (2, 'pear')")
    place.write("INSERT INTO words (words) VALUES ('rebuild')")
    place.write("INSERT INTO own VALUES ('x')")
    place.write("INSERT INTO none VALUES ('y')")
    assert place.run("db", "check").code == 0
    place.write("UPDATE notes SET body = 'plum' WHERE id = 2")
    before = place.database.read_bytes()
    found = place.run("db", "check", "--json")
    validate_json("db-check", found.json())
    assert found.code == 3
    (warning,) = found.json()["warnings"]
    assert warning["code"] == "out_of_step"
    assert warning["message"] == (
        "The full-text table words does not have the words of its rows, so a search finds other rows."
    )
    assert place.database.read_bytes() == before
    (place.root / "gateway.toml").write_text("[guard]\nfull_check_limit_bytes = 1024\n")
    large = place.run("--config", "gateway.toml", "db", "check")
    assert large.code == 0
    assert large.stdout == (
        "The full-text tables words, own and none were not compared with the rows.\n"
        "→ That is done in databases of up to 1024 bytes: `[guard] full_check_limit_bytes`.\n"
        "Folder and database are fine otherwise.\n"
    )
    assert found.json()["not_compared"] == []
    said = place.run("--config", "gateway.toml", "db", "check", "--json").json()
    validate_json("db-check", said)
    assert said["not_compared"] == ["words", "own", "none"]


def test_check_warns_of_a_folder_that_makes_what_cannot_run(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x REFERENCES b(y)); CREATE TABLE b(y);")
    found = place.run("db", "check", "--json").json()
    assert [warning["code"] for warning in found["warnings"]] == ["cannot_run"]
    place.folder.write(
        "0000_a",
        "-- guard: accept cannot_run a\nCREATE TABLE a(x REFERENCES b(y)); CREATE TABLE b(y);",
    )
    assert place.run("db", "check", "--json").json()["warnings"] == []


def test_check_names_two_branches_with_the_same_number(place: Place) -> None:
    generate(place, SERVERS)
    entries = place.folder.journal()
    for name in ("0001_one", "0001_two"):
        place.folder.write(name, f"CREATE TABLE {name[5:]}(a);")
        entries.append(
            {**entries[0], "idx": len(entries), "tag": name, "when": entries[-1]["when"] + 1}
        )
    place.folder.write_journal(entries)
    found = place.run("db", "check", "--json")
    assert found.code == 8  # something is pending, and it could be either
    assert "duplicate" in [problem["code"] for problem in found.json()["problems"]]
    place.write("CREATE TABLE __drizzle_migrations(id INTEGER PRIMARY KEY, hash text, created_at)")
    for entry in entries:  # as Drizzle applies them, in the order of their times
        text = (place.folder.path / f"{entry['tag']}.sql").read_text()
        place.write(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = f"(hash, created_at) VALUES ('{digest}', {entry['when']})"
        place.write(f"INSERT INTO __drizzle_migrations {row}")
    fine = place.run("db", "check", "--write-snapshots")
    assert (fine.code, fine.stdout) == (0, "Folder and database are fine.\n")
    assert fine.stderr == "The snapshot of 0001_two was written again from the migrations.\n"
    assert place.run("db", "renumber", "--json").json() == {"moved": []}


def test_check_names_drift_and_damage(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    place.write("CREATE TABLE mine(x)")
    assert place.run("db", "check").code == 3
    assert "table mine should not be there" in place.run("db", "check").stdout
    size = place.database.stat().st_size
    with place.database.open("r+b") as file:
        file.seek(size - 4096)
        file.write(b"\x55" * 4096)
    assert place.run("db", "check").code == 6


def test_if_not_exists_over_an_older_table_is_told_before_and_found_after(place: Place) -> None:
    place.write("CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    tag = place.folder.add(
        "notes", "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, body TEXT)"
    )
    said = (
        "notes is there already, and IF NOT EXISTS leaves it as it is: column notes.body is missing:"
        " text."
    )
    (pending,) = place.run("db", "status", "--json").json()["pending"]
    assert pending["hazards"] == [{"kind": "keeps_existing", "object": "notes", "message": said}]
    assert said in place.run("db", "migrate", "--dry-run").stdout
    done = place.run("db", "migrate")
    assert done.code == 0
    assert said in done.stderr
    assert place.run("db", "status", "--json").json()["applied"][0]["tag"] == tag
    found = place.run("db", "check")
    assert (found.code, "column notes.body is missing" in found.stdout) == (3, True)
    place.folder.add("more", "CREATE TABLE more (x)")
    refused = place.run("db", "migrate")
    assert (refused.code, "column notes.body is missing" in refused.stderr) == (8, True)


@pytest.mark.parametrize(
    ("again", "lacks"),
    [
        ("TABLE IF NOT EXISTS main.Notes (id INTEGER PRIMARY KEY, body TEXT, kind TEXT)", True),
        ("TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, body TEXT NOT NULL)", True),
        ('table if  not exists "notes" (id integer primary key)', False),
        ("INDEX IF NOT EXISTS by_body ON notes (id, body)", True),
        ("INDEX IF NOT EXISTS by_body ON notes (body);", False),
        ("TABLE IF NOT EXISTS others (id INTEGER PRIMARY KEY)", False),
        ("TEMP TABLE IF NOT EXISTS notes (x)", False),
    ],
)
def test_check_says_what_if_not_exists_does_not_create(
    place: Place, again: str, *, lacks: bool
) -> None:
    place.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY);")
    place.folder.add(
        "body", "ALTER TABLE notes ADD COLUMN body TEXT; CREATE INDEX by_body ON notes (body);"
    )
    place.folder.add("again", f"CREATE {again}")
    place.run("db", "migrate", "--to", "0001_body")
    kinds = [hazard["kind"] for hazard in place.run("db", "check", "--json").json()["hazards"]]
    assert ("keeps_existing" in kinds) is lacks


def test_check_weighs_what_is_pending_on_the_rows_that_are_there(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    place.write("INSERT INTO mcp_servers VALUES ('1', 'one')")
    generate(place, SERVERS.replace("name TEXT NOT NULL", "name TEXT NOT NULL UNIQUE"))
    found = place.run("db", "check")
    assert found.code == 3
    assert "Pending: The table mcp_servers is rebuilt: 1 row," in found.stdout
    assert "becomes unique" in found.stdout


def test_check_shows_every_hazard_where_there_is_no_database(place: Place) -> None:
    generate(place, SERVERS)
    generate(place, SERVERS.replace("name TEXT NOT NULL", "name TEXT NOT NULL UNIQUE"))
    found = place.run("db", "check")
    assert found.code == 0
    assert "0001_change_mcp_servers: mcp_servers(name) becomes unique" in found.stdout


def test_the_functions_of_the_application_are_there_for_every_replay(place: Place) -> None:
    config = place.root / "gateway.toml"
    config.write_text('[migrations.functions]\nlast_part = "posixpath:basename"\n')
    place.folder.add("a", "CREATE TABLE t(a TEXT); INSERT INTO t VALUES (last_part('x/y'));")
    options = ("--config", str(config), "db")
    wanted = schema(place, "CREATE TABLE t(a TEXT, b TEXT);")
    assert place.run(*options, "generate", "--schema", wanted).code == 0
    assert place.run(*options, "check").code == 0
    assert place.run(*options, "diff", "--from", "migrations", "--to", wanted).code == 0
    assert place.run("db", "check").code == 8  # without them


@pytest.mark.parametrize(
    ("line", "said"),
    [('drops_indx = "warn"', "'drops_indx' is unknown"), ('rebuild = "no"', "'no' is unknown")],
)
def test_an_unknown_severity_of_a_hazard_is_named(place: Place, line: str, said: str) -> None:
    place.folder.add("a", "CREATE TABLE t(a);")
    (place.root / "gateway.toml").write_text(f"[guard.hazards]\n{line}\n")
    done = place.run("--config", "gateway.toml", "db", "migrate")
    assert (done.code, said in done.stderr) == (7, True), done


def test_the_programs_own_folder_has_nothing_to_mend(place: Place) -> None:
    found = place.run("--database", place.database, "db", "check", "--json", bare=True)
    assert (found.code, found.json()["problems"], found.json()["warnings"]) == (0, [], [])
