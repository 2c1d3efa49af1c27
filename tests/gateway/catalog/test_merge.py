"""The one list that a profile makes of its servers' lists."""

from __future__ import annotations

import json

from local_mcp_gateway.gateway.catalog.items import Item, Route, items_of
from local_mcp_gateway.gateway.catalog.merge import merge_lists
from local_mcp_gateway.store.model import (
    CatalogKind,
    Member,
    Prefix,
    ProfileDefinition,
    ToolSetting,
)

TOOLS, RESOURCES = CatalogKind.TOOLS, CatalogKind.RESOURCES


def tool(name: str) -> Item:
    return Item(name, json.dumps({"name": name, "x": 1}).encode())


def test_an_item_that_is_not_renamed_keeps_its_bytes() -> None:
    raw = b'{ "name" : "x", "later": 1.0e5, "u": "\\u00e9" }'
    profile = ProfileDefinition("p", members=(Member("a"),))
    result = merge_lists(profile, {"a": {TOOLS: items_of(TOOLS, b"[" + raw + b"]")}})
    assert result.result(TOOLS) == b'{"tools":[' + raw + b"]}"


def test_the_same_resource_of_two_servers_gets_an_address_of_its_own() -> None:
    item = Item("file:///a", b'{"uri":"file:///a","name":"a"}')
    profile = ProfileDefinition("p", members=(Member("a"), Member("My_B")))
    result = merge_lists(profile, {"a": {RESOURCES: [item]}, "My_B": {RESOURCES: [item]}})
    assert list(result.routes[RESOURCES]) == ["file:///a", "s-my-b+file:///a"]


def test_a_tool_is_found_by_its_own_name_if_no_other_server_has_one_of_that_name() -> None:
    profile = ProfileDefinition("p", prefix=Prefix.ALWAYS, members=(Member("a"), Member("b")))
    catalogs = {"a": {TOOLS: [tool("x"), tool("y")]}, "b": {TOOLS: [tool("x"), tool("z")]}}
    result = merge_lists(profile, catalogs)
    assert result.own_names[TOOLS] == {"y": Route("a", "y"), "z": Route("b", "z")}
    setting = ToolSetting("a", "x", name="renamed")
    profile = ProfileDefinition("p", members=(Member("a"),), tools=(setting,))
    renamed = merge_lists(profile, {"a": {TOOLS: [tool("x")]}})
    assert renamed.own_names[TOOLS] == {}


def app(name: str, uri: str, *, old: bool = False) -> Item:
    meta = {"ui/resourceUri": uri} if old else {"ui": {"resourceUri": uri}}
    return Item(name, json.dumps({"name": name, "_meta": meta}).encode())


def test_the_address_of_an_app_keeps_its_scheme_where_two_servers_have_the_same() -> None:
    page = Item("ui://app/main", b'{"uri":"ui://app/main","name":"main"}')
    catalogs = {
        "a": {TOOLS: [app("one", page.key)], RESOURCES: [page]},
        "My_B": {
            TOOLS: [app("two", page.key), app("three", page.key, old=True)],
            RESOURCES: [page],
        },
        "c": {TOOLS: [app("four", page.key)]},
    }
    profile = ProfileDefinition("p", members=tuple(map(Member, catalogs)))
    result = merge_lists(profile, catalogs)
    assert list(result.routes[RESOURCES]) == ["ui://app/main", "ui://my-b/app/main"]
    assert result.referenced == {"ui://c/app/main": Route("c", page.key)}, (
        "although it is not listed"
    )
    one, two, three, four = json.loads(result.result(TOOLS))["tools"]
    assert one["_meta"] == {"ui": {"resourceUri": "ui://app/main"}}
    assert two["_meta"] == {"ui": {"resourceUri": "ui://my-b/app/main"}}
    assert three["_meta"] == {"ui/resourceUri": "ui://my-b/app/main"}
    assert four["_meta"] == {"ui": {"resourceUri": "ui://c/app/main"}}
