"""The oracles over schema pairs that Hypothesis makes: a sample always, 5,000 in the nightly run."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import HealthCheck, given, note, settings

from local_mcp_gateway.schema import compare, fingerprint
from local_mcp_gateway.schema.plan import make_plan, schema_copy
from tests.schema.made import S, pairs, schemas
from tests.schema.oracles import judge

pytestmark = pytest.mark.skipif(
    sqlite3.sqlite_version_info < (3, 37),
    reason="the made schemas use STRICT, which needs SQLite 3.37",
)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def judged(pair: tuple[S, S]) -> None:
    old, new = pair
    note("\n".join([*old.sql(), "---", *new.sql()]))
    verdict = judge(old.schema(), new.schema())
    note(verdict.plan.sql if verdict.plan else "no plan")
    note(str(verdict.notes))
    assert verdict.failures == {}


@given(pairs())
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_a_sample_of_made_pairs_passes_every_oracle(pair: tuple[S, S]) -> None:
    judged(pair)


@pytest.mark.nightly
@given(pairs())
@settings(max_examples=5_000, deadline=None, suppress_health_check=SLOW)
def test_five_thousand_made_pairs_pass_every_oracle(pair: tuple[S, S]) -> None:
    judged(pair)


@given(schemas())
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_a_schema_is_the_same_as_its_copy_and_needs_no_plan(made: S) -> None:
    schema = made.schema()
    copy = schema_copy(schema)
    copy.close()
    assert compare(schema, made.schema()) == ()
    assert fingerprint(schema) == fingerprint(made.schema())
    assert make_plan(schema, made.schema()).statements == ()
