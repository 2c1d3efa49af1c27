"""One copy at a place: sent, listed, checked, fetched and removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_mcp_gateway.backup import file_hash
from local_mcp_gateway.database import Run, StopEvent
from local_mcp_gateway.errors import BackupDamaged, CopyFailed, Interrupted
from tests.backup.copying import KEY, RECIPIENTS, a_backup, a_store


def test_what_is_fetched_is_the_backup_byte_for_byte(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path, rows=60), a_store(tmp_path)
    sent = store.send(backup, origin="one", host="here", recipients=RECIPIENTS)
    (copy,) = store.read().copies
    assert copy.backup._replace(path=backup.path) == backup
    assert copy == sent._replace(backup=copy.backup)
    target = tmp_path / "fetched.db"
    target.touch()
    fetched = store.fetch(copy, target, [KEY])
    assert fetched.path == target
    assert file_hash(target) == backup.sha256


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path), a_store(tmp_path)
    store.send(backup, origin="one", host="here", recipients=RECIPIENTS)
    manifest, sealed = sorted(
        (tmp_path / "elsewhere").iterdir(), key=lambda path: path.suffix != ".json"
    )
    assert sealed.stat().st_mtime_ns <= manifest.stat().st_mtime_ns
    assert json.loads(manifest.read_text())["copy"]["object"] == sealed.name


def test_a_stop_while_it_is_sent_leaves_nothing(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path, rows=80), a_store(tmp_path)
    stop = StopEvent()

    def stop_in_the_middle(_phase: str, done: int, _total: int) -> None:
        if done > 3 << 20:
            stop.set()

    with pytest.raises(Interrupted):
        store.send(
            backup,
            origin="one",
            host="here",
            recipients=RECIPIENTS,
            run=Run(stop=stop, progress=stop_in_the_middle),
        )
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_backup_that_changed_is_not_sent(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path), a_store(tmp_path)
    content = backup.path.read_bytes()
    backup.path.write_bytes(content[:-1] + b"!")
    with pytest.raises(BackupDamaged, match="not copied"):
        store.send(backup, origin="one", host="here", recipients=RECIPIENTS)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_each_upload_has_an_object_of_its_own(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path), a_store(tmp_path)
    first = store.send(backup, origin="one", host="here", recipients=RECIPIENTS)
    second = store.send(backup, origin="one", host="here", recipients=RECIPIENTS)
    assert first.object_name != second.object_name
    (listed,) = store.read().copies
    assert listed.object_name == second.object_name
    store.check(listed)
    store.tidy(store.read(), "one")
    assert store.read().objects == (second.object_name,)


def test_only_objects_of_the_origin_are_tidied_away(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path), a_store(tmp_path)
    store.send(backup, origin="one", host="here", recipients=RECIPIENTS)
    store.send(backup, origin="other", host="there", recipients=RECIPIENTS)
    store.tidy(store.read(), "other")
    assert len(store.read().objects) == 2


def test_a_removed_copy_is_gone_whole(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path), a_store(tmp_path)
    store.remove(store.send(backup, origin="one", host="here", recipients=RECIPIENTS))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_copy_that_vanished_while_it_was_read_is_no_damage(tmp_path: Path) -> None:
    backup, store = a_backup(tmp_path), a_store(tmp_path)
    copy = store.send(backup, origin="one", host="here", recipients=RECIPIENTS)
    store.remove(copy)
    with pytest.raises(CopyFailed, match="not found"):
        store.check(copy)
