"""Oracles (b) to (f) over the consecutive schema states of real projects, with rows in every table."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path
from typing import NoReturn

import pytest

from local_mcp_gateway.errors import SchemaProblem
from local_mcp_gateway.schema import compare, pull_module, pull_sql, read_module, read_sql
from tests.corpus.folders import FOLDERS, NotFetched, fetch
from tests.schema.corpus_states import CHANGING, COUNTED, Pair, pairs, states
from tests.schema.oracles import LETTERS, Verdict, judge
from tests.tally import Count

pytestmark = pytest.mark.corpus
LARGE = {"synapse-main", "prefect-alembic"}
"""Judged whole by `make nightly` alone: their steps take longer than all of the others' together."""


@pytest.fixture(scope="module")
def corpus(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return Path(request.config.cache.mkdir("corpus"))


def fetched(corpus: Path, name: str) -> Path:
    """Return a folder as its package has it; in CI one that cannot be fetched is a failure."""
    for folder in FOLDERS:
        if folder.name == name or (name == "synapse-main" and folder.name == "synapse-common"):
            try:
                fetch(folder, corpus)
            except NotFetched as why:
                absent(str(why))
    return corpus / name


def absent(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"not fetched: {why}")
    pytest.skip(f"not fetched: {why}")


def judged(pair: Pair) -> Verdict:
    """Judge one step; a plan that is refused counts as failed at every oracle."""
    try:
        return judge(pair.old, pair.new)
    except SchemaProblem as error:
        return Verdict(dict.fromkeys(LETTERS, error.message))


def passes(folder: Path, count: Count, each: int = 1) -> None:
    failed = {}
    steps = list(pairs(folder))
    for pair in steps[::each]:
        verdict = judged(pair)
        verdict.counted(count, COUNTED, f"{pair.folder}/{pair.step}")
        if verdict.failures:
            failed[pair.step] = verdict.failures
    assert failed == {}
    assert len(steps) == CHANGING[folder.name], "a step of the fixed denominator is not there"


@pytest.mark.parametrize("name", [name for name in CHANGING if name not in LARGE])
def test_every_step_of_a_real_folder_is_planned_with_every_row(
    corpus: Path, name: str, count: Count
) -> None:
    passes(fetched(corpus, name), count)


def test_some_steps_of_the_largest_folder_are_planned_with_every_row(
    corpus: Path, count: Count
) -> None:
    passes(fetched(corpus, "synapse-main"), count, each=20)


@pytest.mark.nightly
def test_every_step_of_the_largest_folder_is_planned_with_every_row(
    corpus: Path, count: Count
) -> None:
    passes(fetched(corpus, "synapse-main"), count)


@pytest.mark.nightly
def test_every_revision_of_prefect_is_planned_with_every_row(corpus: Path, count: Count) -> None:
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
            absent(str(why))
    passes(folder, count)


def test_the_denominator_is_the_whole_corpus() -> None:
    assert sum(CHANGING.values()) == 273


@pytest.mark.parametrize("name", [name for name in CHANGING if name != "prefect-alembic"])
def test_the_schema_of_a_real_project_is_pulled_both_ways(
    corpus: Path, name: str, tmp_path: Path
) -> None:
    *_, (_, schema, _) = states(fetched(corpus, name))
    (tmp_path / "pulled.sql").write_text(pull_sql(schema))
    (tmp_path / "pulled.py").write_text(pull_module(schema))
    assert compare(schema, read_sql(tmp_path / "pulled.sql")) == ()
    assert compare(schema, read_module(str(tmp_path / "pulled.py"))) == ()
