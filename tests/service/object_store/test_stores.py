"""A folder and a bucket as places, and where the keys of a bucket come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import S3Store

from local_mcp_gateway.config import Settings
from local_mcp_gateway.config.settings import BackupSettings
from local_mcp_gateway.errors import CopyFailed
from local_mcp_gateway.service.object_store import Access, open_place
from local_mcp_gateway.service.object_store.stores import ObstorePlace, folder
from local_mcp_gateway.service.secrets import BucketKeys
from tests.object_store import KEYS, S3


def opened(s3: S3) -> ObstorePlace:
    settings = Settings(backup=BackupSettings(copy_endpoint=s3.endpoint))
    place = open_place(
        "s3://bucket/x",
        setting="x.y",
        access=Access.of(settings, "backup"),
        keys=BucketKeys.of(settings, "backup").variables,
        missing=CopyFailed,
    )
    assert isinstance(place, ObstorePlace)
    return place


def test_keys_of_the_environment_go_before_credentials_of_the_unit(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    for name in ("backup-access-key-id", "backup-secret-access-key"):
        (tmp_path / name).write_text(f"from {name}\n")
    store = opened(s3).store
    assert isinstance(store, S3Store)
    assert store.config["access_key_id"] == "from backup-access-key-id"
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    store = opened(s3).store
    assert isinstance(store, S3Store)
    assert "access_key_id" not in store.config
    opened(s3).write("a", b"1")
    assert s3.objects("bucket") == {"x/a": 1}


def test_what_a_killed_write_left_in_a_folder_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path)
    place.write("whole", b"1")
    (tmp_path / "half#1").touch()
    assert (place.unfinished(), place.sizes()) == (["half#1"], {"whole": 1})
    place.delete("half#1")
    place.delete("half#1")
    assert place.unfinished() == []
