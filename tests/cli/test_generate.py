"""`db generate`, by the command line on real files."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.cli.schemas import DESCRIBED, SERVERS, Validate, files, generate, schema
from tests.cli.test_streams import on_terminal
from tests.harness import DEADLINE_S, Place, clean_environment
from tests.needs import open_terminal


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


def test_a_dry_run_shows_what_would_be_written_and_writes_nothing(
    place: Place, validate_json: Validate
) -> None:
    generate(place, SERVERS)
    before = files(place)
    renamed = SERVERS.replace("name TEXT", "title TEXT")
    shown = generate(place, renamed, "--dry-run", "--json")
    validate_json("db-generate", shown.json())
    assert (shown.code, files(place)) == (3, before)
    assert shown.json()["renames"] == ["mcp_servers.name=mcp_servers.title"]
    assert shown.json()["deletes"]
    decided = generate(
        place, renamed, "--dry-run", "--rename", "mcp_servers.name=mcp_servers.title"
    )
    assert decided.stdout == "ALTER TABLE mcp_servers RENAME COLUMN name TO title;\n"
    nothing = generate(place, SERVERS, "--dry-run", "--json")
    validate_json("db-generate", nothing.json())
    assert (nothing.code, nothing.json()["statements"], files(place)) == (0, [], before)


def test_the_schema_of_the_settings_is_taken_where_none_is_given(place: Place) -> None:
    env = {"LMG_MIGRATIONS__SCHEMA": str(schema(place, SERVERS))}
    assert place.run("db", "generate", env=env).code == 0
    assert place.run("db", "diff", "--from", "migrations", "--to", "schema", env=env).code == 0


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


BEFORE = (
    'CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b TEXT, "odd name" TEXT);\n'
    "CREATE INDEX by_a ON t (a);\n"
    "CREATE TRIGGER t_said AFTER INSERT ON t BEGIN UPDATE t SET b = 'x' WHERE id = new.id; END;\n"
)
HAZARDOUS = {
    "deletes_data": (
        "b TEXT, ",
        "",
        "AFTER INSERT ON t BEGIN UPDATE t SET b",
        "AFTER INSERT ON t BEGIN UPDATE t SET a",
    ),
    "changes_values": ('"odd name" TEXT', "\"odd name\" TEXT NOT NULL DEFAULT ''"),
    "adds_unique": ("a TEXT NOT NULL", "a TEXT NOT NULL UNIQUE"),
    "adds_check": ("a TEXT NOT NULL", "a TEXT NOT NULL CHECK (a <> '')"),
    "narrows_type": ("b TEXT", "b INTEGER"),
    "drops_index": ("CREATE INDEX by_a ON t (a);\n", ""),
    "drops_trigger": (BEFORE.splitlines()[2], ""),
    "rebuild": ("a TEXT NOT NULL", "a TEXT NOT NULL UNIQUE"),
    "changes_primary_key": (
        "id INTEGER PRIMARY KEY, a TEXT NOT NULL",
        "id INTEGER, a TEXT NOT NULL PRIMARY KEY",
    ),
    "breaks_running_version": ("b TEXT, ", "c TEXT, ", "t SET b", "t SET c"),
}


@pytest.mark.parametrize("kind", HAZARDOUS)
def test_what_the_guard_refuses_is_asked_about_and_then_accepted_in_the_file(
    place: Place, validate_json: Validate, kind: str
) -> None:
    generate(place, BEFORE)
    place.migrate()
    place.write("INSERT INTO t (a) VALUES ('one'), ('two')")
    (place.root / "local-mcp-gateway.toml").write_text(f'[guard.hazards]\n{kind} = "refuse"\n')
    config = ("--config", "local-mcp-gateway.toml")
    pairs = iter(HAZARDOUS[kind])
    after = BEFORE
    for old, new in zip(pairs, pairs, strict=True):
        assert old in after
        after = after.replace(old, new)
    renamed = ("--rename", "t.b=t.c") if kind == "breaks_running_version" else ()
    before = files(place)
    shown = generate(place, after, *config, *renamed, "--dry-run", "--json")
    validate_json("db-generate", shown.json())
    assert shown.json()["refused"] == [kind]
    asked = generate(place, after, *config, *renamed)
    assert (asked.code, files(place)) == (2, before)
    assert f"The guard refuses {kind} unless the file accepts it" in asked.stderr
    assert generate(place, after, *config, *renamed, "--yes").code == 0
    done = place.run(*config, "db", "migrate")
    assert done.code == 0, done.stderr
    assert place.query("SELECT count(*) FROM t") == [(2,)]


def test_a_hazard_that_is_ignored_is_not_told_and_not_asked_about(place: Place) -> None:
    generate(place, BEFORE)
    ignored = 'deletes_data = "ignore"\nbreaks_running_version = "ignore"\n'
    (place.root / "local-mcp-gateway.toml").write_text(f"[guard.hazards]\n{ignored}")
    config = ("--config", "local-mcp-gateway.toml")
    done = generate(place, "CREATE TABLE u (x);", *config, "--no-renames")
    assert (done.code, done.stderr) == (0, "")


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


THREE = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);",
    "INSERT INTO users (name) VALUES ('a');",
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, user INTEGER REFERENCES users (id));",
)


def three(place: Place) -> None:
    for name, text in zip("abc", THREE, strict=True):
        place.folder.add(name, text, down="DROP TABLE notes;" if name == "c" else None)
    assert place.run("db", "check", "--write-snapshots").code == 0


def test_a_squash_shows_what_it_would_write_and_then_writes_it(
    place: Place, validate_json: Validate
) -> None:
    three(place)
    before = files(place)
    shown = place.run("db", "squash", "--to", "0001_b", "--dry-run")
    assert (shown.code, files(place)) == (0, before)
    assert "INSERT INTO users (id, name) VALUES\n  (1, 'a');\n" in shown.stdout
    said = place.run("db", "squash", "--to", "0001_b", "--dry-run", "--json").json()
    validate_json("db-squash", said)
    assert (said["written"], said["sql"] in shown.stdout) == (False, True)
    asked = place.run("db", "squash", "--to", "0001_b")
    assert (asked.code, asked.stdout, files(place)) == (
        2,
        shown.stdout.partition("\n\n")[0] + "\n",
        before,
    )
    assert "it was not confirmed" in asked.stderr
    declined = on_terminal(place, "db", "squash", "--to", "0001_b", typed="n\n")
    assert ("Replace 2 migrations by this one? [y/N]" in declined, files(place)) == (True, before)
    done = place.run("db", "squash", "--to", "0001_b", "--yes")
    assert "2 migrations are one now (2 statements). Keep meta/_squashed" in done.stdout
    after = files(place)
    assert after["0001_b.sql"] == said["sql"]
    assert after["meta/_squashed/0001_b.sql"] == before["0001_b.sql"]
    assert sorted(after) == [
        "0001_b.down.sql",
        "0001_b.sql",
        "0002_c.down.sql",
        "0002_c.sql",
        "meta/0001_snapshot.json",
        "meta/0002_snapshot.json",
        "meta/_journal.json",
        "meta/_squashed/0000_a.sql",
        "meta/_squashed/0001_b.sql",
        "meta/_squashed/meta/0000_snapshot.json",
        "meta/_squashed/meta/0001_snapshot.json",
        "meta/_squashed/meta/_journal.json",
    ]
    again = place.run("db", "squash", "--to", "0001_b", "--json").json()
    validate_json("db-squash", again)
    assert (again["tag"], files(place)) == (None, after)


@pytest.mark.nightly
@pytest.mark.parametrize("before", [0, 1, 3])
def test_every_command_is_right_after_a_squash(place: Place, before: int) -> None:
    three(place)
    if before:
        assert place.run("db", "migrate", "--to", f"000{before - 1}_{'abc'[before - 1]}").code == 0
    place.run("db", "backup", "create") if before else None
    assert place.run("db", "squash", "--to", "0001_b", "--yes").code == 0
    assert place.run("db", "migrate").code == 0
    applied = [entry["tag"] for entry in place.run("db", "status", "--json").json()["applied"]]
    assert applied == (["0000_a", "0001_b", "0002_c"] if before else ["0001_b", "0002_c"])
    for command in ("status", "check", "diff", "history", "renumber"):
        done = place.run("db", command)
        assert (done.code, done.stderr) == (0, ""), (command, done.stdout)
    wanted = "".join(THREE[::2]) + "CREATE TABLE more (id INTEGER PRIMARY KEY);"
    assert generate(place, "".join(THREE[::2]), "--check").code == 0
    assert generate(place, wanted, "--name", "more").code == 0
    assert place.run("db", "migrate").code == 0
    assert place.run("db", "check").code == 0
    assert place.run("db", "down", "--to", "0001_b", "--yes").code == 0
    assert place.query("SELECT name FROM users") == [("a",)]
    down = place.run("db", "down", "--yes")
    assert down.code == (8 if before else 0), down.stderr  # 0001_b of old never had a way back
    assert not before or "there is no meta/_squashed/0001_b.down.sql" in down.stderr
    assert place.run("db", "migrate").code == 0
    assert place.run("db", "drop", "--yes").code == 8  # it is applied
    if before:
        assert place.run("db", "restore", "latest", "--yes").code == 0
        assert place.run("db", "migrate").code == 0
        assert place.run("db", "check").code == 0


@pytest.mark.nightly
def test_a_folder_that_is_squashed_while_dev_serves_it_is_served_on(shipped: Place) -> None:
    folder = shipped.folder
    with shipped.serve("--dev") as gateway:
        gateway.wait_ready()
        old = [entry["tag"] for entry in folder.journal()]
        assert shipped.run("db", "squash", "--yes").code == 0
        (folder.path / "9000_more.sql").write_text("CREATE TABLE more (x);")
        gateway.wait_for("migration.hot_applied")
        assert gateway.stop() == 0
    assert [entry["tag"] for entry in folder.journal()] == [old[-1], "9000_more"]
    assert shipped.query("SELECT count(*) FROM __drizzle_migrations") == [(len(old) + 1,)]
