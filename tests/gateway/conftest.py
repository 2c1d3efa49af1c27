"""The notes server of `examples/`, over HTTP, once for all tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.gateway.support import REPOSITORY


@pytest.fixture(scope="session")
def notes_url() -> Iterator[str]:
    script = REPOSITORY / "examples" / "notes_server.py"
    command = [sys.executable, str(script), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()
