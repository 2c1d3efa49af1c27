"""A gateway is not its own server: which URLs and commands lead back to it."""

from __future__ import annotations

import json

import pytest

from local_mcp_gateway.service.admin.own_address import OwnAddress
from local_mcp_gateway.store.model import ServerDefinition, ServerKind
from tests.harness import Place

HERE = OwnAddress("127.0.0.1", 3001)
EVERYWHERE = OwnAddress("0.0.0.0", 3001)
ELSEWHERE = OwnAddress("192.168.1.7", 80)
BRIDGE = "local-mcp-gateway stdio"


def server(text: str, **env: str) -> ServerDefinition:
    if "://" in text.split(maxsplit=1)[0]:
        return ServerDefinition("s", ServerKind.HTTP, url=text)
    command, *args = text.split()
    return ServerDefinition("s", ServerKind.STDIO, command=command, args=tuple(args), env=env)


@pytest.mark.parametrize(
    ("own", "text", "here"),
    [
        (HERE, "http://127.0.0.1:3001/mcp", True),
        (HERE, "http://localhost:3001/mcp/work", True),
        (HERE, "http://LOCALHOST:3001/sse", True),
        (HERE, "http://[::1]:3001/mcp", True),
        (HERE, "http://127.1.2.3:3001/mcp", True),
        (HERE, "http://127.0.0.1:3002/mcp", False),
        (HERE, "http://example.com:3001/mcp", False),
        (HERE, "http://192.168.1.7:3001/mcp", False),
        (HERE, "http://127.0.0.1:x/mcp", False),
        (EVERYWHERE, "http://localhost:3001/mcp", True),
        (ELSEWHERE, "http://192.168.1.7/mcp", True),
        (ELSEWHERE, "http://127.0.0.1/mcp", False),
        (HERE, BRIDGE, True),
        (HERE, f"/usr/bin/{BRIDGE} --profile work", True),
        (HERE, "uvx local-mcp-gateway --log-level debug stdio", True),
        (HERE, "python3 -m local_mcp_gateway stdio", True),
        (HERE, f"{BRIDGE} --url http://localhost:3001", True),
        (HERE, f"{BRIDGE} --url=http://localhost:4001", False),
        (HERE, "local-mcp-gateway --config other.toml stdio", False),
        (HERE, "local-mcp-gateway serve", False),
        (HERE, "npx -y server stdio", False),
    ],
)
def test_a_url_or_a_command_is_known_to_lead_here(own: OwnAddress, text: str, here: bool) -> None:
    assert own.is_behind(server(text)) is here


def test_a_bridge_with_a_port_of_its_own_leads_to_another_gateway() -> None:
    assert not HERE.is_behind(server(BRIDGE, LMG_GATEWAY__PORT="4001"))
    assert HERE.is_behind(server(BRIDGE, LMG_GATEWAY__PORT="3001"))


def test_the_gateway_is_not_added_to_itself_and_left_out_of_an_import(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        refused = shipped.run("server", "add", "me", "--url", gateway.url)
        assert (refused.code, "'me' is this gateway itself" in refused.stderr) == (2, True)
        document = {"mcpServers": {"me": {"url": gateway.url}, "x": {"command": "true"}}}
        done = shipped.run("server", "import", "-", "--json", stdin=json.dumps(document))
        assert (done.json()["added"], done.json()["this_gateway"]) == (["x"], ["me"])
        edited = shipped.run("server", "edit", "x", "--url", gateway.url)
        assert (edited.code, "is this gateway itself" in edited.stderr) == (2, True)
        listed = shipped.run("server", "list", "--json").json()
        assert [(item["name"], item["command"]) for item in listed] == [("x", "true")]
