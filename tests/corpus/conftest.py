"""Fetching the real folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.corpus.folders import COUNTED, FOLDERS, NotFetched, RealFolder, fetch
from tests.tally import Count


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    return Path(str(pytestconfig.cache.mkdir("corpus")))


@pytest.fixture
def fetched(folder: RealFolder, cache: Path, count: Count) -> Path:
    """The folder as its package has it; in CI one that cannot be fetched is a failure."""
    try:
        found = fetch(folder, cache)
        if folder.name == "synapse-main":
            fetch(next(f for f in FOLDERS if f.name == "synapse-common"), cache)
    except NotFetched as error:
        if os.environ.get("CI"):
            pytest.fail(f"not fetched: {error}")
        pytest.skip(f"not fetched: {error}")
    count(COUNTED, "fetched", folder.name)
    return found
