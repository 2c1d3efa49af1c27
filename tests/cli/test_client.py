"""Options of the form KEY=VALUE, and questions that need a terminal."""

from __future__ import annotations

import pytest

from local_mcp_gateway.cli.client import complete_pairs, confirm, pairs
from local_mcp_gateway.errors import NotConfirmed, UsageProblem


def test_a_value_may_hold_the_separator_and_a_lone_key_removes() -> None:
    assert pairs(["A=b=c", "D", "E="], "--env") == {"A": "b=c", "D": None, "E": ""}


def test_a_header_is_written_with_either_separator_and_its_value_is_stripped() -> None:
    given = ["Authorization: Bearer x", "X-User= y"]
    assert pairs(given, "--header", separators=":=") == {
        "Authorization": "Bearer x",
        "X-User": " y",
    }


@pytest.mark.parametrize("value", ["=b", "", " "])
def test_a_value_without_a_name_is_refused(value: str) -> None:
    with pytest.raises(UsageProblem, match="has no name") as refused:
        pairs([value], "--env")
    assert refused.value.hint == "Write --env KEY=VALUE."


def test_a_key_without_a_value_is_refused_where_it_needs_one() -> None:
    assert complete_pairs(["A=1"], "--fill") == {"A": "1"}
    with pytest.raises(UsageProblem, match="--fill A has no value"):
        complete_pairs(["A"], "--fill")


def test_without_a_terminal_only_yes_confirms(capsys: pytest.CaptureFixture[str]) -> None:
    confirm("Remove it?", yes=True)
    with pytest.raises(NotConfirmed):
        confirm("Remove it?", yes=False)
