from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.database.lock import DatabaseLock
from tests.harness import Place

NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)"


@pytest.fixture
def kept(place: Place) -> Place:
    """A place with two migrations applied, a row, and the backup from before the second."""
    place.folder.add("notes", NOTES)
    place.migrate()
    place.write("INSERT INTO notes VALUES (1, 'kept')")
    place.folder.add("pinned", "ALTER TABLE notes ADD COLUMN pinned INTEGER")
    place.migrate()
    return place


def backups(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.run("db", "backup", "list", "--json").json()["backups"]
    return found


def damage(place: Place, table: str) -> None:
    """Overwrite the first page of a table."""
    ((page,),) = place.query(f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'")
    content = bytearray(place.database.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    place.database.write_bytes(content)


def data_files(place: Place) -> set[str]:
    """Name the files beside the database, without those of a WAL that a reading test left."""
    found = {path.name for path in place.database.parent.iterdir() if path.is_file()}
    return {name for name in found if not name.endswith(("-wal", "-shm"))}


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")


# --- backup --------------------------------------------------------------------------------------


def test_a_migration_leaves_a_backup_that_is_listed_with_what_it_was_made_for(kept: Place) -> None:
    (backup,) = backups(kept)
    assert backup["before"] == "0001_pinned"
    assert backup["applied"] == ["0000_notes"]
    table = kept.run("db", "backup", "list")
    assert backup["name"] in table.stdout


def test_create_makes_a_backup_that_verify_reads_back(kept: Place) -> None:
    made = kept.run("db", "backup", "create", "--json").json()
    assert made["before"] is None
    assert made["applied"] == ["0000_notes", "0001_pinned"]
    assert Path(made["path"]).stat().st_mode & 0o777 == 0o600
    results = kept.run("db", "backup", "verify", "--json")
    assert results.code == 0
    assert [result["ok"] for result in results.json()] == [True, True]


def test_create_works_while_another_program_is_writing(kept: Place) -> None:
    with closing(sqlite3.connect(kept.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM notes")
        made = kept.run("db", "backup", "create", "--json").json()
        other.execute("ROLLBACK")
    with closing(sqlite3.connect(made["path"])) as copy:
        assert copy.execute("SELECT count(*) FROM notes").fetchone() == (1,)


def test_create_leaves_nothing_beside_the_database(kept: Place) -> None:
    assert kept.run("db", "backup", "create").code == 0
    found = {path.name for path in kept.database.parent.iterdir() if path.is_file()}
    assert found == {"gateway.db", "gateway.db.lock"}


def test_create_without_a_database_says_where_there_is_none(place: Place) -> None:
    done = place.run("db", "backup", "create", "--json")
    assert done.code == 7
    assert str(place.database) in done.json()["error"]["message"]


def test_list_names_what_cannot_be_used_and_still_exits_0(kept: Place) -> None:
    (backup,) = backups(kept)
    Path(backup["path"]).with_suffix(".json").write_text('{"applica')
    done = kept.run("db", "backup", "list", "--json")
    assert done.code == 0
    assert done.json()["backups"] == []
    (unusable,) = done.json()["unusable"]
    assert "not valid JSON" in unusable["reason"]


@pytest.mark.parametrize("harm", ["cut off", "edited"])
def test_verify_names_a_harmed_backup_and_exits_6(kept: Place, harm: str) -> None:
    (backup,) = backups(kept)
    with Path(backup["path"]).open("rb+") as file:
        if harm == "cut off":
            file.truncate(backup["bytes"] - 100)
        else:
            file.seek(backup["bytes"] - 100)
            file.write(b"edited")
    done = kept.run("db", "backup", "verify", "--json")
    assert done.code == 6
    (result,) = done.json()
    assert result["ok"] is False
    assert "Traceback" not in done.stderr


def test_verify_of_an_unknown_name_is_a_usage_error(kept: Place) -> None:
    done = kept.run("db", "backup", "verify", "yesterday")
    assert done.code == 2
    assert "There is no backup 'yesterday'" in done.stderr


def test_prune_asks_first_and_keeps_the_one_from_before_the_newest_migration(kept: Place) -> None:
    (before,) = backups(kept)
    for _ in range(3):
        assert kept.run("db", "backup", "create").code == 0
    options = ("db", "backup", "prune", "--keep-last", "1", "--keep-daily-days", "0")
    assert kept.run(*options).code == 2
    assert len(backups(kept)) == 4
    assert len(kept.run(*options, "--dry-run", "--json").json()["would_remove"]) == 2
    assert kept.run(*options, "--yes").code == 0
    assert [b["name"] for b in backups(kept)][-1] == before["name"]
    assert len(backups(kept)) == 2


@pytest.mark.root
@needs_root
def test_prune_keeps_the_last_good_backup_when_the_newer_ones_were_damaged(kept: Place) -> None:
    made = [kept.run("db", "backup", "create", "--json").json() for _ in range(3)]
    for later in made[1:]:
        file = Path(later["path"])
        file.write_bytes(file.read_bytes()[:-10] + b"x" * 10)
    limits = ("--keep-last", "1", "--keep-daily-days", "0")
    assert kept.run("db", "backup", "prune", *limits, "--yes").code == 0
    left = [backup["name"] for backup in backups(kept)]
    assert made[0]["name"] in left
    assert made[1]["name"] not in left
    assert kept.run("db", "restore", made[0]["name"], "--yes").code == 0


def test_a_backup_folder_on_a_full_disk_exits_9_and_says_how_much_is_missing(
    kept: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "full"
    with small_disk(folder, "16k"):
        env = {"LMG_BACKUP__FOLDER": str(folder)}
        done = kept.run("db", "backup", "create", env=env)
        assert done.code == 9
        assert "are missing" in done.stderr
        kept.folder.add("more", "ALTER TABLE notes ADD COLUMN more TEXT")
        before = kept.content()
        assert kept.run("db", "migrate", env=env).code == 9
        assert kept.content() == before
        assert list(folder.iterdir()) == []


@pytest.mark.root
@needs_root
def test_a_backup_folder_on_a_read_only_disk_exits_9(kept: Place, tmp_path: Path) -> None:
    folder = tmp_path / "readonly"
    with small_disk(folder, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        done = kept.run("db", "backup", "create", env={"LMG_BACKUP__FOLDER": str(folder)})
        assert done.code == 9
        assert "Read-only file system" in done.stderr


def test_every_json_output_is_what_the_docs_promise(
    kept: Place, tmp_path: Path, validate_json: Callable[[str, Any], None]
) -> None:
    seed = tmp_path / "seed.sql"
    seed.write_text("INSERT INTO notes (text) VALUES ('seeded')")
    kept.folder.add("more", "ALTER TABLE notes ADD COLUMN more TEXT")
    for schema, *arguments in (
        ("db-backup-create", "db", "backup", "create"),
        ("db-backup-list", "db", "backup", "list"),
        ("db-backup-verify", "db", "backup", "verify"),
        ("db-backup-prune", "db", "backup", "prune", "--yes"),
        ("db-rehearse", "db", "rehearse"),
        ("db-restore", "db", "restore", "--yes"),
        ("db-seed", "db", "seed", str(seed)),
        ("db-reset", "db", "reset", "--yes"),
    ):
        done = kept.run(*arguments, "--json")
        assert done.code == 0, done.stderr
        validate_json(schema, done.json())


# --- restore -------------------------------------------------------------------------------------


def test_restore_brings_the_rows_back_keeps_the_old_file_and_records_it(kept: Place) -> None:
    kept.write("DELETE FROM notes")
    (backup,) = backups(kept)
    done = kept.run("db", "restore", "latest", "--yes", "--json")
    assert done.code == 0
    assert kept.query("SELECT id, text FROM notes") == [(1, "kept")]
    replaced = Path(done.json()["replaced"])
    with closing(sqlite3.connect(replaced)) as old:
        assert old.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert kept.query("SELECT event, backup FROM __guard_history ORDER BY id DESC LIMIT 1") == [
        ("restored", backup["name"])
    ]


def test_restore_says_what_would_be_lost_and_wants_the_name_typed(kept: Place) -> None:
    kept.write("INSERT INTO notes VALUES (2, 'new', 1), (3, 'newer', 1)")
    kept.write("DELETE FROM notes WHERE id = 1")
    before = kept.content()
    done = kept.run("db", "restore", stdin="no\n")
    assert done.code == 2
    assert "Migration 0001_pinned was applied since" in done.stderr
    assert "Table notes: 2 rows gone, 1 deleted row back." in done.stderr
    assert kept.content() == before
    assert kept.run("db", "restore", stdin="gateway.db\n").code == 0
    assert kept.query("SELECT count(*) FROM notes") == [(1,)]


def test_a_restored_database_is_migrated_again_by_the_next_start(kept: Place) -> None:
    assert kept.run("db", "restore", "--yes").code == 0
    assert kept.run("db", "status", "--json").json()["state"] == "pending"
    kept.migrate()
    assert kept.run("db", "status", "--json").json()["state"] == "current"


@pytest.mark.parametrize("harm", ["cut off", "edited", "other application", "newer format"])
def test_a_backup_that_cannot_be_trusted_is_refused_and_nothing_is_touched(
    kept: Place, harm: str
) -> None:
    (backup,) = backups(kept)
    file = Path(backup["path"])
    manifest = file.with_suffix(".json")
    values = json.loads(manifest.read_text())
    match harm:
        case "cut off":
            file.write_bytes(file.read_bytes()[:-4096])
        case "edited":
            file.write_bytes(file.read_bytes()[:-10] + b"x" * 10)
        case "other application":
            manifest.write_text(json.dumps({**values, "application": "somebody"}))
        case _:
            manifest.write_text(json.dumps({**values, "format": 99}))
    before = kept.content()
    done = kept.run("db", "restore", backup["name"], "--yes")
    assert done.code == (6 if harm == "edited" else 8)
    assert len(done.stderr.strip().splitlines()) <= 5
    assert kept.content() == before
    assert not [name for name in data_files(kept) if "replaced" in name]


def test_a_backup_of_a_newer_version_is_refused(kept: Place) -> None:
    made = kept.run("db", "backup", "create", "--json").json()
    (kept.folder.path / "0001_pinned.sql").unlink()
    kept.folder.write_journal(kept.folder.journal()[:1])
    done = kept.run("db", "restore", made["name"], "--yes")
    assert done.code == 8
    assert "0001_pinned" in done.stderr
    assert "newer version" in done.stderr


def test_restore_while_the_lock_is_held_exits_4_before_it_asks_anything(kept: Place) -> None:
    before = kept.content()
    with DatabaseLock(kept.database):
        done = kept.run("db", "restore", "latest")
    assert done.code == 4
    assert str(os.getpid()) in done.stderr
    assert "Type" not in done.stderr
    assert kept.content() == before


def test_while_a_gateway_serves_backups_are_made_and_everything_that_replaces_is_refused(
    shipped: Place,
) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        assert shipped.run("db", "backup", "create").code == 0
        for command in (("restore", "latest", "--yes"), ("reset", "--yes"), ("seed",)):
            done = shipped.run("db", *command)
            assert done.code == 4, command
            assert str(gateway.process.pid) in done.stderr
        assert gateway.stop() == 0
    assert shipped.run("db", "restore", "latest", "--yes").code == 0


def test_restore_while_another_program_has_the_database_open_exits_4(kept: Place) -> None:
    with closing(sqlite3.connect(kept.database, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("INSERT INTO notes VALUES (7, 'of another program', 0)")
        done = kept.run("db", "restore", "latest", "--yes")
        assert done.code == 4
        assert "Another program has" in done.stderr
        assert other.execute("SELECT count(*) FROM notes").fetchone() == (2,)


def test_a_damaged_database_is_refused_with_the_command_that_restores_it(kept: Place) -> None:
    (backup,) = backups(kept)
    content = bytearray(kept.database.read_bytes())
    content[4096:4200] = b"\xff" * 104
    kept.database.write_bytes(content)
    refused = kept.run("db", "migrate")
    assert refused.code == 6
    said = refused.stderr.split("`")[1]
    assert said.endswith(f"db restore {backup['name']}")
    assert kept.run(*shlex.split(said)[1:], "--yes", bare=True).code == 0
    assert kept.query("SELECT id, text FROM notes") == [(1, "kept")]


@pytest.mark.parametrize("table", ["notes", "__drizzle_migrations", "__guard_history"])
def test_whichever_page_is_damaged_a_restore_says_so_and_succeeds(kept: Place, table: str) -> None:
    damage(kept, table)
    done = kept.run("db", "restore", "latest", "--yes")
    assert done.code == 0, done.stderr
    assert f"What was written since is not known: {kept.database} is damaged" in done.stderr
    assert kept.run("db", "migrate").code == 0
    assert kept.query("SELECT id, text FROM notes") == [(1, "kept")]


@pytest.mark.parametrize("table", ["__drizzle_migrations", "__guard_history"])
def test_a_ledger_that_cannot_be_read_is_damage_to_every_command(kept: Place, table: str) -> None:
    damage(kept, table)
    status = kept.run("db", "status", "--json")
    assert (status.code, status.json()["state"]) == (6, "damaged")
    for command in (
        ("migrate", "--dry-run"),
        ("backup", "create"),
        ("down", "--steps", "1", "--yes"),
    ):
        done = kept.run("db", *command)
        assert (done.code, "is damaged" in done.stderr + done.stdout) == (6, True), command
    assert kept.run("doctor").code == 3
    assert kept.run("db", "reset", "--yes").code == 0
    assert kept.query("SELECT count(*) FROM notes") == [(0,)]


def test_restore_without_any_backup_says_so(place: Place) -> None:
    place.folder.add("notes", NOTES)
    place.migrate()
    done = place.run("db", "restore", "--yes", "--json")
    assert done.code == 2
    assert done.json()["error"]["code"] == "no_such_backup"


# --- reset and seed ------------------------------------------------------------------------------


def test_reset_leaves_a_fresh_database_and_a_backup_of_the_old_one(kept: Place) -> None:
    done = kept.run("db", "reset", "--yes", "--json")
    assert done.code == 0
    assert done.json()["applied"] == ["0000_notes", "0001_pinned"]
    assert kept.query("SELECT count(*) FROM notes") == [(0,)]
    assert kept.run("db", "restore", done.json()["backup"], "--yes").code == 0
    assert kept.query("SELECT text FROM notes") == [("kept",)]


def test_reset_wants_the_name_typed(kept: Place) -> None:
    assert kept.run("db", "reset").code == 2
    assert kept.query("SELECT count(*) FROM notes") == [(1,)]
    assert kept.run("db", "reset", stdin="gateway.db\n").code == 0
    assert kept.query("SELECT count(*) FROM notes") == [(0,)]


def test_reset_with_a_broken_migration_leaves_the_old_database(kept: Place) -> None:
    kept.folder.add("broken", "CREATE TABLE fine (a);\nCREATE TABL broken (a);")
    before = kept.content()
    done = kept.run("db", "reset", "--yes")
    assert done.code == 5
    assert kept.content() == before
    assert data_files(kept) == {"gateway.db", "gateway.db.lock"}


def test_reset_while_the_lock_is_held_exits_4(kept: Place) -> None:
    with DatabaseLock(kept.database):
        assert kept.run("db", "reset", "--yes").code == 4
    assert kept.query("SELECT count(*) FROM notes") == [(1,)]


def test_reset_of_a_damaged_database_keeps_its_file(kept: Place) -> None:
    kept.database.write_bytes(b"this is no database at all" * 300)
    done = kept.run("db", "reset", "--yes", "--json")
    assert done.code == 0
    assert done.json()["backup"] is None
    assert Path(done.json()["replaced"]).read_bytes().startswith(b"this is no database")
    assert kept.query("SELECT count(*) FROM notes") == [(0,)]


def test_the_demo_seed_can_be_run_again_and_changes_nothing(shipped: Place) -> None:
    assert shipped.run("db", "reset", "--seed", "--yes").code == 0
    servers = shipped.query("SELECT * FROM mcp_servers ORDER BY name")
    assert len(servers) == 2
    assert shipped.run("db", "seed").code == 0
    assert shipped.query("SELECT * FROM mcp_servers ORDER BY name") == servers
    assert shipped.query("SELECT count(*) FROM profile_mcp_servers") == [(2,)]


def test_seeds_of_sql_and_python_are_one_transaction(kept: Place, tmp_path: Path) -> None:
    first = tmp_path / "first.sql"
    first.write_text("INSERT INTO notes (id, text) VALUES (10, 'from; sql');")
    second = tmp_path / "second.py"
    second.write_text(
        "def seed(connection):\n    connection.execute('INSERT INTO gone VALUES (1)')\n"
    )
    done = kept.run("db", "seed", first, second)
    assert done.code == 5
    assert "no such table: gone" in done.stderr
    assert kept.query("SELECT count(*) FROM notes") == [(1,)]
    second.write_text(
        "def seed(connection):\n    connection.execute(\"INSERT INTO notes VALUES (11, 'py', 1)\")\n"
    )
    assert kept.run("db", "seed", first, second).code == 0
    assert kept.query("SELECT id FROM notes ORDER BY id") == [(1,), (10,), (11,)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("INSERT INTO notes VALUES (2, 'a', 1);\nCOMMIT;", "line 2"),
        (
            "INSERT INTO notes VALUES (2, 'a', 1);\n\nINSERT INTO notes VALUES (3, NULL, 1);",
            "line 3",
        ),
        ("SELEC 1;", "syntax error"),
    ],
)
def test_a_seed_that_fails_names_the_line_and_leaves_the_database(
    kept: Place, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "bad.sql"
    file.write_text(text)
    before = kept.content()
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert said in done.stderr
    assert kept.content() == before


def test_a_seed_that_ends_the_program_is_a_failed_seed(kept: Place, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        "def seed(connection):\n"
        "    connection.execute(\"INSERT INTO notes VALUES (9, 'half', 1)\")\n"
        "    raise SystemExit(0)\n"
    )
    before = kept.content()
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert f"{file} ended the program" in done.stderr
    assert kept.content() == before


INSERT = "connection.execute(\"INSERT INTO notes VALUES (9, 'half', 1)\")"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["with connection:", f"    {INSERT}"], "all seeds are one transaction"),
        (["connection.executescript('SELECT 1')"], "all seeds are one transaction"),
        ([INSERT, "connection.close()"], "closed the connection"),
        (["connection.execute('DELETE FROM __drizzle_migrations')"], "is not for seeds"),
    ],
)
def test_what_a_seed_in_python_may_not_do_is_said_in_words(
    kept: Place, tmp_path: Path, lines: list[str], said: str
) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def seed(connection):\n" + "".join(f"    {line}\n" for line in lines))
    before = kept.content()
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert said in done.stderr
    assert kept.content() == before


def test_a_seed_may_not_write_what_the_guard_keeps(kept: Place, tmp_path: Path) -> None:
    file = tmp_path / "bad.sql"
    file.write_text("SELECT 1;\nDELETE FROM __guard_history;")
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert f"{file}, line 2: what the guard keeps" in done.stderr


def test_a_seed_that_breaks_a_deferred_foreign_key_is_a_failed_seed(
    kept: Place, tmp_path: Path
) -> None:
    kept.folder.add(
        "child",
        "CREATE TABLE child (of INTEGER REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)",
    )
    assert kept.migrate().code == 0
    file = tmp_path / "bad.sql"
    file.write_text("INSERT INTO child VALUES (99);")
    done = kept.run("db", "seed", file)
    assert done.code == 5
    assert "refer to rows which are not there" in done.stderr
    assert kept.query("SELECT count(*) FROM child") == [(0,)]


@pytest.mark.parametrize("command", ["seed", "restore"])
def test_a_table_made_by_hand_stays_drift_after(kept: Place, tmp_path: Path, command: str) -> None:
    kept.write("CREATE TABLE by_hand (x)")
    file = tmp_path / "good.sql"
    file.write_text("INSERT INTO notes VALUES (7, 'good', 1);")
    assert kept.run("db", "backup", "create").code == 0
    done = kept.run("db", *(["seed", file] if command == "seed" else ["restore", "--yes"]))
    assert done.code == 0, done.stderr
    status = kept.run("db", "status", "--json")
    assert [drift["object"] for drift in status.json()["drift"]] == ["by_hand"]


@pytest.mark.parametrize("command", ["restore", "reset"])
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_the_file_that_comes_back_has_the_owner_and_the_mode_of_the_old_one(
    kept: Place, command: str
) -> None:
    assert kept.run("db", "backup", "create").code == 0
    os.chown(kept.database, 65534, 1)
    kept.database.chmod(0o660)
    assert kept.run("db", command, "--yes").code == 0
    found = kept.database.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 1, 0o660)


def test_a_seed_that_is_not_there_is_a_usage_error(kept: Place) -> None:
    assert kept.run("db", "seed", "nowhere.sql").code == 2
    assert kept.run("db", "seed", kept.folder.journal_file).code == 2


# --- rehearse ------------------------------------------------------------------------------------


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


# --- signals -------------------------------------------------------------------------------------


def test_a_backup_killed_midway_is_swept_by_the_next_start(kept: Place, needs_strace: None) -> None:
    kill = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync",
            "-e", "inject=fsync:signal=KILL:when=1")  # fmt: skip
    done = kept.run("db", "backup", "create", prefix=kill)
    assert done.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    folder = kept.database.parent / "backups"
    assert [path.name for path in folder.glob(".*")] != []
    kept.migrate()
    assert [path.name for path in folder.glob(".*")] == []
    assert len(backups(kept)) == 1


def test_rows_whose_text_is_no_utf_8_are_no_hindrance_for_a_reset(kept: Place) -> None:
    kept.folder.add("odd", "INSERT INTO notes VALUES (5, CAST(x'ff' AS TEXT), 1)")
    assert kept.migrate().code == 0
    done = kept.run("db", "reset", "--yes")
    assert done.code == 0, done.stderr
