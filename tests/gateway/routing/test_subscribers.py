"""An open `subscriptions/listen` stream gets what it asked for, with all that the server said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local_mcp_gateway.gateway.protocol.sse import SseParser
from local_mcp_gateway.gateway.protocol.versions import SUBSCRIPTION_KEY
from local_mcp_gateway.gateway.routing.subscribers import (
    FLAGS,
    SubscriptionFilter,
    SubscriptionStream,
)

UPDATED = "notifications/resources/updated"


async def heard(listener: SubscriptionStream) -> list[Any]:
    """Return all that waits for the client."""
    listener.end()
    parser, told = SseParser(10**6), []
    while (event := await listener.next_event()) is not None:
        told += [json.loads(each.data) for each in parser.feed(event)]
    return told


@pytest.mark.parametrize("asked", [*FLAGS, None])
async def test_only_changes_of_the_lists_that_it_named_are_heard(asked: str | None) -> None:
    """A URI may hold any text, that of a flag as well."""
    uris = tuple(f"x://{flag}" for flag in FLAGS.values())
    wanted = SubscriptionFilter(
        **{FLAGS[asked]: True} if asked else {}, resource_subscriptions=uris
    )
    listener = SubscriptionStream("p", b"7", wanted)
    for method in FLAGS:
        listener.enqueue(method, b"", None)
    assert [message["method"] for message in await heard(listener)] == [asked] * bool(asked)


async def test_what_a_server_says_besides_passes() -> None:
    listener = SubscriptionStream(
        "p", b'"a"', SubscriptionFilter(resource_subscriptions=("x://1",))
    )
    listener.enqueue(UPDATED, b'{"uri":"x://1","later":1.50,"_meta":{"at":3}}', "x://1")
    listener.enqueue(UPDATED, b'{"uri":"x://2"}', "x://2")
    (message,) = await heard(listener)
    assert message["params"] == {
        "uri": "x://1",
        "later": 1.5,
        "_meta": {"at": 3, SUBSCRIPTION_KEY: "a"},
    }
