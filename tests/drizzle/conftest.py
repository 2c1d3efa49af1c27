"""The real drizzle-orm and drizzle-kit, fetched once by npm into pytest's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.drizzle.toolbox import ONE, ZERO, Toolbox


def _installed(config: pytest.Config, name: str, packages: tuple[str, ...]) -> Toolbox:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    folder = Path(str(config.cache.mkdir(f"drizzle-{name}")))
    if not (folder / "complete").exists():
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", *packages]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-300:]
            if os.environ.get("CI"):
                pytest.fail(f"npm install: {said}")
            pytest.skip(f"npm install failed: {said}")
        (folder / "complete").touch()
    return Toolbox(folder)


@pytest.fixture(scope="session")
def zero(pytestconfig: pytest.Config) -> Toolbox:
    """drizzle-orm and drizzle-kit of the line that npm calls latest."""
    return _installed(pytestconfig, "0", ZERO)


@pytest.fixture(scope="session")
def one(pytestconfig: pytest.Config) -> Toolbox:
    """drizzle-orm 1.x, whose folders and ledger look different."""
    return _installed(pytestconfig, "1", ONE)
