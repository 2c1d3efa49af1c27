"""Fixtures of the commands' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness import Place


@pytest.fixture(params=["with a daemon", "without one"])
def either(request: pytest.FixtureRequest, shipped: Place) -> Iterator[Place]:
    """A place with a gateway in front of it, and the same without one."""
    if request.param == "without one":
        yield shipped
        return
    with shipped.serve() as gateway:
        gateway.wait_ready()
        yield shipped
        assert gateway.stop() == 0
