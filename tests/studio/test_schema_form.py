"""A form from a JSON Schema, and the arguments that come back."""

from __future__ import annotations

from typing import Any

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.schema_form import Field, arguments_of, fields_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["city", "where"],
    "properties": {
        "days": {"type": "integer", "minimum": 1, "default": 3},
        "city": {"type": "string", "maxLength": 40},
        "unit": {"enum": ["C", "F", 1, None]},
        "exact": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "where": {"$ref": "#/$defs/Place"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        "free": {"type": "object"},
    },
    "$defs": {
        "Place": {
            "type": "object",
            "properties": {
                "lat": {"type": "number"},
                "inner": {"$ref": "#/$defs/Place"},
            },
        }
    },
}


def form(**values: str) -> dict[str, list[str]]:
    return {
        Field(tuple(name.split("__")), *("",) * 2, False, *("",) * 3).name: [text]
        for name, text in values.items()
    }


def kinds() -> dict[str, str]:
    return {".".join(field.path): field.kind for field in fields_of(SCHEMA)}


def test_each_property_gets_the_field_that_fits_it_and_required_ones_come_first() -> None:
    found = kinds()
    assert list(found)[:2] == ["city", "where"]
    assert found["days"] == "number"
    assert found["unit"] == "choice"
    assert found["exact"] == "yesno"
    assert found["tags"] == "list"
    assert found["maybe"] == "text"
    assert found["either"] == found["free"] == "json"


def test_a_schema_that_refers_to_itself_ends_in_a_field_for_json() -> None:
    assert kinds()["where.inner.inner.inner"] == "json"


def test_what_was_left_empty_is_left_out_and_the_rest_has_its_type() -> None:
    given = form(
        city="Bern",
        days="2",
        unit="1",
        exact="false",
        tags="a\nb\n",
        where__lat="4.5",
        maybe="",
        free='{"x": [1]}',
    )
    assert arguments_of(SCHEMA, given) == {
        "city": "Bern",
        "days": 2,
        "unit": 1,
        "exact": False,
        "tags": ["a", "b"],
        "where": {"lat": 4.5},
        "free": {"x": [1]},
    }
    assert arguments_of(SCHEMA, form(city='""')) == {"city": ""}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (form(days="two"), "days is not JSON"),
        (form(days="2.5"), "not a whole number"),
        (form(days="true"), "not a number"),
        (form(free="{"), "free is not JSON"),
        ({"document": ["[1]"]}, "not a JSON object"),
        ({"document": ['{"a": NaN}']}, "not JSON"),
        ({"document": ["[" * 100_000]}, "arguments"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    given: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(UsageProblem, match=said):
        arguments_of(SCHEMA, given)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        [],
        {"properties": []},
        {"properties": {"a": True, "b": None, "c": {"$ref": "#/nowhere"}, "d": {"type": 5}}},
        {"properties": {"a": {"$ref": "#/properties/a"}}, "required": "a"},
        {"properties": {"a": {"anyOf": "x"}, "b": {"items": 3, "type": "array"}}},
    ],
)
def test_a_malformed_schema_still_gives_a_form(schema: Any) -> None:
    assert all(field.kind for field in fields_of(schema))


def test_a_deep_and_a_wide_schema_give_a_form_of_bounded_size() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        deep = {"type": "object", "properties": {"a": deep}}
    assert len(fields_of(deep)) == 4
    wide = {"properties": {f"p{i}": {"type": "string"} for i in range(5000)}}
    assert len(fields_of(wide)) == 200
