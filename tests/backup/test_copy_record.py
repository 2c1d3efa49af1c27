"""Which copies are made, which are chosen, and what is remembered of them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from local_mcp_gateway.backup import (
    Backup,
    Copy,
    CopyCatalog,
    CopyRecord,
    Retention,
    copy_backups,
    copy_of,
    list_backups,
    not_copied,
    read_record,
    remove_backups,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.errors import CopyFailed, DatabaseBusy, NoSuchBackup
from tests.backup.copying import RECIPIENTS, a_backup, a_store

URL = "file:///elsewhere"


def copying(root: Path, *names: str, retention: Retention | None = None) -> list[str]:
    done = copy_backups(
        root / "app.db",
        None,
        lambda: (a_store(root), RECIPIENTS),
        url=URL,
        host="here",
        retention=retention or Retention(),
        names=names,
    )
    return [copy.backup.name for copy in done.copies]


def record(root: Path) -> CopyRecord:
    return read_record(root / "app.db").at(URL)


def test_the_newest_is_copied_first_and_each_is_recorded(tmp_path: Path) -> None:
    older, newer = a_backup(tmp_path), a_backup(tmp_path)
    assert copying(tmp_path) == [newer.name, older.name]
    assert set(record(tmp_path).copied) == {newer.name, older.name}
    assert not_copied(list_backups(tmp_path / "app.db"), record(tmp_path)) == ()


def test_named_ones_alone_are_copied(tmp_path: Path) -> None:
    older, newer = a_backup(tmp_path), a_backup(tmp_path)
    assert copying(tmp_path, older.name) == [older.name]
    assert not_copied([older, newer], record(tmp_path)) == (newer,)


def test_of_another_place_nothing_is_known_but_the_origin_stays(tmp_path: Path) -> None:
    a_backup(tmp_path)
    copying(tmp_path)
    known = read_record(tmp_path / "app.db")
    assert known.at("s3://other/place").copied == {}
    assert known.at("s3://other/place").origin == known.origin != ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"origin": "x"}', '{"origin": 1, "copied": 5}'])
def test_a_record_that_is_none_counts_as_empty(tmp_path: Path, text: str) -> None:
    a_backup(tmp_path)
    (tmp_path / "backups" / "app-copies.json").write_text(text)
    assert read_record(tmp_path / "app.db") == CopyRecord()
    assert len(copying(tmp_path)) == 1


def test_a_failure_is_recorded_and_the_next_success_removes_it(tmp_path: Path) -> None:
    a_backup(tmp_path)

    def fails() -> NoReturn:
        raise CopyFailed("The folder is not there.")

    with pytest.raises(CopyFailed):
        copy_backups(tmp_path / "app.db", None, fails, url=URL, host="here", retention=Retention())
    failure = record(tmp_path).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("copy_failed", "The folder is not there.")
    copying(tmp_path)
    assert record(tmp_path).failure is None


def test_two_commands_take_turns(tmp_path: Path) -> None:
    a_backup(tmp_path)
    turn = temporary_path(tmp_path / "backups" / "app-copies.turn")
    with temporary_file(turn), pytest.raises(DatabaseBusy):
        copying(tmp_path)
    assert len(copying(tmp_path)) == 1


def test_a_copy_stays_while_its_backup_does_and_by_the_policy_after_that(tmp_path: Path) -> None:
    made = [a_backup(tmp_path) for _ in range(3)]
    strict = Retention(keep_last=1, keep_daily_days=0)
    copying(tmp_path, retention=strict)
    assert set(record(tmp_path).copied) == {backup.name for backup in made}
    remove_backups(made[:2])
    copying(tmp_path, retention=strict)
    assert set(record(tmp_path).copied) == {made[2].name}


def copy(name: str, origin: str) -> Copy:
    backup = Backup(
        path=Path(f"{name}.json"), name=name, bytes=1, sha256="", created_at="", before=None,
        fingerprint="", applied=(), program_version="", verified=True, database=None,
    )  # fmt: skip
    return Copy(backup, f"{name}.age", 1, "", origin, "host", "")


NEWER, OLDER = "app-20260102T000000.000Z", "app-20260101T000000.000Z"


def chosen(name: str, origin: str, *copies: Copy) -> str:
    catalog = CopyCatalog(copies, (), ())
    return copy_of(catalog, Path("/x/app.db"), name, origin=origin, url=URL).backup.name


def test_the_latest_is_this_machines_own_where_there_are_several(tmp_path: Path) -> None:
    two = (copy(NEWER, "theirs"), copy(OLDER, "ours"))
    assert chosen("latest", "ours", *two) == OLDER
    assert chosen("latest", "", copy(NEWER, "theirs")) == NEWER
    assert chosen(NEWER, "ours", *two) == NEWER
    with pytest.raises(NoSuchBackup, match="several databases"):
        chosen("latest", "new", *two)


def test_the_latest_of_another_database_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(NoSuchBackup, match=r"is of a database app\.db\. There are 1 of other"):
        chosen("latest", "", copy("other-20260102T000000.000Z", "theirs"))
