"""Items of lists are validated against the specification's schema, as the official clients do."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pydantic
import pytest
from mcp import types

from local_mcp_gateway.gateway.catalog.item_schema import Validated, validate
from local_mcp_gateway.gateway.catalog.items import Item
from local_mcp_gateway.store.model import CatalogKind

TOOLS, RESOURCES = CatalogKind.TOOLS, CatalogKind.RESOURCES
OBJECT = {"type": "object"}


def tool(**members: Any) -> dict[str, Any]:
    return {"name": "odd", "inputSchema": OBJECT, **members}


def resource(**members: Any) -> dict[str, Any]:
    return {"uri": "it://1", "name": "odd", **members}


def validated(kind: CatalogKind, item: dict[str, Any]) -> Validated:
    return validate(kind, [Item("odd", json.dumps(item).encode())])


REPAIRED = [
    *((TOOLS, tool(**{key: None}), tool()) for key in ("description", "title", "annotations")),
    *((TOOLS, tool(**{key: None}), tool()) for key in ("outputSchema", "_meta", "icons")),
    (
        TOOLS,
        tool(annotations={"readOnlyHint": None, "title": "x"}),
        tool(annotations={"title": "x"}),
    ),
    (TOOLS, tool(inputSchema={}), tool()),
    (TOOLS, tool(inputSchema={"type": None}), tool()),
    (TOOLS, tool(inputSchema={**OBJECT, "required": None, "properties": None}), tool()),
    (TOOLS, tool(icons=[{"src": "a", "theme": None}]), tool(icons=[{"src": "a"}])),
    (TOOLS, tool(outputSchema={"properties": None}), tool(outputSchema=OBJECT)),
    (RESOURCES, resource(size=None, mimeType=None), resource()),
    (RESOURCES, resource(annotations={"audience": None}), resource(annotations={})),
    (
        CatalogKind.PROMPTS,
        {"name": "odd", "arguments": [{"name": "a", "description": None, "required": None}]},
        {"name": "odd", "arguments": [{"name": "a"}]},
    ),
    (
        CatalogKind.RESOURCE_TEMPLATES,
        {"uriTemplate": "it://{a}", "name": "odd", "mimeType": None},
        {"uriTemplate": "it://{a}", "name": "odd"},
    ),
]


@pytest.mark.parametrize(("kind", "item", "repaired"), REPAIRED)
def test_an_item_is_repaired_where_only_one_repair_is_possible(
    kind: CatalogKind, item: dict[str, Any], repaired: dict[str, Any]
) -> None:
    found = validated(kind, item)
    assert [json.loads(each.raw) for each in found.items] == [repaired]
    assert found.problems == ()


LEFT_OUT = [
    (TOOLS, tool(inputSchema=None), "it has no inputSchema"),
    (TOOLS, tool(inputSchema={"type": "string"}), "inputSchema.type: invalid enum value 'string'"),
    (TOOLS, tool(description=5), "description: expected `str`, got `int`"),
    (
        TOOLS,
        tool(annotations={"readOnlyHint": "true"}),
        "annotations.readOnlyHint: expected `bool`, got `str`",
    ),
    (RESOURCES, {"uri": "it://1"}, "it has no name"),
    (RESOURCES, resource(uri="no address"), "uri: expected a uri"),
    (RESOURCES, resource(size=1.5), "size: expected `int`, got `float`"),
    (
        RESOURCES,
        resource(annotations={"priority": 2}),
        "annotations.priority: expected `float` <= 1.0",
    ),
    (
        RESOURCES,
        resource(annotations={"lastModified": "yesterday"}),
        "annotations.lastModified: expected a date-time",
    ),
    (
        CatalogKind.PROMPTS,
        {"name": "odd", "arguments": [{"name": "a", "required": "yes"}]},
        "arguments[0].required: expected `bool`, got `str`",
    ),
]


@pytest.mark.parametrize(("kind", "item", "why"), LEFT_OUT)
def test_an_item_that_no_client_can_read_is_left_out_and_told(
    kind: CatalogKind, item: dict[str, Any], why: str
) -> None:
    assert validated(kind, item) == Validated((), (f"'odd' is left out: {why}",))


def test_a_valid_item_keeps_its_bytes() -> None:
    raw = (
        b'{ "name": "a", "inputSchema":{"type":"object","properties":{"x":{"default":null,'
        b'"maximum":1e400}}}, "new": null, "_meta":{"y":null} }'
    )
    assert validate(TOOLS, [Item("a", raw)]) == Validated((Item("a", raw),), ())


@pytest.mark.parametrize(
    "twice",
    [
        b'{"name":"odd","description":"a","inputSchema":{"type":"object"},"description":"b"}',
        b'{"name":"odd","inputSchema":{"type":"object","properties":{"x":{"maximum":1e400},"x":{"maximum":1e401}}}}',
        b'{"name":"odd","inputSchema":{"type":"object","allOf":[{"a":1,"b":2,"\\u0061":[3]}]}}',
    ],
)
def test_of_a_member_that_stands_twice_only_the_last_is_listed(twice: bytes) -> None:
    """Some clients would read the first, which is not what was compared with the approved tool."""
    (found,) = validate(TOOLS, [Item("odd", twice)]).items
    assert json.loads(found.raw) == json.loads(twice)
    assert json.loads(found.raw, object_pairs_hook=len) == json.loads(
        twice, object_pairs_hook=lambda pairs: len(dict(pairs))
    )
    assert validate(TOOLS, [Item("odd", twice)]).problems == (
        "'odd' has a member that appears twice: the last one counts",
    )


def test_the_name_of_a_member_is_listed_without_escapes() -> None:
    escaped = rb'{"name":"odd","inputSchema":{"type":"object"},"_meta":{"\u0075i/resourceUri":"ui:\u002f/a"}}'
    (found,) = validate(TOOLS, [Item("odd", escaped)]).items
    assert b'{"ui/resourceUri":"ui:\\u002f/a"}' in found.raw


def test_what_the_official_client_reads_is_what_is_listed() -> None:
    """The SDK's models are stricter in nothing that is listed."""
    models = {
        TOOLS: pydantic.TypeAdapter[Any](types.Tool),
        RESOURCES: pydantic.TypeAdapter[Any](types.Resource),
        CatalogKind.PROMPTS: pydantic.TypeAdapter[Any](types.Prompt),
        CatalogKind.RESOURCE_TEMPLATES: pydantic.TypeAdapter[Any](types.ResourceTemplate),
    }
    for kind, item, _ in REPAIRED:
        (found,) = validated(kind, item).items
        models[kind].validate_json(found.raw)
    with pytest.raises(pydantic.ValidationError):
        types.Tool.model_validate(tool(inputSchema=None))


def test_the_schema_uses_no_rule_that_is_not_enforced() -> None:
    """Whoever takes a newer schema has to teach the gateway the keywords that are new in it."""
    from local_mcp_gateway.gateway.catalog import item_schema

    known = {
        *("$ref", "type", "properties", "required", "items", "additionalProperties"),
        *("enum", "const", "format", "minimum", "maximum"),
    }
    text = item_schema.SCHEMA.read_bytes()
    for definitions in msgspec.json.decode(text).values():
        todo: list[Any] = [*definitions.values()]
        while todo:
            schema = todo.pop()
            assert schema.keys() <= known
            todo += schema.get("properties", {}).values()
            todo += [
                s for k in ("items", "additionalProperties") if isinstance(s := schema.get(k), dict)
            ]


def test_a_schema_of_fifty_objects_in_each_other_is_listed() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        schema = {"type": "object", "properties": {"inner": schema}}
    done = validated(TOOLS, tool(inputSchema=schema, outputSchema=schema))
    assert (len(done.items), done.problems) == (1, ())
