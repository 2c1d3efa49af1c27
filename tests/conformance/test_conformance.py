"""The official conformance suite: through the gateway as directly, check by check."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conformance.makes import MAKES, sides_of
from tests.conformance.sides import compare, row, sides
from tests.conformance.suite import REVISIONS
from tests.gateway.support import REPOSITORY
from tests.tally import Count

SAMPLE = ["2025-11-25", "2026-07-28"]
"""The newest revision of each era; the nightly run has all."""
EVERY = [
    revision if revision in SAMPLE else pytest.param(revision, marks=pytest.mark.nightly)
    for revision in REVISIONS
]


@pytest.mark.parametrize("revision", EVERY)
async def test_every_check_ends_as_it_does_directly(
    tmp_path: Path, suite: tuple[str, ...], count: Count, revision: str
) -> None:
    told = (REPOSITORY / "docs" / "gateway.md").read_text()
    async with sides(tmp_path) as urls:
        result = await compare(suite, urls, revision)
        repeated = result.repeated
        if row(revision, result.found) not in told:  # under load deadlines are missed on all sides
            repeated = [*repeated, f"{revision}, all of it: {row(revision, result.found)}"]
            result = await compare(suite, urls, revision)
            repeated += result.repeated
    for sentence in repeated:
        count("conformance, run again", f"× {sentence}", sentence)
    assert result.differing == []
    assert row(revision, result.found) in told


@pytest.mark.nightly
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("make", MAKES)
async def test_every_check_ends_so_before_a_server_of_other_make_too(
    pytestconfig: pytest.Config, tmp_path: Path, suite: tuple[str, ...], make: str, revision: str
) -> None:
    told = (REPOSITORY / "docs" / "gateway.md").read_text()
    server = await asyncio.to_thread(MAKES[make], pytestconfig)
    async with sides_of(server, tmp_path) as urls:
        result = await compare(suite, urls, revision)
    assert result.differing == []
    assert row(f"{make}, {revision}", result.found) in told
