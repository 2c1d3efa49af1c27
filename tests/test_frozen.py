"""A value behaves as the frozen dataclass that it stands for."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.frozen import frozen


@frozen
class Fast:
    """Made by `frozen`."""

    one: int
    two: str = "two"
    three: tuple[int, ...] = field(default_factory=tuple, metadata={"help": "three"})


@dataclass(frozen=True)
class Plain:
    """Made by the standard library."""

    one: int
    two: str = "two"
    three: tuple[int, ...] = field(default_factory=tuple, metadata={"help": "three"})


NAMES = st.sampled_from(["one", "two", "three", "four"])


@given(
    st.lists(st.integers() | st.text(), max_size=4),
    st.dictionaries(NAMES, st.integers() | st.text(), max_size=4),
)
def test_it_takes_the_arguments_that_a_dataclass_takes(
    given_values: list[Any], named: dict[str, Any]
) -> None:
    def tried(make: Callable[..., Any]) -> tuple[object, ...]:
        try:
            made = make(*given_values, **named)
        except TypeError:
            return ("TypeError",)
        return (asdict(made), repr(made).partition("(")[2], hash(made))

    assert tried(Fast) == tried(Plain)


def test_equal_fields_are_equal_values_and_other_classes_never_are() -> None:
    assert Fast(1) == Fast(1, "two", ())
    assert Fast(1) != Fast(2)
    assert Fast(1) != cast("object", Plain(1))
    assert {Fast(1): "found"}[Fast(1)] == "found"


def test_it_cannot_be_changed() -> None:
    made = Fast(1)
    with pytest.raises(FrozenInstanceError):
        made.one = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        made.four = 4  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        del made.one
    assert made == Fast(1)


def test_the_standard_library_takes_it_for_a_dataclass() -> None:
    made = Fast(1)
    assert [entry.name for entry in fields(made)] == ["one", "two", "three"]
    assert fields(made)[2].metadata == {"help": "three"}
    assert replace(made, two="2") == Fast(1, "2")
    assert copy.copy(made) == pickle.loads(pickle.dumps(made)) == made
    match made:
        case Fast(one, two):
            assert (one, two) == (1, "two")


def test_a_mistake_names_the_class_and_its_fields() -> None:
    with pytest.raises(TypeError, match="Fast needs one"):
        Fast()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Fast takes one, two, three, each once"):
        Fast(1, four=4)  # type: ignore[call-arg]
