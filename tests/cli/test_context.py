"""The context of a command: settings are read when they are needed, and a signal stops the work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from local_mcp_gateway.cli.context import Invocation, stop_on_signals
from local_mcp_gateway.errors import ConfigProblem


def test_a_missing_file_is_a_problem_only_where_settings_are_needed(tmp_path: Path) -> None:
    invocation = Invocation(tmp_path / "none.toml", {})
    with pytest.raises(ConfigProblem, match="does not exist"):
        _ = invocation.settings


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[database]\npath = 'file.db'\n[migrations]\nfolder = '/m'\n")
    invocation = Invocation(file, {"database.path": str(tmp_path / "option.db")})
    assert invocation.database == tmp_path / "option.db"
    assert invocation.migrations == Path("/m")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_work_to_stop_and_the_handler_goes_afterwards(number: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(5)
    assert signal.getsignal(number) is before
