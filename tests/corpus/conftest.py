"""Fetching, and the count that stands under the test run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.corpus.folders import FOLDERS, NotFetched, RealFolder, fetch

COUNTED = pytest.StashKey[dict[str, set[str]]]()


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


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counted = config.stash.get(COUNTED, {})
    if counted:
        said = ", ".join(f"{len(names)} {what}" for what, names in counted.items())
        terminalreporter.write_line(f"real migration folders: {said}, of {len(FOLDERS)}")
