"""A file for its owner only: created once, replaced whole, and never read where others can."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local_mcp_gateway.service.secrets import private_file
from local_mcp_gateway.service.secrets.private_file import Unusable
from tests.needs import give_away


def test_it_is_created_once_and_for_its_owner_only(tmp_path: Path) -> None:
    with private_file.locked(tmp_path / "key") as target:
        assert private_file.create(target, b"first")
        assert not private_file.create(target, b"second")
    assert private_file.read(target) == b"first"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_replaced_file_has_the_new_content_and_the_old_mode(tmp_path: Path) -> None:
    with private_file.locked(tmp_path / "key") as target:
        private_file.create(target, b"first")
        private_file.replace(target, b"second")
    assert private_file.read(target) == b"second"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_link_that_leads_nowhere_is_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "key"
    link.symlink_to(tmp_path / "nowhere")
    assert not private_file.create(link, b"first")
    assert private_file.read(link) is None


def test_a_file_that_is_not_there_is_no_file(tmp_path: Path) -> None:
    assert private_file.read(tmp_path / "key") is None
    assert private_file.read(tmp_path / "key" / "below") is None


def test_a_file_that_others_can_read_is_refused_where_it_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o644)
    with pytest.raises(Unusable, match="other users can read") as unusable:
        private_file.read(path)
    assert unusable.value.hint == f"Run chmod 600 {path}"
    assert private_file.read(path, private=False) == b"secret"


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(Unusable, match="is a named pipe, not a file"):
        private_file.read(tmp_path / "key")


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    give_away(path)
    with pytest.raises(Unusable, match="belongs to another user"):
        private_file.read(path)
