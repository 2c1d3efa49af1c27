"""`service` where there is no systemd; with one it is tested in tests/service/systemd."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Place


@pytest.mark.parametrize("command", ["install", "status", "start", "stop", "restart"])
def test_without_systemd_a_command_says_so_and_writes_nothing(
    shipped: Place, tmp_path: Path, command: str
) -> None:
    before = sorted(shipped.root.rglob("*"))
    done = shipped.run("service", command, env={"PATH": str(tmp_path)})
    assert done.code == 7
    assert "`systemctl` is not installed here." in done.stderr
    assert "run `serve` under another supervisor" in done.stderr
    assert sorted(shipped.root.rglob("*")) == before


def test_without_systemd_there_is_nothing_to_uninstall_and_the_data_stays(
    shipped: Place, tmp_path: Path
) -> None:
    done = shipped.run("service", "uninstall", env={"PATH": str(tmp_path)})
    assert done.code == 0
    assert str(shipped.database) in done.stdout
