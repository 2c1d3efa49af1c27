"""Oracles (a) to (f) over the folders of `cases/`: old.sql, new.sql, and the plan that a person expects.

`-- rename: a=b` and `-- fill: t.c=SQL` at the top of new.sql are what the person who generates says.
With REWRITE_PLANS=1 in the environment the plans are written again, to be read in the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from local_mcp_gateway.schema.model import HazardKind
from local_mcp_gateway.schema.plan import make_plan
from local_mcp_gateway.schema.renames import Renames, parse_renames
from local_mcp_gateway.schema.source import read_sql
from tests.schema.oracles import judge

CASES = sorted((Path(__file__).parent / "cases").iterdir())


def said(file: Path, word: str) -> list[str]:
    return re.findall(rf"^-- {word}: (.+)$", file.read_text(), re.MULTILINE)


def fills_of(file: Path) -> dict[tuple[str, str], str]:
    found = {}
    for text in said(file, "fill"):
        place, _, value = text.partition("=")
        table, _, column = place.partition(".")
        found[table, column] = value
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_is_what_a_careful_person_would_have_written(case: Path) -> None:
    old, new = read_sql(case / "old.sql"), read_sql(case / "new.sql")
    renames = parse_renames(said(case / "new.sql", "rename"), old, new)
    plan = make_plan(old, new, renames=renames, fills=fills_of(case / "new.sql"))
    hazards = "".join(f"-- {hazard.kind}: {hazard.object}\n" for hazard in plan.hazards)
    text = hazards + "".join(f"{statement};\n" for statement in plan.statements)
    if os.environ.get("REWRITE_PLANS"):
        (case / "plan.sql").write_text(text)
    assert text == (case / "plan.sql").read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_reaches_the_schema_with_every_row_and_leads_back(case: Path) -> None:
    old, new = read_sql(case / "old.sql"), read_sql(case / "new.sql")
    renames = parse_renames(said(case / "new.sql", "rename"), old, new)
    verdict = judge(old, new, renames)
    assert verdict.failures == {}
    assert not [note for note in verdict.notes if note.startswith("unseeded")]


def test_a_plan_is_the_same_each_time() -> None:
    case = next(case for case in CASES if case.name == "rebuild_with_everything_on_it")
    old, new = read_sql(case / "old.sql"), read_sql(case / "new.sql")
    assert len({make_plan(old, new).sql for _ in range(5)}) == 1


def test_every_kind_of_hazard_is_shown_by_a_case() -> None:
    shown = {kind for case in CASES for kind in said_kinds(case / "plan.sql")}
    found_when_applied = {HazardKind.KEEPS_EXISTING.value}  # it depends on the database
    assert shown == {kind.value for kind in HazardKind} - found_when_applied


def said_kinds(file: Path) -> list[str]:
    return re.findall(r"^-- (\w+): ", file.read_text(), re.MULTILINE)


def test_nothing_to_decide_leaves_renames_empty() -> None:
    assert (
        parse_renames((), read_sql(CASES[0] / "old.sql"), read_sql(CASES[0] / "new.sql"))
        == Renames()
    )
