"""Fixtures of the replica's tests: the stores are in `stores.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.replica.stores import KEY_ID, SECRET, Replica, running_store


@pytest.fixture
def folder(tmp_path: Path) -> Replica:
    """A replica in a folder."""
    return Replica(f"file://{tmp_path}/elsewhere")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replica]:
    """A replica in a bucket, whose keys the test has too."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with running_store(tmp_path) as replica:
        yield replica


@pytest.fixture(params=["folder", "bucket"])
def replica(request: pytest.FixtureRequest) -> Replica:
    """A replica of each kind."""
    found: Replica = request.getfixturevalue(request.param)
    return found
