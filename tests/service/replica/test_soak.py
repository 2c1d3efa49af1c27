"""A few seconds of the soak: Litestream and its gateway are killed, and nothing that was sent is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.object_store import KEYS
from tests.service.replica.soak import soak


@pytest.mark.nightly
def test_what_comes_back_after_each_kill_has_all_but_the_shown_lag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    tally = soak(tmp_path, seconds=0, kinds=("litestream", "both"))
    assert tally.wrong == []
    assert tally.faults == {"litestream": 1, "both": 1}
    assert tally.rows > 100
