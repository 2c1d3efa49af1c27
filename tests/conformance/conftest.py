"""The official suite, fetched once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.suite import Missing, installed


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> tuple[str, ...]:
    try:
        return installed(Path(str(pytestconfig.cache.mkdir("conformance"))))
    except Missing as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
