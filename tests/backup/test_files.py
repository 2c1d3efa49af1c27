"""Copies of files that have no writer, in the file system's own way where it has one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from local_mcp_gateway.backup import Backup, clean_up, files, list_backups, restore, scratch_copy
from local_mcp_gateway.backup.files import temporary_file
from local_mcp_gateway.backup.restore import fetched_folder
from local_mcp_gateway.regular_file import copy_bytes
from tests.backup.conftest import rows


@pytest.mark.parametrize("size", [0, 1, 4096, (3 << 20) + 7])
def test_a_copy_is_the_same_bytes_whichever_way_it_was_made(tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    with files.temporary_file(tmp_path / "copy") as descriptor:
        way = copy_bytes(source, descriptor)
        assert way in ("reflink", "copy_file_range", "read")
        assert (tmp_path / "copy").read_bytes() == source.read_bytes()
        assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "copy").exists()


def test_a_sweep_of_a_tidy_folder_changes_nothing(database: Path, backup: Backup) -> None:
    assert clean_up(database) == ()
    assert list_backups(database) == (backup,)


def test_a_sweep_without_a_backup_folder_or_database_is_no_error(tmp_path: Path) -> None:
    assert clean_up(tmp_path / "new.db") == ()


def test_what_a_killed_backup_left_is_removed(database: Path, backup: Backup) -> None:
    folder = backup.path.parent
    left = [
        folder / ".app-20260101T000000.000Z.db.tmp",
        folder / ".app-20260101T000000.000Z.db.tmp-journal",
        folder / ".app-20260101T000001.000Z.json.tmp",
    ]
    for path in left:
        path.write_bytes(b"half")
    assert set(clean_up(database)) == set(left)
    assert list_backups(database) == (backup,)


def test_a_token_that_a_killed_gateway_was_writing_is_removed(database: Path) -> None:
    left = database.with_name(f".{database.name}.token.tmp")
    left.write_bytes(b"half")
    assert clean_up(database) == (left,)


def test_a_file_that_is_being_written_is_left_alone(database: Path, backup: Backup) -> None:
    path = backup.path.with_name(".app-20260101T000000.000Z.db.tmp")
    with temporary_file(path):
        path.with_name(path.name + "-journal").write_bytes(b"")
        assert clean_up(database) == ()
        assert path.exists()


def test_files_of_people_and_of_other_databases_are_left_alone(
    database: Path, backup: Backup
) -> None:
    folder = backup.path.parent
    kept = [folder / ".notes.tmp", folder / "app-mine.db", folder / ".app-x.swp", folder / "x.tmp"]
    for path in kept:
        path.write_bytes(b"")
    assert clean_up(database) == ()
    assert all(path.exists() for path in kept)


def test_a_backup_killed_just_before_its_manifest_got_its_name_is_listed_after_the_sweep(
    database: Path, backup: Backup
) -> None:
    backup.manifest.rename(backup.manifest.with_name(f".{backup.manifest.name}.tmp"))
    assert list_backups(database) == ()
    assert clean_up(database) == ()
    assert list_backups(database) == (backup,)


def test_a_scratch_copy_is_private_whole_and_gone_afterwards(backup: Backup) -> None:
    with scratch_copy(backup) as copy:
        assert copy.read_bytes() == backup.path.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o600
        assert rows(copy) == 500
    assert {path.name for path in copy.parent.iterdir()} == {
        backup.path.name,
        backup.manifest.name,
    }


def test_a_staged_restore_and_a_second_name_of_the_database_are_taken_back(database: Path) -> None:
    staged = database.with_name(".app.db.tmp")
    staged.write_bytes(b"")
    twin = database.with_name("app.replaced-20260101T000000.000Z.db")
    os.link(database, twin)
    assert set(clean_up(database)) == {staged, twin}
    assert rows(database) == 500


def test_a_replaced_database_is_not_a_left_over(database: Path) -> None:
    aside = database.with_name("app.replaced-20260101T000000.000Z.db")
    aside.write_bytes(database.read_bytes())
    assert clean_up(database) == ()


def test_a_rollback_journal_that_is_not_hot_is_put_away(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    journal = database.with_name("app.db-journal")
    journal.write_bytes(bytes(512))  # as a kill before its first flush leaves it
    assert clean_up(database) == (journal,)
    assert not journal.exists()
    assert rows(database) == 500


def test_a_folder_that_another_command_takes_for_a_left_over_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes between its making and its lock, and removes it."""
    database = tmp_path / "app.db"
    taken: list[str] = []

    class Taken(TemporaryDirectory[str]):
        def __enter__(self) -> str:
            if not taken:
                taken.append(super().__enter__())
                clean_up(database)
                return taken[0]
            return super().__enter__()

    monkeypatch.setattr(restore, "TemporaryDirectory", Taken)
    with fetched_folder(database) as folder:
        assert not Path(taken[0]).exists()
        clean_up(database)
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
