"""`db restore` and `db reset`: what replaces the database, and what is kept of the old one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.database.lock import DatabaseLock
from tests.cli.kept import NOTES, backups, data_files
from tests.harness import Place, new_place
from tests.needs import STRANGER, give_away


def damage(place: Place, table: str) -> None:
    """Overwrite the first page of a table."""
    ((page,),) = place.query(f"SELECT rootpage FROM sqlite_schema WHERE name = '{table}'")
    content = bytearray(place.database.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    place.database.write_bytes(content)


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
@pytest.mark.root
def test_the_file_that_comes_back_has_the_owner_and_the_mode_of_the_old_one(
    kept: Place, command: str
) -> None:
    assert kept.run("db", "backup", "create").code == 0
    give_away(kept.database, group=1)
    kept.database.chmod(0o660)
    assert kept.run("db", command, "--yes").code == 0
    found = kept.database.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (STRANGER, 1, 0o660)


def test_rows_whose_text_is_no_utf_8_are_no_hindrance_for_a_reset(kept: Place) -> None:
    kept.folder.add("odd", "INSERT INTO notes VALUES (5, CAST(x'ff' AS TEXT), 1)")
    assert kept.migrate().code == 0
    done = kept.run("db", "reset", "--yes")
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("with_key", [True, False])
def test_a_backup_and_the_key_are_enough_on_a_new_machine(
    shipped: Place, tmp_path: Path, with_key: bool
) -> None:
    """What docs/disaster.md says, with its commands."""
    shipped.run("server", "add", "clock", "--env", "TOKEN=s3cret", "--", "true")
    assert shipped.run("db", "backup", "create").code == 0
    (backup,) = shipped.backups
    new = new_place(tmp_path / "new", shipped=True)
    for file in (backup, backup.with_suffix(".json")):
        shutil.copy2(file, new.root)
    if with_key:
        (new.home / ".config").mkdir()
        key = ".config/local-mcp-gateway.key"
        shutil.copy2(shipped.home / key, new.home / key)
    done = new.run("db", "restore", f"./{backup.name}", "--yes")
    assert done.code == 0, done.stderr
    shown = new.run("server", "show", "clock", "--secrets", "--json")
    doctor = new.run("doctor").stdout
    if with_key:
        assert shown.json()["env"] == {"TOKEN": "s3cret"}
    else:
        assert "TOKEN" in doctor
        assert new.run("server", "list", "--json").json()[0]["name"] == "clock"
