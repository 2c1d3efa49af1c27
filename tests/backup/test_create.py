"""A backup is made of a database in use, and listed only when it is whole."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.backup import (
    Backup,
    create_backup,
    list_backups,
    require_room,
    verify_backup,
)
from local_mcp_gateway.database.run import Run
from local_mcp_gateway.errors import BackupFailed, DatabasePathProblem, Interrupted, NoRoom
from tests.backup.conftest import rows
from tests.needs import small_disk


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_backup_holds_every_row_and_says_what_it_is(database: Path, backup: Backup) -> None:
    assert rows(backup.path) == rows(database) == 500
    assert backup.sha256 == hashlib.sha256(backup.path.read_bytes()).hexdigest()
    assert backup.bytes == backup.path.stat().st_size
    assert backup.name.startswith("app-2")
    assert backup.name.endswith("Z-before-0001_next")
    assert list_backups(database) == (backup,)
    verify_backup(backup)


def test_a_backup_leaves_only_itself_and_its_manifest_for_its_owner_alone(backup: Backup) -> None:
    folder = backup.path.parent
    assert names(folder) == {backup.path.name, backup.manifest.name}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_commit_that_is_still_in_the_wal_is_in_the_backup(
    live: sqlite3.Connection, back_up: Callable[..., Backup]
) -> None:
    live.execute("PRAGMA wal_autocheckpoint=0")
    live.execute("INSERT INTO notes (text) VALUES ('only in the WAL')")
    assert rows(back_up().path) == 501


def test_a_backup_is_made_while_this_process_holds_the_write_lock(
    live: sqlite3.Connection, back_up: Callable[..., Backup]
) -> None:
    live.execute("BEGIN IMMEDIATE")
    live.execute("DELETE FROM notes")
    backup = back_up()
    live.execute("ROLLBACK")
    assert rows(backup.path) == 500


def test_a_backup_of_a_rollback_journal_database_is_made_under_the_write_lock_too(
    live: sqlite3.Connection, back_up: Callable[..., Backup]
) -> None:
    live.execute("PRAGMA journal_mode=DELETE")
    live.execute("BEGIN IMMEDIATE")
    live.execute("UPDATE notes SET text = 'changed' WHERE id = 1")
    backup = back_up()
    live.execute("ROLLBACK")
    assert rows(backup.path) == 500


def test_a_writer_between_two_steps_neither_blocks_the_backup_nor_is_in_it(
    database: Path,
    live: sqlite3.Connection,
    back_up: Callable[..., Backup],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("local_mcp_gateway.backup.create.STEP_BYTES", 4096 * 10)
    seen: list[tuple[int, int]] = []

    def write_too(phase: str, done: int, total: int) -> None:
        if phase != "backup":
            return  # it is read back, in another thread
        seen.append((done, total))
        live.execute("INSERT INTO notes (text) VALUES ('written between two steps')")

    backup = back_up(run=Run(progress=write_too))
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert rows(backup.path) == 500
    assert rows(database) == 500 + len(seen)


def test_each_part_of_a_backup_is_a_phase_that_ends_at_its_own_end(
    back_up: Callable[..., Backup],
) -> None:
    told: dict[str, tuple[int, int]] = {}

    def note(phase: str, done: int, total: int) -> None:
        told[phase] = done, total

    backup = back_up(run=Run(progress=note))
    whole = (backup.bytes, backup.bytes)
    assert list(told.items()) == [
        ("backup", whole),
        ("read", whole),
        ("verify", (0, 0)),
        ("flush", (0, 0)),
    ]


def test_a_stop_ends_a_backup_and_leaves_nothing(
    database: Path, back_up: Callable[..., Backup]
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        back_up(run=Run(stop=stop))
    assert names(database.parent / "backups") == set()


def test_a_damaged_database_gives_no_backup(database: Path, back_up: Callable[..., Backup]) -> None:
    content = bytearray(database.read_bytes())
    content[8192:8400] = b"\xff" * 208
    database.write_bytes(content)
    with pytest.raises(BackupFailed, match="not sound") as caught:
        back_up()
    assert "db check" in caught.value.hint
    assert names(database.parent / "backups") == set()


def test_a_missing_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabasePathProblem, match="There is no database"):
        create_backup(
            tmp_path / "none.db", before=None, fingerprint="", applied=(), program_version="0"
        )


def test_a_backup_folder_that_is_a_file_is_named(
    tmp_path: Path, back_up: Callable[..., Backup]
) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(BackupFailed, match="taken is not a folder"):
        back_up(folder=tmp_path / "taken")


def test_too_little_room_says_how_much_is_missing(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_mcp_gateway.backup.create.free_bytes", lambda _: 1 << 10)
    with pytest.raises(NoRoom, match=r"are missing") as caught:
        require_room(database, database.parent / "backups")
    size = database.stat().st_size
    assert caught.value.data["missing_bytes"] == 2 * size + (256 << 10) - (1 << 10)
    assert not (database.parent / "backups").exists()


@pytest.mark.root
def test_a_disk_that_fills_up_midway_is_told_as_no_room(
    tmp_path: Path, back_up: Callable[..., Backup]
) -> None:
    with small_disk(tmp_path / "small", "64k") as small:
        with pytest.raises(NoRoom, match=r"Cannot write a backup into .*full"):
            back_up(folder=small)
        assert names(small) == set()


def test_every_byte_is_flushed_before_its_name_appears(
    database: Path, tmp_path: Path, needs_strace: None
) -> None:
    trace = tmp_path / "trace"
    script = (
        "import sys; from pathlib import Path; from local_mcp_gateway.backup import create_backup\n"
        "create_backup(Path(sys.argv[1]), before=None, fingerprint='', applied=(), program_version='0')"
    )
    watched = "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2"
    subprocess.run(
        ["strace", "-f", "-y", "-qq", "-e", watched, "-e", "signal=none", "-o", trace,
         sys.executable, "-c", script, database],
        check=True,
    )  # fmt: skip
    lines = [line for line in trace.read_text().splitlines() if "/backups" in line]
    kinds = [
        ("write" if "write" in line else "flush" if "sync" in line else "name")
        + (" folder" if "/backups>" in line else " manifest" if ".json" in line else " file")
        for line in lines
        if "<unfinished" not in line or "sync" in line
    ]
    story = [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]
    assert story == [
        "write file", "flush file", "write manifest", "flush manifest", "name file",
        "flush folder", "name manifest", "flush folder",
    ]  # fmt: skip


def test_a_clock_that_was_set_back_does_not_make_the_newest_backup_the_oldest(
    database: Path, back_up: Callable[..., Backup]
) -> None:
    first = back_up()
    for file in (first.path, first.manifest):
        file.rename(file.with_name(file.name.replace("app-20", "app-29", 1)))
    manifest = next((database.parent / "backups").glob("*.json"))
    text = manifest.read_text().replace('"created_at": "20', '"created_at": "29')
    manifest.write_text(text)
    second = back_up()
    assert list_backups(database)[0] == second


def test_a_manifest_is_plain_json_that_another_tool_can_read(backup: Backup) -> None:
    content = json.loads(backup.manifest.read_text())
    assert content["application"] == "local-mcp-gateway"
    assert content["applied"] == ["0000_first"]
    with closing(sqlite3.connect(backup.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_rows_that_break_a_rule_are_backed_up_as_they_are(
    live: sqlite3.Connection, back_up: Callable[..., Backup]
) -> None:
    live.execute("CREATE TABLE t (v)")
    live.execute("INSERT INTO t VALUES (NULL)")
    live.execute("PRAGMA writable_schema=ON")
    live.execute("UPDATE sqlite_schema SET sql='CREATE TABLE t (v NOT NULL)' WHERE name='t'")
    live.execute("PRAGMA writable_schema=RESET")
    verify_backup(back_up())
