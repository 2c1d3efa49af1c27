"""Programs of the npm registry, fetched once into pytest's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def installed(config: pytest.Config, name: str, packages: tuple[str, ...]) -> Path:
    """Return the folder that holds these packages; skip where Node.js or the registry is missing."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    folder = Path(str(config.cache.mkdir(name)))
    wanted = " ".join(packages)
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != wanted:
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        options = ("--silent", "--no-audit", "--no-fund")
        done = subprocess.run(
            ["npm", "install", *options, *packages],
            cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-300:]
            if os.environ.get("CI"):
                pytest.fail(f"npm install: {said}")
            pytest.skip(f"npm install failed: {said}")
        complete.write_text(wanted)
    return folder
