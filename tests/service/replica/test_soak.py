"""A few seconds of the soak: Litestream and its gateway are killed, and nothing that was sent is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.object_store import KEYS
from tests.service.replica.soak import PLACES, soak


@pytest.mark.nightly
@pytest.mark.parametrize("where", PLACES)
def test_what_comes_back_after_each_kill_has_all_but_the_shown_lag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    tally = soak(tmp_path, seconds=0, kinds=("litestream", "both"), where=where)
    assert tally.wrong == []
    assert tally.faults == {"litestream": 1, "both": 1}
    assert tally.rows > 100
