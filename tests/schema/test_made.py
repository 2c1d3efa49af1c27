"""The oracles over schema pairs that Hypothesis makes: a sample always, 5,000 in the nightly run."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, note, settings

from local_mcp_gateway.schema import compare, fingerprint
from local_mcp_gateway.schema.plan import make_plan, schema_copy
from local_mcp_gateway.schema.renames import parse_renames
from tests.schema.made import S, pairs, renamed_pairs, schemas
from tests.schema.oracles import judge

pytestmark = pytest.mark.skipif(
    sqlite3.sqlite_version_info < (3, 37),
    reason="the made schemas use STRICT, which needs SQLite 3.37",
)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def judged(old: S, new: S, renames: Sequence[str] = ()) -> None:
    note("\n".join([*old.sql(), "---", *new.sql(), "---", *renames]))
    before, after = old.schema(), new.schema()
    verdict = judge(before, after, parse_renames(renames, before, after))
    note(verdict.plan.sql if verdict.plan else "no plan")
    note(str(verdict.notes))
    assert verdict.failures == {}


@given(pairs())
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_a_sample_of_made_pairs_passes_every_oracle(pair: tuple[S, S]) -> None:
    judged(*pair)


@pytest.mark.nightly
@given(pairs())
@settings(max_examples=5_000, deadline=None, suppress_health_check=SLOW)
def test_five_thousand_made_pairs_pass_every_oracle(pair: tuple[S, S]) -> None:
    judged(*pair)


@given(renamed_pairs())
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_a_sample_of_made_renames_passes_every_oracle(made: tuple[S, S, list[str]]) -> None:
    judged(*made)


@pytest.mark.nightly
@given(renamed_pairs())
@settings(max_examples=2_000, deadline=None, suppress_health_check=SLOW)
def test_two_thousand_made_renames_pass_every_oracle(made: tuple[S, S, list[str]]) -> None:
    judged(*made)


@given(schemas())
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_a_schema_is_the_same_as_its_copy_and_needs_no_plan(made: S) -> None:
    schema = made.schema()
    copy = schema_copy(schema)
    copy.close()
    assert compare(schema, made.schema()) == ()
    assert fingerprint(schema) == fingerprint(made.schema())
    assert make_plan(schema, made.schema()).statements == ()
