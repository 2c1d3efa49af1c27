"""The manifest next to a backup: what it says, and what is refused without one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_mcp_gateway.backup import (
    Backup,
    create_backup,
    find_backup,
    list_backups,
    read_catalog,
    verify_backup,
)
from local_mcp_gateway.backup.manifest import UnusableBackup, read_manifest
from local_mcp_gateway.errors import BackupDamaged, BackupForeign, NoSuchBackup


def edit(backup: Backup, **changes: Any) -> None:
    content = json.loads(backup.manifest.read_text())
    backup.manifest.write_text(json.dumps({**content, **changes}))


def reason(database: Path) -> str:
    listing = read_catalog(database)
    assert listing.backups == ()
    (unusable,) = listing.unusable
    return unusable.reason


def test_backups_are_listed_newest_first(database: Path, back_up: Callable[..., Backup]) -> None:
    first, second = back_up(), back_up()
    assert list_backups(database) == (second, first)


def test_the_backups_of_a_database_whose_name_begins_alike_are_not_listed(
    database: Path, backup: Backup
) -> None:
    assert list_backups(database.with_name("ap.db")) == ()
    for file in (backup.path, backup.manifest):
        file.rename(file.with_name(file.name.replace("app-", "app-two-", 1)))
    assert list_backups(database) == ()
    database.rename(database.with_name("app-two.db"))
    assert len(list_backups(database.with_name("app-two.db"))) == 1


def test_two_databases_of_one_stem_in_one_folder_have_each_its_own(
    database: Path, backup: Backup
) -> None:
    other = database.with_suffix(".sqlite")
    other.write_bytes(database.read_bytes())
    own = create_backup(other, before=None, fingerprint="", applied=[], program_version="0")
    assert list_backups(database) == (backup,)
    assert list_backups(other) == (own,)
    assert find_backup(database, "latest") == backup


def test_two_databases_of_one_name_may_share_a_backup_folder(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    made = {}
    for place in ("a", "b"):
        database = tmp_path / place / "app.db"
        database.parent.mkdir()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE t (x)")
        made[database] = create_backup(
            database, folder=folder, before=None, fingerprint="", applied=[], program_version="0"
        )
    for database, backup in made.items():
        assert list_backups(database, folder) == (backup,)
    first, second = made
    with pytest.raises(NoSuchBackup, match="made of another database") as caught:
        find_backup(first, made[second].name, folder)
    assert str(made[second].path) in caught.value.hint
    assert find_backup(first, str(made[second].path), folder) == made[second]


def test_a_database_that_was_moved_keeps_its_backups(database: Path, backup: Backup) -> None:
    moved = database.parent.with_name("moved")
    database.parent.rename(moved)
    assert [found.name for found in list_backups(moved / "app.db")] == [backup.name]


def test_a_database_that_left_its_backups_in_a_folder_of_theirs_keeps_them(
    database: Path, back_up: Callable[..., Backup], tmp_path: Path
) -> None:
    backup = back_up(folder=tmp_path / "kept")
    moved = tmp_path / database.name
    database.rename(moved)
    assert list_backups(moved, tmp_path / "kept") == (backup,)


def test_a_backup_from_before_databases_were_told_apart_is_listed(
    database: Path, backup: Backup
) -> None:
    edit(backup, database=None)
    assert [found.name for found in list_backups(database)] == [backup.name]


def test_a_manifest_whose_time_is_none_is_named(database: Path, backup: Backup) -> None:
    edit(backup, created_at="yesterday")
    assert "created_at" in reason(database)


def test_a_cut_off_manifest_is_named(database: Path, backup: Backup) -> None:
    content = backup.manifest.read_bytes()
    backup.manifest.write_bytes(content[: len(content) // 2])
    assert "not valid JSON" in reason(database)


def test_a_manifest_of_another_application_is_named(database: Path, backup: Backup) -> None:
    edit(backup, application="somebody-else")
    assert "another application" in reason(database)
    with pytest.raises(BackupForeign, match="another application"):
        find_backup(database, backup.name)


def test_a_manifest_of_a_newer_format_is_named(database: Path, backup: Backup) -> None:
    edit(backup, format=2)
    assert "newer version" in reason(database)


def test_a_cut_off_backup_is_named_without_reading_it(database: Path, backup: Backup) -> None:
    with backup.path.open("rb+") as file:
        file.truncate(backup.bytes // 2)
    assert "cut off" in reason(database)


def test_a_backup_that_is_gone_is_named(database: Path, backup: Backup) -> None:
    backup.path.unlink()
    assert "cannot be read" in reason(database)


def test_a_file_without_a_manifest_is_named(database: Path, backup: Backup) -> None:
    backup.manifest.unlink()
    assert reason(database) == "it has no manifest"


def test_an_edited_backup_of_the_same_size_fails_its_verification(backup: Backup) -> None:
    with backup.path.open("rb+") as file:
        file.seek(backup.bytes - 100)
        file.write(b"x")
    with pytest.raises(BackupDamaged):
        verify_backup(backup)


def test_a_backup_is_found_by_name_file_name_path_or_latest(database: Path, backup: Backup) -> None:
    for name in (backup.name, backup.path.name, str(backup.path), str(backup.manifest), "latest"):
        assert find_backup(database, name) == backup
    with pytest.raises(NoSuchBackup, match="no backup 'other'"):
        find_backup(database, "other")
    with pytest.raises(NoSuchBackup, match="no usable backup"):
        find_backup(database.with_name("new.db"), "latest")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=st.binary(max_size=200))
def test_whatever_bytes_a_manifest_holds_it_is_named_and_never_an_error(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "app-20260101T000000.000Z.json"
    path.write_bytes(content)
    assert isinstance(read_manifest(path), UnusableBackup)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(changes=st.dictionaries(
    st.sampled_from(["bytes", "sha256", "created_at", "before", "applied", "verified", "format"]),
    JSON, min_size=1, max_size=3,
))  # fmt: skip
def test_whatever_a_manifest_says_it_is_a_backup_or_a_reason(
    database: Path, backup: Backup, changes: dict[str, Any]
) -> None:
    original = backup.manifest.read_text()
    edit(backup, **changes)
    read_catalog(database)
    backup.manifest.write_text(original)
