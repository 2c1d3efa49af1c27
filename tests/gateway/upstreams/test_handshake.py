"""What is sent after a refused `initialize`, and what a server's answer says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local_mcp_gateway.gateway.protocol import Answer, encode, failure, success, versions
from local_mcp_gateway.gateway.upstreams.connection import (
    Call,
    HttpRefusal,
    UpstreamDisconnected,
)
from local_mcp_gateway.gateway.upstreams.handshake import (
    identity_of_discover,
    identity_of_initialize,
    initialize,
    initialize_params,
)

ANSWER = success({"protocolVersion": "2025-06-18", "capabilities": {}})
REFUSAL = failure(-32602, "Unsupported", {"supported": ["2024-11-05", "2025-06-18"]})


class Server:
    """Answers each `initialize` with the next of its replies, and keeps what it was sent."""

    def __init__(self, *replies: Answer | HttpRefusal) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []

    async def send(self, call: Call) -> Answer:
        self.asked.append(json.loads(call.params))
        reply = self.replies.pop(0)
        if isinstance(reply, HttpRefusal):
            raise reply
        return reply


@pytest.mark.parametrize(
    "refusal",
    [
        REFUSAL,
        HttpRefusal("HTTP 400", 400, bytes(REFUSAL.body)),
    ],
    ids=["error", "HTTP 400"],
)
async def test_a_server_that_names_an_older_version_is_asked_for_that(
    refusal: Answer | HttpRefusal,
) -> None:
    server = Server(refusal, ANSWER)
    assert await initialize(server.send, initialize_params({"roots": {}})) == ANSWER
    assert [asked["protocolVersion"] for asked in server.asked] == ["2025-11-25", "2025-06-18"]
    assert server.asked[1]["capabilities"] == {"roots": {}}


async def test_a_strict_server_is_asked_again_without_what_its_revision_does_not_have() -> None:
    server = Server(failure(-32602, "Unrecognized key: extensions"), ANSWER)
    await initialize(server.send, initialize_params({"roots": {}, "extensions": {"x": {}}}))
    assert server.asked[1]["capabilities"] == {"roots": {}}


async def test_a_refusal_that_names_no_way_out_is_final() -> None:
    away = HttpRefusal("HTTP 503", 503)
    with pytest.raises(HttpRefusal) as refused:
        await initialize(Server(away).send, initialize_params({"extensions": {}}))
    assert refused.value is away
    error = failure(-32603, "no")
    assert await initialize(Server(error).send, initialize_params({"extensions": {}})) == error


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (failure(-32603, "no"), "the server refused initialize: no"),
        (Answer(b"["), "the server answered initialize with junk"),
        (failure(-32603, ""), "the server refused initialize: error -32603"),
        (success([]), "the server answered initialize with a result that is not an object"),
        (success({}), "the server answered initialize without a protocol version"),
        (success({"protocolVersion": "1999-01-01"}), "speaks MCP '1999-01-01'"),
    ],
)
def test_an_answer_that_introduces_nobody_says_why(answer: Answer, reason: str) -> None:
    with pytest.raises(UpstreamDisconnected) as lost:
        identity_of_initialize(answer)
    assert reason in lost.value.reason
    assert identity_of_discover(answer) is None


def test_only_what_a_client_can_read_is_kept_of_what_a_server_says_of_itself() -> None:
    icons = [{"src": "a.png", "sizes": None}, {"src": 1}, "b.png"]
    info = {"name": "n", "version": 2, "title": "T", "description": 3, "icons": icons}
    answer = success({"protocolVersion": "2025-06-18", "serverInfo": info, "instructions": []})
    identity = identity_of_initialize(answer)
    assert (identity.name, identity.release, identity.instructions) == ("n", "", None)
    assert identity.about == {"title": "T", "icons": [{"src": "a.png"}]}


def test_a_capability_that_is_null_is_not_declared() -> None:
    declared = {"tools": {"listChanged": None}, "tasks": None, "logging": {}}
    for answer in (
        success({"protocolVersion": "2025-06-18", "capabilities": declared}),
        success({"supportedVersions": [versions.NEWEST_MODERN], "capabilities": declared}),
    ):
        identity = identity_of_discover(answer) or identity_of_initialize(answer)
        assert json.loads(encode(identity.capabilities)) == {"tools": {}, "logging": {}}
