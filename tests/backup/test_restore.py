"""A backup takes the database's place, or nothing changes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from local_mcp_gateway.backup import Backup, scratch_copy
from local_mcp_gateway.backup.files import list_asides
from local_mcp_gateway.backup.restore import require_known, restore_backup
from local_mcp_gateway.errors import BackupDamaged, BackupForeign, DatabaseBusy, NoRoom
from tests.backup.conftest import rows


def files(database: Path) -> set[str]:
    return {path.name for path in database.parent.iterdir() if path.is_file()}


def test_a_restore_brings_the_rows_back_and_keeps_the_replaced_file(
    database: Path, backup: Backup
) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM notes WHERE id > 10")
        connection.commit()
    done = restore_backup(database, backup)
    assert done.aside is not None
    assert files(database) == {"app.db", done.aside.name}
    assert rows(database) == 500
    assert rows(done.aside) == 10
    assert database.stat().st_mode == done.aside.stat().st_mode


def test_commits_that_were_only_in_the_wal_are_in_the_replaced_file(
    database: Path, backup: Backup, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("INSERT INTO notes (text) VALUES ('in the WAL')")
        saved = {p.name: p.read_bytes() for p in database.parent.iterdir() if p.is_file()}
    for name, content in saved.items():  # as a kill -9 leaves them
        (database.parent / name).write_bytes(content)
    done = restore_backup(database, backup)
    assert done.aside is not None
    assert rows(done.aside) == 501
    assert rows(database) == 500
    assert not database.with_name("app.db-wal").exists()


def test_a_damaged_database_is_replaced_and_kept_with_its_wal(
    database: Path, backup: Backup
) -> None:
    database.write_bytes(b"this was a database")
    database.with_name("app.db-wal").write_bytes(b"and this its WAL")
    done = restore_backup(database, backup)
    assert rows(database) == 500
    assert done.aside is not None
    assert done.aside.read_bytes() == b"this was a database"
    assert not database.with_name("app.db-wal").exists()


def test_a_missing_database_is_restored_without_an_aside(database: Path, backup: Backup) -> None:
    database.unlink()
    assert restore_backup(database, backup).aside is None
    assert rows(database) == 500


def test_the_history_is_written_into_the_file_before_it_becomes_the_database(
    database: Path, backup: Backup
) -> None:
    def annotate(connection: sqlite3.Connection) -> None:
        assert connection.in_transaction
        connection.execute("INSERT INTO notes (text) VALUES ('restored')")

    restore_backup(database, backup, annotate=annotate)
    assert rows(database) == 501
    assert rows(backup.path) == 500


def test_an_annotation_that_fails_leaves_everything_as_it_was(
    database: Path, backup: Backup
) -> None:
    before = database.read_bytes()

    def annotate(_: sqlite3.Connection) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        restore_backup(database, backup, annotate=annotate)
    assert database.read_bytes() == before
    assert files(database) == {"app.db"}


@pytest.mark.parametrize("harm", ["cut off", "edited"])
def test_a_harmed_backup_is_refused_and_nothing_is_touched(
    database: Path, backup: Backup, harm: str
) -> None:
    before = database.read_bytes()
    with backup.path.open("rb+") as file:
        if harm == "cut off":
            file.truncate(4096)
        else:
            file.seek(backup.bytes - 200)
            file.write(b"edited")
    with pytest.raises(BackupDamaged):
        restore_backup(database, backup)
    assert database.read_bytes() == before
    assert files(database) == {"app.db"}


def test_a_file_that_was_fetched_for_it_becomes_the_database_itself(
    database: Path, backup: Backup
) -> None:
    fetched = database.with_name(".fetched")
    backup.path.rename(fetched)
    inode = fetched.stat().st_ino
    done = restore_backup(database, backup._replace(path=fetched), moved=True)
    assert database.stat().st_ino == inode
    assert done.aside is not None
    assert files(database) == {"app.db", done.aside.name}
    assert rows(database) == 500


def test_a_fetched_file_that_is_damaged_is_refused_and_removed(
    database: Path, backup: Backup
) -> None:
    before = database.read_bytes()
    fetched = database.with_name(".fetched")
    fetched.write_bytes(backup.path.read_bytes()[:-4096] + b"\xff" * 4096)
    with pytest.raises(BackupDamaged, match="is damaged"):
        restore_backup(database, backup._replace(path=fetched, verified=False), moved=True)
    assert database.read_bytes() == before
    assert files(database) == {"app.db"}


def test_a_program_that_has_the_database_open_makes_restore_refuse(
    database: Path, backup: Backup, live: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_mcp_gateway.backup.restore.BUSY_TIMEOUT_S", 0.01)
    live.execute("INSERT INTO notes (text) VALUES ('still here')")
    with pytest.raises(DatabaseBusy, match="Another program has"):
        restore_backup(database, backup)
    assert live.execute("SELECT count(*) FROM notes").fetchone() == (501,)
    assert list_asides(database) == ()


def test_too_little_room_is_said_before_anything_is_written(
    database: Path, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_mcp_gateway.backup.create.free_bytes", lambda _: 0)
    with pytest.raises(NoRoom, match="are missing"):
        restore_backup(database, backup)
    assert files(database) == {"app.db"}


def test_only_the_newest_replaced_files_are_kept(database: Path, backup: Backup) -> None:
    for _ in range(4):
        restore_backup(database, backup, keep_aside=2)
    assert len(list_asides(database)) == 2


def test_a_backup_with_migrations_that_nobody_here_knows_is_refused(backup: Backup) -> None:
    require_known(backup, {"0000_first", "0001_next"})
    with pytest.raises(BackupForeign, match="0000_first"):
        require_known(backup, {"0001_next"})


def test_a_scratch_copy_survives_nothing_but_its_block(backup: Backup) -> None:
    with pytest.raises(ValueError, match="inside"), scratch_copy(backup) as copy:
        raise ValueError("inside")
    assert not copy.exists()


def test_a_folder_that_cannot_be_listed_has_no_replaced_database_to_offer(tmp_path: Path) -> None:
    """As root, who may list every folder, this test takes one that is none."""
    (tmp_path / "file").touch()
    assert list_asides(tmp_path / "file" / "app.db") == ()
    assert list_asides(tmp_path / "nowhere" / "app.db") == ()
