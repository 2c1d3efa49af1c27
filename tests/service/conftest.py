"""Fixtures of the service's tests: what they hand out is in `machine.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.machine import Installed, new_home, new_machine


@pytest.fixture
def home() -> Iterator[Path]:
    with new_home() as home:
        yield home


@pytest.fixture
def installed(home: Path) -> Iterator[Installed]:
    with new_machine(home) as machine:
        yield machine
