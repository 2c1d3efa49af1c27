"""Oracles (b) to (f) over the consecutive schema states of real projects, with rows in every table."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest

from local_mcp_gateway.errors import SchemaProblem
from tests.corpus.folders import FOLDERS, NotFetched, fetch
from tests.schema.corpus_states import CHANGING, pairs
from tests.schema.oracles import Verdict, judge, totals

pytestmark = pytest.mark.corpus


@pytest.fixture(scope="module")
def corpus(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return Path(request.config.cache.mkdir("corpus"))


def fetched(corpus: Path, name: str) -> Path:
    for folder in FOLDERS:
        if folder.name == name or (name == "synapse-main" and folder.name == "synapse-common"):
            try:
                fetch(folder, corpus)
            except NotFetched as why:
                pytest.skip(f"the corpus cannot be fetched: {why}")
    return corpus / name


def judged(folder: Path) -> dict[str, Verdict]:
    """Judge every pair of a folder; a plan that is refused counts as failed at every oracle."""
    verdicts: dict[str, Verdict] = {}
    for pair in pairs(folder):
        try:
            verdicts[pair.step] = judge(pair.old, pair.new)
        except SchemaProblem as error:
            verdicts[pair.step] = Verdict(dict.fromkeys("bcdef", error.message))
    return verdicts


def passes(folder: Path, fixed: int) -> None:
    verdicts = judged(folder)
    failed = {step: verdict.failures for step, verdict in verdicts.items() if verdict.failures}
    said = f"{folder.name}: {totals(verdicts)} (fixed denominator {fixed})"
    print(said, failed or "")  # noqa: T201  the numbers are the result: `pytest -s -m corpus`
    assert len(verdicts) >= fixed
    assert failed == {}


@pytest.mark.parametrize("name", [name for name in CHANGING if name != "prefect-alembic"])
def test_every_step_of_a_real_folder_is_planned_with_every_row(corpus: Path, name: str) -> None:
    passes(fetched(corpus, name), CHANGING[name])


@pytest.mark.nightly
def test_every_revision_of_prefect_is_planned_with_every_row(corpus: Path) -> None:
    folder = corpus / "prefect-alembic"
    if not (folder / "_states.json").exists():
        folder.mkdir(exist_ok=True)
        venv.create(folder / "_venv", with_pip=True)
        python = folder / "_venv" / "bin" / "python"
        script = Path(__file__).with_name("prefect_states.py")
        try:
            for command in (
                ["-m", "pip", "install", "-q", "prefect==3.9.1"],
                [str(script), str(folder)],
            ):
                subprocess.run(
                    [str(python), *command], check=True, capture_output=True, timeout=900
                )
        except subprocess.SubprocessError as why:
            pytest.skip(f"prefect cannot be installed: {why}")
    passes(folder, CHANGING["prefect-alembic"])


def test_the_denominator_is_the_whole_corpus() -> None:
    assert sum(CHANGING.values()) == 273
