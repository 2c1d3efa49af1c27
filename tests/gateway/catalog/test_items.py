"""The names under which a profile shows what its servers list."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.catalog.items import (
    FITTING,
    Item,
    NameTable,
    Route,
    body_of,
    items_of,
    keeps_names,
    names_to_keep,
    read_names,
    routes_of,
)
from local_mcp_gateway.gateway.catalog.merge import ProfileView, merge_lists
from local_mcp_gateway.store.model import (
    CatalogKind,
    Member,
    Prefix,
    ProfileDefinition,
    ToolSetting,
)

TOOLS, RESOURCES = CatalogKind.TOOLS, CatalogKind.RESOURCES
NAMES = st.text("abc_", min_size=1, max_size=3)
SERVERS = st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=4), max_size=4)


def tool(name: str) -> Item:
    return Item(name, json.dumps({"name": name, "x": 1}).encode())


def view(prefix: Prefix, servers: dict[str, list[str]]) -> ProfileView:
    profile = ProfileDefinition("p", prefix=prefix, members=tuple(map(Member, servers)))
    return merge_lists(
        profile, {name: {TOOLS: [*map(tool, tools)]} for name, tools in servers.items()}
    )


def shown(result: ProfileView) -> list[str]:
    return [tool["name"] for tool in json.loads(result.result(TOOLS))["tools"]]


def test_only_a_clash_is_prefixed_and_the_first_server_keeps_its_name() -> None:
    result = view(Prefix.AUTO, {"a": ["x", "y"], "b": ["x", "z"]})
    assert shown(result) == ["x", "y", "b__x", "z"]
    assert result.routes[TOOLS]["b__x"] == Route("b", "x")


def test_always_prefixes_all_and_never_hides_the_later_ones() -> None:
    servers = {"a": ["x"], "b": ["x"]}
    assert shown(view(Prefix.ALWAYS, servers)) == ["a__x", "b__x"]
    never = view(Prefix.NEVER, servers)
    assert (shown(never), never.hidden) == (["x"], ("b:x",))


ANY_NAMES = st.text("a._/é ", min_size=1, max_size=3) | st.sampled_from(
    ["x" * 64, "x" * 65, "y" * 90]
)
ANY_SERVERS = st.dictionaries(
    st.sampled_from(["a", "a.b", "a_b", "long-" * 12, "long." * 12]),
    st.lists(ANY_NAMES, unique=True, max_size=4),
    max_size=4,
)


@given(ANY_SERVERS, st.sampled_from([Prefix.AUTO, Prefix.ALWAYS]))
def test_every_shown_name_is_one_that_model_apis_accept(
    servers: dict[str, list[str]], prefix: Prefix
) -> None:
    result = view(prefix, servers)
    told = shown(result)
    assert len(set(told)) == len(told) == sum(map(len, servers.values())), "none is lost"
    for name in told:
        assert FITTING.fullmatch(name)
        route = result.routes[TOOLS][name]
        assert route.key in servers[route.server]
    profile = ProfileDefinition("p", prefix=prefix, members=tuple(map(Member, servers)))
    catalogs = {name: {TOOLS: [*map(tool, tools)]} for name, tools in servers.items()}
    assert routes_of(profile, catalogs) == result.routes, "the same after a restart"


def test_a_name_is_made_fit_so_that_a_person_still_reads_it() -> None:
    servers = {
        "first": ["search", "billing_cost_management_get_savings_plans", "files.read"],
        "github.com": ["search"],
        "awslabs-billing-cost-management-server": ["billing_cost_management_get_savings_plans"],
    }
    *same, dotted, prefixed, long = shown(view(Prefix.AUTO, servers))
    assert same == servers["first"][:2]
    assert (dotted, prefixed) == ("files_read", "github_com__search")
    assert long == "awslabs-bill_e6c8262e__billing_cost_management_get_savings_plans"


def test_a_name_that_a_person_chose_and_those_under_never_stay_as_they_are() -> None:
    setting = ToolSetting("a", "x", name="my.tool")
    profile = ProfileDefinition("p", members=(Member("a"),), tools=(setting,))
    assert shown(merge_lists(profile, {"a": {TOOLS: [tool("x")]}})) == ["my.tool"]
    assert shown(view(Prefix.NEVER, {"a": ["x.y"]})) == ["x.y"]


def test_names_from_before_that_model_apis_refuse_are_made_fit() -> None:
    profile = ProfileDefinition("p", members=(Member("a.b"), Member("c")))
    catalogs = {"a.b": {TOOLS: [tool("x")]}, "c": {TOOLS: [tool("x")]}}
    before = {TOOLS: {"x": Route("c", "x"), "a.b__x": Route("a.b", "x")}}
    assert shown(merge_lists(profile, catalogs, before=before)) == ["a_b__x", "x"]


@given(SERVERS, st.sampled_from(Prefix))
def test_every_shown_name_is_unique_and_leads_back(
    servers: dict[str, list[str]], prefix: Prefix
) -> None:
    result = view(prefix, servers)
    told = shown(result)
    assert len(told) == len(set(told)) == len(result.routes[TOOLS])
    for name in told:
        route = result.routes[TOOLS][name]
        assert route.key in servers[route.server]
        assert name in {route.key, f"{route.server}__{route.key}"}


@given(SERVERS, NAMES, st.lists(NAMES, unique=True, max_size=4))
def test_adding_a_server_at_the_end_never_renames_a_tool(
    servers: dict[str, list[str]], name: str, tools: list[str]
) -> None:
    if name in servers:
        return
    before, after = view(Prefix.AUTO, servers), view(Prefix.AUTO, {**servers, name: tools})
    assert before.routes[TOOLS].items() <= after.routes[TOOLS].items()


@given(SERVERS, st.data(), st.sampled_from(Prefix))
def test_a_server_that_is_met_late_takes_no_name_that_is_shown_already(
    servers: dict[str, list[str]], data: st.DataObject, prefix: Prefix
) -> None:
    profile = ProfileDefinition("p", prefix=prefix, members=tuple(map(Member, servers)))
    met: dict[str, dict[CatalogKind, list[Item]]] = {}
    last = merge_lists(profile, met)
    for name in data.draw(st.permutations(list(servers))):
        met[name] = {TOOLS: [tool(key) for key in servers[name]]}
        now = merge_lists(profile, met, before=last.routes)
        assert last.routes[TOOLS].items() <= now.routes[TOOLS].items()
        assert sorted(shown(now)) == sorted(now.routes[TOOLS])
        last = now
    kept = NameTable(profile, names_to_keep(last.routes, routes_of(profile, met)))
    again = read_names(kept.written())
    assert again == kept
    restarted = merge_lists(profile, met, before=kept.held_by(profile))
    assert restarted.routes == last.routes, "what is written down is enough"
    other = Prefix.NEVER if prefix is not Prefix.NEVER else Prefix.AUTO
    assert kept.held_by(replace(profile, prefix=other)) == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["", "x", "xy", "yx", "xz", "leave", "join"])
    ),
    max_size=12,
)


@given(STEPS, st.sampled_from(Prefix))
@example([("c", "join"), ("a", "join"), ("b", "join"), ("c", "leave")], Prefix.AUTO)
def test_whatever_happened_a_restart_changes_no_name(
    steps: list[tuple[str, str]], prefix: Prefix
) -> None:
    """`join` puts a server last into the profile, `leave` takes it out; else that are its tools."""
    profile = ProfileDefinition("p", prefix=prefix)
    met = {name: {TOOLS: [tool("x")], RESOURCES: [Item("x", b'{"uri":"x"}')]} for name in "abc"}
    last = NameTable(profile, {})
    for server, change in steps:
        members = tuple(member for member in profile.members if member.server != server)
        if change in {"join", "leave"}:
            members += (Member(server),) if change == "join" else ()
            profile = replace(profile, members=members)
        else:
            met[server] = {**met[server], TOOLS: [*map(tool, change)]}
        now = merge_lists(profile, met, before=last.held_by(profile))
        last = NameTable(profile, now.routes)
        written = NameTable(profile, names_to_keep(now.routes, routes_of(profile, met))).written()
        read = read_names(written)
        assert read is not None
        again = merge_lists(profile, met, before=read.held_by(profile))
        assert again.routes == now.routes


def test_names_that_somebody_else_wrote_are_let_be() -> None:
    assert read_names("{}") is None
    assert read_names("no json") is None


def test_a_name_goes_when_its_tool_does_and_when_a_person_orders_anew() -> None:
    a, b = {TOOLS: [tool("x")]}, {TOOLS: [tool("x")]}
    profile = ProfileDefinition("p", members=(Member("a"), Member("b")))
    late = merge_lists(profile, {"b": b})
    both = merge_lists(profile, {"a": a, "b": b}, before=late.routes)
    assert (both.routes[TOOLS]["x"].server, shown(both)) == ("b", ["a__x", "x"])
    left = merge_lists(profile, {"a": a, "b": {}}, before=both.routes)
    assert left.routes[TOOLS]["a__x"].server == "a"
    assert "x" not in left.routes[TOOLS], "a__x keeps its name, and b's may come back"
    assert keeps_names(profile, replace(profile, members=(*profile.members, Member("c"))))
    assert not keeps_names(profile, replace(profile, members=profile.members[::-1]))
    assert not keeps_names(profile, replace(profile, prefix=Prefix.ALWAYS))
    described = ToolSetting("b", "x", description="Another text.")
    assert keeps_names(profile, replace(profile, tools=(described,)))
    for other in (replace(described, name="y"), replace(described, enabled=False)):
        assert not keeps_names(profile, replace(profile, tools=(other,)))


def test_a_tool_whose_new_name_is_taken_is_not_lost() -> None:
    renamed = ToolSetting("b", "y", name="x")
    profile = ProfileDefinition("p", members=(Member("a"), Member("b")), tools=(renamed,))
    lists = {"a": {TOOLS: [tool("x")]}, "b": {TOOLS: [tool("x"), tool("y")]}}
    assert shown(merge_lists(profile, lists)) == ["x", "b__x", "b__y"]


def test_what_one_server_lists_twice_is_shown_once() -> None:
    assert shown(view(Prefix.AUTO, {"a": ["x", "x"], "b": ["x"]})) == ["x", "b__x"]


def test_a_list_survives_the_database() -> None:
    items = items_of(TOOLS, b'[{"name":"a"},{"nameless":1},{"name":5},7,{"name":"b","x":[ ]}]')
    assert [item.key for item in items] == ["a", "b"]
    assert items_of(TOOLS, body_of(items)) == items
