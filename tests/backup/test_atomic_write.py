"""Copies of files that have no writer, in the file system's own way where it has one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local_mcp_gateway.backup import atomic_write


@pytest.mark.parametrize("size", [0, 1, 4096, (3 << 20) + 7])
def test_a_copy_is_the_same_bytes_whichever_way_it_was_made(tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    with atomic_write.temporary_file(tmp_path / "copy") as descriptor:
        way = atomic_write.copy_bytes(source, descriptor)
        assert way in ("reflink", "copy_file_range", "read")
        assert (tmp_path / "copy").read_bytes() == source.read_bytes()
        assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "copy").exists()
