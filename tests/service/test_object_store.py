"""Places by URL, and where the keys of a bucket come from."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from local_mcp_gateway.config import Settings
from local_mcp_gateway.errors import ConfigProblem, CopyFailed
from local_mcp_gateway.service.object_store import folder_of, open_store
from local_mcp_gateway.service.secrets import BucketKeys
from tests.object_store import KEYS, S3


def opened(url: str, endpoint: str = "") -> object:
    return open_store(
        url,
        setting="x.y",
        endpoint=endpoint,
        region="",
        keys=BucketKeys.of(Settings(), "backup").variables,
        missing=CopyFailed,
    )


def test_a_folder_is_a_file_url_with_its_escapes_read() -> None:
    assert folder_of("file:///mnt/a%20disk/x", "x.y") == Path("/mnt/a disk/x")
    assert folder_of("s3://bucket/path", "x.y") is None


@pytest.mark.parametrize(
    "url", ["", "x", "/mnt", "file://", "file://host/x", "s3:///x", "gs://a/b"]
)
def test_anything_else_is_refused_with_the_name_of_the_setting(url: str) -> None:
    with pytest.raises(ConfigProblem, match=r"x\.y"):
        folder_of(url, "x.y")


@pytest.mark.parametrize("url", ["s3://id:secret@bucket/x", "s3://bucket/x?key=secret"])
def test_keys_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigProblem) as told:
        folder_of(url, "x.y")
    assert "secret" not in told.value.message


def test_a_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(CopyFailed, match="does not exist"):
        opened(f"file://{tmp_path}/absent")
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_looked_at_is_refused_with_the_reason(tmp_path: Path) -> None:
    """As the mount of a server that is not reachable, or a name that is too long."""
    with pytest.raises(CopyFailed, match=r"cannot be used: File name too long\.$"):
        opened(f"file://{tmp_path}/{'x' * 300}")


def test_keys_of_the_environment_go_before_credentials_of_the_unit(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    for name in ("backup-access-key-id", "backup-secret-access-key"):
        (tmp_path / name).write_text(f"from {name}\n")
    store = opened("s3://bucket/x", s3.endpoint)
    assert isinstance(store, S3Store)
    assert store.config["access_key_id"] == "from backup-access-key-id"
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    store = opened("s3://bucket/x", s3.endpoint)
    assert isinstance(store, S3Store)
    assert "access_key_id" not in store.config
    obstore.put(store, "a", b"1")
    assert s3.objects("bucket") == {"x/a": 1}
