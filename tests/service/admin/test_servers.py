"""The `mcpServers` files of real clients."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin.servers import definitions_in
from local_mcp_gateway.store.model import ServerKind, Share

TIME = {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "UTC"}}


def test_a_command_and_a_url_become_servers() -> None:
    document = {
        "mcpServers": {"time": TIME, "notes": {"url": "http://h/mcp", "headers": {"A": "b"}}}
    }
    time, notes = definitions_in(document)
    assert (time.kind, time.command, time.args, time.env) == (
        ServerKind.STDIO,
        "uvx",
        ("mcp-server-time",),
        {"TZ": "UTC"},
    )
    assert (notes.kind, notes.url, notes.headers, notes.command) == (
        ServerKind.HTTP,
        "http://h/mcp",
        {"A": "b"},
        None,
    )


@pytest.mark.parametrize(
    "document",
    [
        {"mcpServers": {"time": TIME}},
        {"servers": {"time": {**TIME, "type": "stdio"}}},
        {"mcp": {"servers": {"time": TIME}}},
    ],
)
def test_the_list_is_found_where_each_client_keeps_it(document: dict[str, object]) -> None:
    assert [server.name for server in definitions_in(document)] == ["time"]


def test_a_disabled_server_comes_in_switched_off_and_sse_stays_sse() -> None:
    (old,) = definitions_in(
        {"mcpServers": {"old": {"type": "sse", "url": "http://h", "disabled": True}}}
    )
    assert old.kind is ServerKind.SSE
    assert not old.active


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "no list of MCP servers"),
        ({"mcpServers": []}, "no list of MCP servers"),
        ({"mcpServers": {"a": 1}}, "'a'"),
        ({"mcpServers": {"a": {"type": "carrier pigeon"}}}, "carrier pigeon"),
        ({"mcpServers": {"a": {"command": 5}}}, "'a' has a command"),
        ({"mcpServers": {"a": {"command": "x", "env": ["K=V"]}}}, "'a' has env"),
    ],
)
def test_what_cannot_be_read_is_refused_and_named(document: object, named: str) -> None:
    with pytest.raises(UsageProblem, match=named):
        definitions_in(document)


def test_arguments_that_are_one_text_are_refused_and_not_taken_letter_by_letter() -> None:
    with pytest.raises(UsageProblem, match="not a list"):
        definitions_in({"mcpServers": {"a": {"command": "npx", "args": "-y thing"}}})


def test_an_imported_server_says_how_its_clients_share_it() -> None:
    shared = {**TIME, "share": "never", "max_clients": 4, "idle_stop_s": 60}
    (time,) = definitions_in({"mcpServers": {"time": shared}})
    assert (time.share, time.max_clients, time.idle_stop_s) == (Share.NEVER, 4, 60)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"share": "sometimes"}, "share 'sometimes'"),
        ({"max_clients": "4"}, "max_clients that is not a whole number"),
        ({"idle_stop_s": True}, "idle_stop_s that is not a whole number"),
    ],
)
def test_an_imported_setting_of_the_wrong_kind_is_refused(
    wrong: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageProblem, match=named):
        definitions_in({"mcpServers": {"time": {**TIME, **wrong}}})
