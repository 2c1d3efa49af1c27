"""`db generate`, `diff`, `check` and `drop`, by the command line on real files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import DEADLINE_S, Finished, Place, clean_environment
from tests.needs import open_terminal

SERVERS = "CREATE TABLE mcp_servers (\n  id TEXT PRIMARY KEY NOT NULL,\n  name TEXT NOT NULL\n);\n"
DESCRIBED = SERVERS.replace("NOT NULL\n)", "NOT NULL,\n  description TEXT\n)")
Validate = Callable[[str, Any], None]


def schema(place: Place, sql: str) -> Path:
    file = place.root / "schema.sql"
    file.write_text(sql)
    return file


def generate(place: Place, sql: str, *options: str) -> Finished:
    return place.run("db", "generate", "--schema", schema(place, sql), *options)


def files(place: Place) -> dict[str, str]:
    folder = place.folder.path
    return {
        str(f.relative_to(folder)): f.read_text() for f in sorted(folder.rglob("*")) if f.is_file()
    }


# --- generate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "name", "sql"),
    [
        (
            DESCRIBED,
            "add_mcp_servers_description",
            "ALTER TABLE mcp_servers ADD COLUMN description TEXT;\n",
        ),
        (
            SERVERS + "CREATE TABLE tags (\n  name TEXT PRIMARY KEY NOT NULL\n);",
            "create_tags",
            "CREATE TABLE tags (\n  name TEXT PRIMARY KEY NOT NULL\n);\n",
        ),
        (
            SERVERS + "CREATE INDEX mcp_servers_name ON mcp_servers(name);",
            "add_mcp_servers_name",
            "CREATE INDEX mcp_servers_name ON mcp_servers(name);\n",
        ),
    ],
)
def test_the_three_examples_of_the_manual_come_out_as_there(
    place: Place, changed: str, name: str, sql: str
) -> None:
    assert generate(place, SERVERS).code == 0
    assert generate(place, changed).code == 0
    assert (place.folder.path / f"0001_{name}.sql").read_text() == sql
    assert place.run("db", "migrate").code == 0
    assert place.run("db", "check").code == 0


def test_it_writes_migration_way_back_snapshot_and_journal(
    place: Place, validate_json: Validate
) -> None:
    generate(place, SERVERS)
    made = generate(place, DESCRIBED, "--json")
    validate_json("db-generate", made.json())
    assert made.json()["tag"] == "0001_add_mcp_servers_description"
    assert list(files(place)) == [
        "0000_initial.down.sql",
        "0000_initial.sql",
        "0001_add_mcp_servers_description.down.sql",
        "0001_add_mcp_servers_description.sql",
        "meta/0000_snapshot.json",
        "meta/0001_snapshot.json",
        "meta/_journal.json",
    ]
    first, second = (json.loads(files(place)[f"meta/000{n}_snapshot.json"]) for n in (0, 1))
    assert second["prevId"] == first["id"]
    assert [entry["idx"] for entry in place.folder.journal()] == [0, 1]


def test_nothing_changed_writes_nothing(place: Place) -> None:
    generate(place, SERVERS)
    before = files(place)
    again = generate(
        place, "create table `mcp_servers`(ID text not null primary key, name TEXT not null)"
    )
    assert (again.code, files(place)) == (0, before)
    assert "Nothing to do" in again.stdout


def test_check_says_what_is_missing_and_writes_nothing(
    place: Place, validate_json: Validate
) -> None:
    generate(place, SERVERS)
    before = files(place)
    assert generate(place, SERVERS, "--check").code == 0
    missing = generate(place, DESCRIBED, "--check", "--json")
    validate_json("db-generate", missing.json())
    assert (missing.code, files(place)) == (3, before)
    assert missing.json() == {"missing": ["column mcp_servers.description is missing: text"]}


def test_the_programs_own_folder_is_up_to_date_with_its_schema(place: Place) -> None:
    assert place.run("db", "generate", "--check", bare=True).code == 0


def test_a_way_back_leads_back_with_the_rows(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    place.write("INSERT INTO mcp_servers VALUES ('1', 'one')")
    before = place.query("SELECT * FROM mcp_servers")
    generate(
        place, DESCRIBED.replace("name TEXT NOT NULL", "name TEXT NOT NULL CHECK (name <> '')")
    )
    place.migrate()
    assert place.run("db", "down", "--steps", "1", "--yes").code == 0
    assert place.query("SELECT * FROM mcp_servers") == before


def test_a_rename_is_never_guessed(place: Place) -> None:
    generate(place, SERVERS)
    before = files(place)
    renamed = SERVERS.replace("name", "title")
    asked = generate(place, renamed)
    assert (asked.code, files(place)) == (2, before)
    assert "mcp_servers.name=mcp_servers.title" in asked.stderr
    assert generate(place, renamed, "--rename", "mcp_servers.name=mcp_servers.title").code == 0
    assert (
        files(place)["0001_rename_mcp_servers_name_to_title.sql"]
        == "ALTER TABLE mcp_servers RENAME COLUMN name TO title;\n"
    )


def test_without_renames_a_candidate_is_a_drop_and_an_add_and_has_to_be_agreed_to(
    place: Place,
) -> None:
    generate(place, SERVERS)
    before = files(place)
    renamed = SERVERS.replace("name TEXT NOT NULL", "title TEXT")
    refused = generate(place, renamed, "--no-renames")
    assert (refused.code, files(place)) == (2, before)
    assert "mcp_servers.name is dropped with every value in it" in refused.stderr
    assert generate(place, renamed, "--no-renames", "--yes", "--name", "Drop it!").code == 0
    assert files(place)["0001_drop_it.sql"].startswith("-- guard: accept deletes_data\nALTER TABLE")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("1\n", "ALTER TABLE mcp_servers RENAME COLUMN name TO title;\n"),
        (
            "0\ny\n",
            (
                "-- guard: accept deletes_data\n"
                "ALTER TABLE mcp_servers ADD COLUMN title TEXT NOT NULL;--> statement-breakpoint\n"
                "ALTER TABLE mcp_servers DROP COLUMN name;\n"
            ),
        ),
    ],
)
def test_on_a_terminal_it_asks_what_became_of_a_column(
    place: Place, answers: str, expected: str
) -> None:
    generate(place, SERVERS)
    file = schema(place, SERVERS.replace("name", "title"))
    primary, secondary = open_terminal()
    os.write(primary, answers.encode())
    done = subprocess.run(
        [*place.command, *place.options, "db", "generate", "--schema", str(file), "--name", "x"],
        stdin=secondary,
        capture_output=True,
        text=True,
        env=clean_environment(place.home),
        cwd=place.root,
        timeout=DEADLINE_S,
        check=False,
    )
    os.close(primary)
    os.close(secondary)
    assert done.returncode == 0, done.stderr
    assert "Was it renamed or dropped?" in done.stderr
    assert files(place)["0001_x.sql"] == expected


def test_a_required_column_is_filled_where_a_value_is_given(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    place.write("INSERT INTO mcp_servers VALUES ('1', 'one')")
    owned = SERVERS.replace("NOT NULL\n)", "NOT NULL,\n  owner TEXT NOT NULL\n)")
    assert generate(place, owned, "--fill", "mcp_servers.owner='me'").code == 0
    place.migrate()
    assert place.query("SELECT * FROM mcp_servers") == [("1", "one", "me")]


def test_a_rebuild_says_what_it_costs_on_the_database_at_hand(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    place.write(
        "INSERT INTO mcp_servers WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) "
        "SELECT i, hex(zeroblob(500)) FROM n"
    )
    checked = generate(place, SERVERS.replace("name TEXT NOT NULL", "name TEXT NOT NULL UNIQUE"))
    assert (
        "2,000 rows, about 2.0 MB, less than a second and as much disk space again"
        in checked.stderr
    )


def test_an_empty_migration_is_there_to_be_written_by_hand(place: Place) -> None:
    generate(place, SERVERS)
    assert place.run("db", "generate", "--empty", "--name", "fill in").code == 0
    assert "0001_fill_in.sql" in files(place)
    assert place.run("db", "migrate").code == 0


def test_a_damaged_snapshot_is_written_again_from_the_replay_and_said_so(place: Place) -> None:
    generate(place, SERVERS)
    (place.folder.path / "meta" / "0000_snapshot.json").write_text("{")
    mended = generate(place, DESCRIBED)
    assert mended.code == 0
    assert "snapshot of 0000_initial was written again" in mended.stderr
    assert place.run("db", "check").code == 0


@pytest.mark.parametrize(
    ("rename", "why"),
    [
        ("mcp_servers.nope=mcp_servers.name", "no column nope in mcp_servers before"),
        ("mcp_servers.name=mcp_servers.nope", "no column nope in mcp_servers after"),
        ("nope=other", "no table nope"),
        ("nonsense", "must look like"),
        ("mcp_servers=mcp_servers", "the two names are the same"),
    ],
)
def test_a_rename_of_what_does_not_exist_is_refused(place: Place, rename: str, why: str) -> None:
    generate(place, SERVERS)
    refused = generate(place, DESCRIBED, "--rename", rename)
    assert refused.code == 2
    assert why in refused.stderr


# --- bad schemas --------------------------------------------------------------------------------

BAD_MODULES = {
    "an import that fails": (
        "import nonsense_that_is_not_there\n",
        "bad.py, line 1: ModuleNotFoundError",
    ),
    "a name that is not defined": (
        "x = 1\ny = z\n",
        "bad.py, line 2: NameError: name 'z' is not defined: y = z",
    ),
    "a syntax error": ("x = 1\ndef\n", "bad.py, line 2: "),
    "no metadata": ("x = 1\n", "no SQLAlchemy MetaData"),
    "a table twice": (
        (
            "from sqlalchemy import *\nm = MetaData()\nTable('t', m, Column('a', Text))\n"
            "Table('t', m, Column('a', Text))\n"
        ),
        "bad.py, line 4: InvalidRequestError: Table 't' is already defined",
    ),
    "a table twice in two metadata": (
        (
            "from sqlalchemy import *\nm, n = MetaData(), MetaData()\nTable('t', m, Column('a', Text))\n"
            "Table('T', n, Column('a', Text))\n"
        ),
        "the table t twice",
    ),
    "an expression that SQLite refuses": (
        "from sqlalchemy import *\nm = MetaData()\nTable('t', m, Column('a', Text), CheckConstraint('a >> >'))\n",
        "SQLite says near",
    ),
}


@pytest.mark.parametrize("case", BAD_MODULES)
def test_a_bad_schema_module_is_told_by_its_authors_own_line(place: Place, case: str) -> None:
    text, said = BAD_MODULES[case]
    (place.root / "bad.py").write_text(text)
    refused = place.run("db", "generate", "--schema", "bad.py")
    assert refused.code == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_bad_sql_file_is_told_with_its_line(place: Place) -> None:
    refused = generate(place, SERVERS + "\n-- a comment;\nCREATE TABLE mcp_servers(x);\n")
    assert refused.code == 2
    assert "schema.sql, line 7: table mcp_servers already exists" in refused.stderr


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("ATTACH 'other.db' AS o;\nCREATE TABLE o.t(a);", "line 1: a schema has no other files"),
        ("CREATE TABLE t(a);\nVACUUM INTO 'other.db';", "line 2: a schema has no other files"),
        ("CREATE TEMP TABLE t(a);", "nothing temporary"),
        ("CREATE TABLE t(a CHECK (nope(a)));", "no such function: nope"),
    ],
)
def test_a_sql_file_that_is_more_than_a_schema_is_refused(
    place: Place, sql: str, said: str
) -> None:
    refused = generate(place, sql)
    assert refused.code == 2
    assert said in refused.stderr
    assert not (place.root / "other.db").exists()
    assert place.folder.journal() == []


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("CREATE VIEW v AS SELECT b FROM t;", "The view v cannot be read: no such column: b."),
        (
            "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO gone VALUES (1); END;",
            "The trigger tr cannot run, so every INSERT into t would fail: no such table: main.gone.",
        ),
        (
            "CREATE TRIGGER tr AFTER UPDATE OF a ON t BEGIN UPDATE t SET b = 1; END;",
            "The trigger tr cannot run, so every UPDATE of t would fail: no such column: b.",
        ),
        (
            (
                "CREATE VIEW v AS SELECT a FROM t;"
                "CREATE TRIGGER tr INSTEAD OF DELETE ON v BEGIN DELETE FROM t WHERE b = old.a; END;"
            ),
            "The trigger tr cannot run, so every DELETE from v would fail: no such column: b.",
        ),
    ],
)
def test_a_view_or_trigger_that_can_never_run_is_refused(place: Place, sql: str, said: str) -> None:
    refused = generate(place, "CREATE TABLE t(a INTEGER PRIMARY KEY, g AS (a + 1));" + sql)
    assert refused.code == 2
    assert said in refused.stderr
    assert place.folder.journal() == []


def test_a_view_that_calls_a_function_of_the_application_is_no_mistake(place: Place) -> None:
    made = generate(place, "CREATE TABLE t(a TEXT);CREATE VIEW v AS SELECT last_part(a) FROM t;")
    assert made.code == 0, made.stderr


def test_an_empty_folder_is_no_schema(place: Place) -> None:
    generate(place, SERVERS)
    (place.root / "nothing").mkdir()
    refused = place.run("db", "generate", "--schema", "nothing", "--yes")
    assert refused.code == 2
    assert "There is no .sql file in nothing." in refused.stderr


def test_a_folder_with_a_file_that_no_journal_lists_is_not_added_to(place: Place) -> None:
    generate(place, SERVERS)
    place.folder.write("0001_mine", "CREATE TABLE x(a);")
    before = files(place)
    refused = generate(place, DESCRIBED)
    assert (refused.code, files(place)) == (8, before)


# --- drop ---------------------------------------------------------------------------------------


def test_drop_takes_the_newest_back_and_generate_makes_it_again(
    place: Place, validate_json: Validate
) -> None:
    generate(place, SERVERS)
    before = files(place)
    generate(place, DESCRIBED)
    dropped = place.run("db", "drop", "--yes", "--json")
    validate_json("db-drop", dropped.json())
    assert (dropped.code, files(place)) == (0, before)
    assert generate(place, DESCRIBED).code == 0


def test_drop_is_refused_once_the_database_has_applied_it(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    assert place.run("db", "drop", "--yes").code == 8
    place.write("UPDATE __drizzle_migrations SET created_at = 1")
    newest = place.folder.path / f"{place.folder.journal()[-1]['tag']}.sql"
    newest.write_bytes(newest.read_bytes().replace(b"\n", b"\r\n"))
    before = files(place)
    assert place.run("db", "drop", "--yes").code == 8
    assert place.run("db", "drop", "0007_other", "--yes").code == 2
    assert files(place) == before


# --- diff ---------------------------------------------------------------------------------------


def test_diff_says_what_was_changed_by_hand_and_the_sql_back(
    place: Place, validate_json: Validate
) -> None:
    generate(place, SERVERS)
    place.migrate()
    assert place.run("db", "diff").code == 0
    place.write("ALTER TABLE mcp_servers ADD COLUMN mine TEXT")
    differs = place.run("db", "diff")
    assert differs.code == 3
    assert differs.stdout == "ALTER TABLE mcp_servers DROP COLUMN mine;\n"
    as_json = place.run("db", "diff", "--json").json()
    validate_json("db-diff", as_json)
    assert as_json["differences"] == [
        {"kind": "column", "object": "mcp_servers.mine", "expected": None, "found": "text"}
    ]
    table = place.run("db", "diff", "--format", "table").stdout
    assert "mcp_servers.mine" in table


def test_the_ledger_of_another_tool_is_never_a_difference(place: Place) -> None:
    generate(place, SERVERS)
    place.migrate()
    place.write("CREATE TABLE alembic_version(version_num VARCHAR(32) NOT NULL)")
    place.write("CREATE TABLE _cf_METADATA(key INTEGER PRIMARY KEY, value BLOB)")
    place.write("ANALYZE")
    assert place.run("db", "diff").stdout == ""
    assert place.run("db", "check").code == 0
    assert place.run("db", "status", "--json").json()["drift"] == []
    with_it = SERVERS + "CREATE TABLE alembic_version(version_num);"
    assert generate(place, with_it, "--check").code == 0
    generate(place, DESCRIBED)
    assert place.migrate().code == 0


def test_diff_reads_every_kind_of_source(place: Place) -> None:
    generate(place, SERVERS)
    generate(place, DESCRIBED)
    place.migrate()
    (place.root / "module.py").write_text(
        "from sqlalchemy import *\nmetadata = MetaData()\n"
        "Table('mcp_servers', metadata, Column('id', Text, primary_key=True),"
        " Column('name', Text, nullable=False), Column('description', Text))\n"
    )
    folder = place.folder.path
    described = [
        str(schema(place, DESCRIBED)),
        str(place.database),
        str(folder),
        f"{folder}@0001_add_mcp_servers_description",
        str(folder / "meta" / "0001_snapshot.json"),
        "module.py",
        "migrations",
        "database",
    ]
    for source in described:
        assert place.run("db", "diff", "--from", source, "--to", described[0]).code == 0, source
    older = place.run("db", "diff", "--from", f"{folder}@0000_initial", "--to", described[0])
    assert older.stdout == "ALTER TABLE mcp_servers ADD COLUMN description TEXT;\n"
    assert older.code == 3


def test_diff_with_a_snapshot_compares_what_a_snapshot_can_say(place: Place) -> None:
    generate(
        place,
        "CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, b INT) STRICT, WITHOUT ROWID;"
        "CREATE TRIGGER tr AFTER DELETE ON t BEGIN DELETE FROM t; END;"
        "CREATE VIRTUAL TABLE f USING fts5(a);",
    )
    place.migrate()
    snapshot = str(place.folder.path / "meta" / "0000_snapshot.json")
    assert place.run("db", "diff", "--from", snapshot, "--to", "database").code == 0
    assert place.run("db", "diff", "--from", "database", "--to", snapshot).code == 0
    place.write("ALTER TABLE t ADD COLUMN c TEXT")
    differs = place.run("db", "diff", "--from", snapshot, "--to", "database")
    assert (differs.code, differs.stdout) == (3, "ALTER TABLE t ADD COLUMN c TEXT;\n")


@pytest.mark.parametrize(
    "source", ["nothing.db", "nothing.sql", "no_such_module", "README.txt", "migrations@nope"]
)
def test_a_source_that_is_nothing_is_said_plainly(place: Place, source: str) -> None:
    (place.root / "README.txt").write_text("hello")
    refused = place.run("db", "diff", "--from", source)
    assert refused.code == 2
    assert "→" in refused.stderr


# --- check --------------------------------------------------------------------------------------


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
    fine = place.run("db", "check", "--json")
    assert (fine.code, fine.json()["problems"]) == (3, [])
    assert "collision" in [warning["code"] for warning in fine.json()["warnings"]]
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


def test_a_schema_may_use_functions_and_collations_of_the_application(place: Place) -> None:
    (place.root / "app.py").write_text(
        "import re\n\ndef regexp(pattern, text):\n    return re.search(pattern, text) is not None\n\n"
        "def german(a, b):\n    return (a > b) - (a < b)\n"
    )
    config = place.root / "gateway.toml"
    config.write_text(
        '[migrations.functions]\nregexp = "app:regexp"\n[migrations.collations]\ngerman = "app:german"\n'
    )
    options = ("--config", str(config), "db")
    first = "CREATE TABLE t(a TEXT CHECK(a REGEXP '^a'), b TEXT COLLATE german);"
    second = (
        f"{first[:-2]}, c TEXT COLLATE german UNIQUE); CREATE INDEX t_b ON t(b COLLATE german);"
    )
    rewritten = second.replace("^a", "^[ab]")  # a rebuild, with the check in it
    for wanted in (first, second, rewritten):
        source = schema(place, wanted)
        for command in (
            ("generate", "--schema", source),
            ("migrate", "--dry-run"),
            ("migrate",),
            ("status",),
            ("check",),
            ("diff",),
            ("diff", "--to", source),
        ):
            done = place.run(*options, *command, env={"PYTHONPATH": str(place.root)})
            assert done.code == (3 if "--dry-run" in command else 0), (wanted, command, done.stderr)


def test_a_word_means_a_folder_of_that_name_where_there_is_one(place: Place) -> None:
    for name in ("schema", "database"):
        folder = place.root / name
        folder.mkdir()
        (folder / "all.sql").write_text(f"CREATE TABLE of_{name}(a);")
    made = place.run("db", "generate", "--schema", "schema")
    assert "CREATE TABLE of_schema" in made.stdout
    differs = place.run("db", "diff", "--from", "database", "--to", "schema").stdout
    assert "CREATE TABLE of_schema" in differs
    assert "DROP TABLE of_database" in differs
    assert "of_database" not in place.run("db", "diff").stdout  # the default is ours


@pytest.mark.parametrize(
    ("line", "said"),
    [('drops_indx = "warn"', "'drops_indx' is unknown"), ('rebuild = "no"', "'no' is unknown")],
)
def test_an_unknown_severity_of_a_hazard_is_named(place: Place, line: str, said: str) -> None:
    place.folder.add("a", "CREATE TABLE t(a);")
    (place.root / "gateway.toml").write_text(f"[guard.hazards]\n{line}\n")
    done = place.run("--config", "gateway.toml", "db", "migrate")
    assert (done.code, said in done.stderr) == (7, True), done


def test_an_extension_that_cannot_be_loaded_is_named(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE t(a);")
    config = place.root / "gateway.toml"
    config.write_text('[migrations]\nextensions = ["./nowhere"]\n')
    done = place.run("--config", str(config), "db", "migrate")
    assert done.code == 7
    assert "migrations.extensions" in done.stderr


def test_the_programs_own_folder_has_nothing_to_mend(place: Place) -> None:
    found = place.run("--database", place.database, "db", "check", "--json", bare=True)
    assert (found.code, found.json()["problems"], found.json()["warnings"]) == (0, [], [])
