"""Fetching, and the count that stands under the test run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import COUNTED
from tests.corpus.folders import FOLDERS, NotFetched, RealFolder, fetch


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    return Path(str(pytestconfig.cache.mkdir("corpus")))


@pytest.fixture
def count(pytestconfig: pytest.Config) -> Callable[[str, RealFolder], None]:
    counted = pytestconfig.stash.setdefault(COUNTED, {})

    def add(what: str, folder: RealFolder) -> None:
        counted.setdefault(what, set()).add(folder.name)

    return add


@pytest.fixture
def fetched(folder: RealFolder, cache: Path, count: Callable[[str, RealFolder], None]) -> Path:
    """The folder as its package has it; in CI one that cannot be fetched is a failure."""
    try:
        found = fetch(folder, cache)
        if folder.name == "synapse-main":
            fetch(next(f for f in FOLDERS if f.name == "synapse-common"), cache)
    except NotFetched as error:
        if os.environ.get("CI"):
            pytest.fail(f"not fetched: {error}")
        pytest.skip(f"not fetched: {error}")
    count("fetched", folder)
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of a worker (`-n 2`) to the process that shows them."""
    counted = session.config.stash.get(COUNTED, {})
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["corpus"] = {what: sorted(names) for what, names in counted.items()}
