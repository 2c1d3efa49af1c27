"""Places by URL, and what is said of a URL that names none."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.config import Settings
from local_mcp_gateway.config.settings import BackupSettings
from local_mcp_gateway.errors import ConfigProblem, CopyFailed
from local_mcp_gateway.service.object_store import Access, Bucket, SshFolder, open_place, place_of
from local_mcp_gateway.service.secrets import BucketKeys


def opened(url: str, **backup: str) -> object:
    settings = Settings(backup=BackupSettings(**backup))  # type: ignore[arg-type]
    return open_place(
        url,
        setting="x.y",
        access=Access.of(settings, "backup"),
        keys=BucketKeys.of(settings, "backup").variables,
        missing=CopyFailed,
    )


def test_a_folder_is_a_file_url_with_its_escapes_read() -> None:
    assert place_of("file:///mnt/a%20disk/x", "x.y") == Path("/mnt/a disk/x")


def test_a_bucket_is_an_s3_url() -> None:
    assert place_of("s3://bucket/path", "x.y") == Bucket("s3://bucket/path")


def test_a_folder_of_a_server_is_an_sftp_url_with_its_escapes_read() -> None:
    assert place_of("sftp://ann@host/a%20b", "x.y") == SshFolder("ann", "host", 22, "/a b")
    found = place_of("sftp://a%40b@[::1]:2222/x", "x.y")
    assert found == SshFolder("a@b", "::1", 2222, "/x")
    assert isinstance(found, SshFolder)
    assert found.address == "[::1]:2222"


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "/mnt", "file://", "file://host/x", "s3:///x", "s3://[x", "gs://a/b"),
        *("sftp://", "sftp:///x", "sftp://host/x", "sftp://ann@host", "sftp://ann@host:99999/x"),
        "sftp://ann@host:ssh/x",
    ],
)
def test_anything_else_is_refused_with_the_name_of_the_setting(url: str) -> None:
    with pytest.raises(ConfigProblem, match=r"x\.y"):
        place_of(url, "x.y")


@pytest.mark.parametrize(
    "url",
    [
        *("s3://id:secret@bucket/x", "s3://bucket/x?key=secret", "gs://id:secret@bucket/x"),
        *("sftp://ann:secret@host/x", "sftp://ann:secret@/x", "sftp://ann@host/x?key=secret"),
    ],
)
def test_keys_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigProblem) as told:
        place_of(url, "x.y")
    assert "secret" not in told.value.message


def test_a_folder_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(CopyFailed, match="does not exist"):
        opened(f"file://{tmp_path}/absent")
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_looked_at_is_refused_with_the_reason(tmp_path: Path) -> None:
    """As the mount of a server that is not reachable, or a name that is too long."""
    with pytest.raises(CopyFailed, match=r"cannot be used: File name too long\.$"):
        opened(f"file://{tmp_path}/{'x' * 300}")


def test_a_host_key_that_is_none_is_refused_with_the_name_of_its_setting() -> None:
    with pytest.raises(ConfigProblem, match=r"backup\.copy_ssh_host_key is not the public key"):
        opened("sftp://ann@host/x", copy_ssh_host_key="SHA256:abc")
