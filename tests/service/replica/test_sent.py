"""Moments as a person writes them, and what Litestream brings back for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from local_mcp_gateway.errors import ReplicaProblem, UsageProblem
from local_mcp_gateway.service.replica import fetch, moments, parse_moment
from tests.harness import Place
from tests.replicas import Replica, filled

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def test_a_moment_is_local_time_unless_it_says_otherwise() -> None:
    local = datetime(2026, 11, 28, 14, 3).astimezone()
    assert parse_moment("2026-11-28 14:03", NOW) == local
    assert parse_moment("2026-11-28T14:03:00Z", NOW) == datetime(2026, 11, 28, 14, 3, tzinfo=UTC)
    assert parse_moment("latest", NOW) is None


@pytest.mark.parametrize("text", ["", "yesterday", "14:03", "2026-13-01", "0001-01-01 00:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="is not a time"):
        parse_moment(text, NOW)


def test_the_future_is_refused() -> None:
    with pytest.raises(UsageProblem, match="in the future"):
        parse_moment("2026-11-29T12:00:02Z", NOW)


@pytest.mark.parametrize(
    "program",
    [
        "#!/bin/sh\necho litestream ltx: unknown command >&2; exit 1",  # as 0.3 does
        "#!/nowhere/sh",
        "no program",
        "#!/bin/sh\necho what it does not say",
    ],
)
def test_a_program_that_is_another_or_an_older_one_is_named(
    in_folder: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    fake = tmp_path / "litestream"
    fake.write_text(program)
    fake.chmod(0o700)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(
        ReplicaProblem, match=f"^{fake} is not a Litestream that can be used"
    ) as told:
        moments(in_folder.target)
    assert "pip install" in told.value.hint


def test_nothing_is_there_before_the_first_gateway(replica: Replica, tmp_path: Path) -> None:
    assert moments(replica.target) is None
    with pytest.raises(ReplicaProblem, match="Nothing is at"):
        fetch(replica.target, tmp_path / "restored.db")


def test_a_moment_before_the_first_is_refused(
    shipped: Place, in_folder: Replica, tmp_path: Path
) -> None:
    filled(shipped, in_folder)
    there = moments(in_folder.target)
    assert there is not None
    assert there.oldest <= there.newest
    with pytest.raises(ReplicaProblem, match="before the first moment of the replica"):
        fetch(
            in_folder.target, tmp_path / "restored.db", moment=there.oldest - timedelta(seconds=1)
        )
    assert not (tmp_path / "restored.db").exists()
