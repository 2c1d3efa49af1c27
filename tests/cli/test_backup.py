"""`db backup`: created, listed, verified and pruned, as a person runs it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.kept import backups
from tests.harness import Place, clean_environment
from tests.needs import small_disk


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


def test_prune_says_so_when_there_is_nothing_to_remove(kept: Place, tmp_path: Path) -> None:
    assert kept.run("db", "backup", "prune").stdout == "Nothing to remove: 1 backup kept.\n"
    none = kept.run("db", "backup", "prune", env={"LMG_BACKUP__FOLDER": str(tmp_path / "none")})
    assert none.stdout == f"No backups in {tmp_path / 'none'}.\n"


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


@pytest.mark.root
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


def test_a_database_whose_name_is_no_utf8_is_backed_up_and_restored(place: Place) -> None:
    place.folder.add("a", "CREATE TABLE a(x);")
    database = place.database.with_name(os.fsdecode(b"x\xff.db"))
    where = ("--database", os.fspath(database), "--migrations", str(place.folder.path))
    for words in ("migrate", "backup create", "restore latest --yes", "backup verify"):
        done = subprocess.run(
            [*place.command, *where, "db", *words.split()],
            capture_output=True,
            env=clean_environment(place.home),
            check=False,
        )
        assert done.returncode == 0, done
