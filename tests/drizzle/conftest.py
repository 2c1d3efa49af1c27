"""The real drizzle-orm and drizzle-kit, fetched once by npm into pytest's cache."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.drizzle.toolbox import DRIVERS, ONE, ZERO, Toolbox
from tests.fetched import npm


@pytest.fixture(scope="session")
def zero(pytestconfig: pytest.Config) -> Toolbox:
    """drizzle-orm and drizzle-kit of the line that npm calls latest."""
    return Toolbox(npm(pytestconfig, "drizzle-0", ZERO))


@pytest.fixture(params=DRIVERS)
def each(zero: Toolbox, request: pytest.FixtureRequest) -> Toolbox:
    """The same drizzle through each of its drivers."""
    return replace(zero, driver=request.param)


@pytest.fixture(scope="session")
def one(pytestconfig: pytest.Config) -> Toolbox:
    """drizzle-orm 1.x, whose folders and ledger look different."""
    return Toolbox(npm(pytestconfig, "drizzle-1", ONE))
