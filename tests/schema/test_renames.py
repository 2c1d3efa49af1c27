"""Renames are decided by a person, and carried out in an order in which no name is taken."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.schema import Renames, candidates, compare, inspect, parse_renames
from local_mcp_gateway.schema.renames import Candidate, statements
from tests.schema.read import schema_of

OLD = schema_of("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)")
NEW = schema_of("CREATE TABLE u (id INTEGER PRIMARY KEY, b, c)")


def test_every_pair_that_could_be_a_rename_is_a_question() -> None:
    assert [str(one) for one in candidates(OLD, NEW, Renames())] == ["t=u"]
    decided = Renames().with_(Candidate(None, "t", "u"))
    assert [str(one) for one in candidates(OLD, NEW, decided)] == ["u.a=u.c"]


def test_names_are_given_as_a_person_types_them() -> None:
    renames = parse_renames(["t=u", "T.a=T.c"], OLD, NEW)
    assert renames == Renames({"t": "u"}, {("u", "a"): "c"})
    assert renames.inverse() == Renames({"u": "t"}, {("t", "c"): "a"})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("t", "must look like"),
        ("t=t", "the two names are the same"),
        ("x=u", "there is no table x in the schema before"),
        ("t.x=t.c", "there is no column x in t before the change"),
        ("t.a=t.x", "there is no column x in t after the change"),
    ],
)
def test_a_rename_of_nothing_says_what_is_missing(text: str, why: str) -> None:
    with pytest.raises(UsageProblem, match=why):
        parse_renames(["t=u", text] if "." in text else [text], OLD, NEW)


def test_two_columns_can_swap_their_names() -> None:
    before, after = (
        schema_of("CREATE TABLE t (a INT, b TEXT)"),
        schema_of("CREATE TABLE t (b INT, a TEXT)"),
    )
    renames = Renames({}, {("t", "a"): "b", ("t", "b"): "a"})
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (a INT, b TEXT)")
        for statement in statements(renames, before, after):
            connection.execute(statement)
        assert compare(after, inspect(connection)) == ()
