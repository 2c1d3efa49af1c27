"""Programs from the registries, fetched once into pytest's cache: none is a dependency of this project."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def npm(config: pytest.Config, name: str, packages: Sequence[str]) -> Path:
    """Return the folder of the cache that holds these packages of Node.js."""
    options = ("--loglevel=error", "--no-audit", "--no-fund", "--legacy-peer-deps")
    return _ready(config, name, ("npm", "install", *options, *packages), "node", "npm")


def pip(config: pytest.Config, name: str, packages: Sequence[str]) -> Path:
    """Return the folder of the cache that holds these packages for this Python, for PYTHONPATH."""
    options = ("--quiet", "--no-warn-script-location", "--disable-pip-version-check", "--target=.")
    ours = f"{name}-{sys.implementation.cache_tag}"
    return _ready(config, ours, (sys.executable, "-m", "pip", "install", *options, *packages))


def source(config: pytest.Config, name: str, package: str) -> Path:
    """Return the folder of the cache that holds the source of a package of PyPI."""
    project, pip = package.partition("==")[0], f"{sys.executable} -m pip download --quiet"
    script = f"{pip} --no-deps --no-binary {project} {package} && tar xzf {project}-*.tar.gz --strip-components=1"
    return _ready(config, name, ("sh", "-c", script), "tar")


def program(config: pytest.Config, name: str, url: str, file: str, packages: Sequence[str]) -> Path:
    """Return the folder of the cache that holds a program of one file, and its packages of Node.js."""
    npm = "npm install --loglevel=error --no-audit --no-fund"
    script = f"curl -fsSL --max-time 60 -o {file} {url} && {npm} {' '.join(packages)}"
    return _ready(config, name, ("sh", "-c", script), "curl", "npm")


def debian(config: pytest.Config, name: str, package: str) -> Path:
    """Return the folder of the cache that holds a package of the distribution, unpacked."""
    download = f"apt-get download --quiet=2 {package}"
    script = (
        f"{{ {download} || {{ apt-get update --quiet=2 && {download}; }}; }} && dpkg-deb -x *.deb ."
    )
    return _ready(config, name, ("sh", "-c", script), "apt-get", "dpkg-deb")


def _ready(config: pytest.Config, name: str, command: tuple[str, ...], *programs: str) -> Path:
    """Run the command once in the folder of this name; skip (in CI: fail) where that is impossible.

    Workers take turns: two of them may want the same folder.
    """
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    folder = Path(str(config.cache.mkdir(name)))
    complete = folder / "complete"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists() or complete.read_text() != " ".join(command):
            (folder / "package.json").write_text('{"private": true, "type": "module"}')
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode:
                said = f"{command[0]}: {(done.stderr or done.stdout).strip()[-300:]}"
                if os.environ.get("CI"):
                    pytest.fail(said)
                pytest.skip(said)
            complete.write_text(" ".join(command))
    return folder
