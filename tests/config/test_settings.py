"""Every setting has a default, and the shipped file lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from local_mcp_gateway.config import Settings, list_keys, load_settings
from tests.harness import REPOSITORY


def test_without_any_source_the_defaults_hold() -> None:
    assert load_settings(environment={"HOME": "/nowhere"}) == Settings()


def test_the_shipped_file_is_the_list_of_all_defaults(tmp_path: Path) -> None:
    shipped = (REPOSITORY / "config" / "gateway.toml").read_text()
    active = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", shipped)
    file = tmp_path / "all.toml"
    file.write_text(active)
    settings = load_settings(file, environment={})
    for key in list_keys():
        assert getattr(getattr(settings, key.section), key.name) == key.default


def test_under_systemd_the_database_is_in_the_state_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/gateway:/other")
    assert load_settings(environment={}).database_path == Path(
        "/var/lib/gateway/local-mcp-gateway.db"
    )
