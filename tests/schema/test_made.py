"""The oracles over schema pairs that Hypothesis makes: a sample always, 5,000 in the nightly run."""

from __future__ import annotations

import hashlib
import sqlite3

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from local_mcp_gateway.schema import compare, fingerprint
from local_mcp_gateway.schema.plan import make_plan, schema_copy
from local_mcp_gateway.schema.renames import parse_renames
from tests.schema.made import Pair, pairs, renamed_pairs, schemas
from tests.schema.made_schema import S
from tests.schema.oracles import judge
from tests.tally import Count

pytestmark = pytest.mark.skipif(
    sqlite3.sqlite_version_info < (3, 37),
    reason="the made schemas use STRICT, which needs SQLite 3.37",
)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def judge_all(made: st.SearchStrategy[Pair], examples: int, count: Count, line: str) -> int:
    """Run every oracle over so many made pairs; return how many of them were different ones.

    A sample is the same each time, since CI has to be; a nightly run goes where none has been.
    """
    seen: set[str] = set()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples < 1_000,
        suppress_health_check=SLOW,
    )
    @given(made)
    def each(pair: Pair) -> None:
        old, new, renames = pair
        text = "\n".join([*old.sql(), "---", *new.sql(), "---", *renames])
        note(text)
        before, after = old.schema(), new.schema()
        verdict = judge(before, after, parse_renames(renames, before, after))
        note(verdict.plan.sql if verdict.plan else "no plan")
        note(str(verdict.notes))
        seen.add(case := hashlib.sha256(text.encode()).hexdigest()[:16])
        verdict.counted(count, line, case)
        assert verdict.failures == {}

    each()
    return len(seen)


def test_a_sample_of_made_pairs_passes_every_oracle(count: Count) -> None:
    assert judge_all(pairs(), 40, count, "made schema pairs, a sample") > 30


def test_a_sample_of_made_renames_passes_every_oracle(count: Count) -> None:
    assert judge_all(renamed_pairs(), 25, count, "made schema pairs with renames, a sample") > 15


@pytest.mark.nightly
def test_five_thousand_made_pairs_pass_every_oracle(count: Count) -> None:
    assert judge_all(pairs(), 6_000, count, "made schema pairs") >= 5_000


@pytest.mark.nightly
def test_two_thousand_made_renames_pass_every_oracle(count: Count) -> None:
    assert judge_all(renamed_pairs(), 2_600, count, "made schema pairs with renames") >= 2_000


@given(schemas())
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_a_schema_is_the_same_as_its_copy_and_needs_no_plan(made: S) -> None:
    schema = made.schema()
    copy = schema_copy(schema)
    copy.close()
    assert compare(schema, made.schema()) == ()
    assert fingerprint(schema) == fingerprint(made.schema())
    assert make_plan(schema, made.schema()).statements == ()
