"""Servers started by `npx` and `uvx` in a home that has never seen them, under the unit's hardening.

Both download what they run, into folders that the unit has to leave writable.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fetched import pip
from tests.service.machine import REASON, Installed

pytestmark = [
    pytest.mark.npm,
    pytest.mark.skipif(bool(REASON), reason=REASON or "can run here"),
]
MEMORY = "@modelcontextprotocol/server-memory@2026.8.31"
OF_THE_MACHINE = ("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_DEFAULT_INDEX", "UV_INDEX", "HTTPS_PROXY")
"""How the registry is reached from here, where it is not as everywhere."""
PATIENCE = '[upstream]\nconnect_timeout_s = 90.0\n[log]\nlevel = "debug"\n'


@pytest.fixture
def patient(installed: Installed) -> Installed:
    installed.config.write_text(installed.config.read_text() + PATIENCE)
    installed.run("service", "install")
    return installed


@pytest.fixture
def npx() -> str:
    """Return the command, where the registry has the server."""
    command = shutil.which("npx")
    if command is None:
        pytest.skip("needs npx")
    asked = subprocess.run(
        ["npm", "view", MEMORY, "version"], capture_output=True, text=True, timeout=60, check=False
    )
    if asked.returncode:
        said = f"npm: {asked.stderr.strip()[-300:]}"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return command


@pytest.fixture
def uvx(pytestconfig: pytest.Config, installed: Installed) -> str:
    """Return the command, where the service can see it."""
    fetched = pip(pytestconfig, "pip-uv", ("uv==0.13.9",))
    home = installed.home / "uv"
    home.mkdir()
    for name in ("uv", "uvx"):
        shutil.copy(fetched / "bin" / name, home / name)
    return str(home / "uvx")


def test_a_server_started_by_npx_answers(patient: Installed, npx: str) -> None:
    patient.run("server", "add", "memory", "--no-test", "--", npx, "--yes", MEMORY)
    graph = json.loads(patient.run("call", "read_graph").stdout)
    assert graph == {"entities": [], "relations": []}
    assert (patient.home / ".npm" / "_npx").is_dir()


def test_a_server_started_by_uvx_answers(patient: Installed, uvx: str) -> None:
    python = os.path.realpath(sys.executable)
    where = [f"--env={name}={os.environ[name]}" for name in OF_THE_MACHINE if name in os.environ]
    patient.run(
        "server",
        "add",
        "clock",
        "--no-test",
        *where,
        "--",
        uvx,
        "--python",
        python,
        "mcp-server-time",
    )
    told = json.loads(patient.run("call", "get_current_time", "timezone=UTC").stdout)
    assert told["timezone"] == "UTC"
    assert Path(patient.home, ".cache", "uv").is_dir()
