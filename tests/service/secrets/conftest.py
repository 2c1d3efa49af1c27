"""The places of the keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.service.secrets.keyring import CREDENTIAL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "local-mcp-gateway" / "secrets.key"


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The credential as systemd puts it there, not yet written."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder / CREDENTIAL
