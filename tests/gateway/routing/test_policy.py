"""What a policy hides does not exist for those it binds, however they ask for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from local_mcp_gateway.gateway.catalog import Route, Visibility
from local_mcp_gateway.gateway.routing.router import Router
from local_mcp_gateway.store import NOTHING, Policy, ServerDefinition, queries
from tests.gateway.clients.test_admission import Known
from tests.gateway.messages import HELLO, call, modern
from tests.gateway.support import Running, gateway_of, stdio
from tests.gateway.using import Stream, names, opened, use

PLAIN = stdio("plain", "plain.py")
TWIN = stdio("twin", "plain.py")
READS = b'{"annotations":{"readOnlyHint":true}}'
WRITES = b'{"annotations":{"readOnlyHint":false}}'


@asynccontextmanager
async def known_of(tmp_path: Path, *servers: ServerDefinition) -> AsyncIterator[Known]:
    async with gateway_of(tmp_path, *servers) as running:
        await names(running)
        yield Known(running)


async def set_policy(running: Running, policy: Policy) -> None:
    profile = await queries.get_profile(running.database, "default")
    await queries.update_profile(running.database, "default", replace(profile, policy=policy))
    await running.gateway.reload()


async def tools(running: Running, shown: dict[str, str]) -> list[str]:
    body = await (await running.post(call("tools/list"), **shown)).json()
    return [tool["name"] for tool in body["result"]["tools"]]


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (Policy(), True),
        (Policy(allowed=("echo",)), True),
        (Policy(allowed=("plain/*",)), True),
        (Policy(allowed=("say",)), True),
        (Policy(allowed=("Echo", "twin/*", "ech")), False),
        (Policy(denied=("e*",)), False),
        (Policy(denied=("plain/echo",)), False),
        (Policy(denied=("say",)), False),
        (Policy(denied=("twin/*",)), True),
        (Policy(allowed=("*",), denied=("echo",)), False),
        (NOTHING, False),
    ],
)
def test_a_pattern_means_the_shown_name_the_servers_own_or_one_server(
    policy: Policy, *, shown: bool
) -> None:
    assert Visibility((policy,), ()).shows(Route("plain", "echo"), "say", b"{}") is shown
    both = Visibility((Policy(allowed=("*",)), policy), ())
    assert both.shows(Route("plain", "echo"), "say", None) is shown


@pytest.mark.parametrize(
    ("definition", "trusted", "shown"),
    [
        (READS, ("plain",), True),
        (READS, (), False),
        (WRITES, ("plain",), False),
        (b'{"annotations":{}}', ("plain",), False),
        (b'{"annotations":null}', ("plain",), False),
        (b'{"annotations":{"readOnlyHint":"true"}}', ("plain",), False),
        (b"{}", ("plain",), False),
        (None, ("plain",), False),
    ],
)
def test_read_only_believes_trusted_servers_and_what_they_say_clearly(
    definition: bytes | None, trusted: tuple[str, ...], *, shown: bool
) -> None:
    only = Visibility((Policy(read_only=True),), trusted)
    assert only.shows(Route("plain", "echo"), "echo", definition) is shown


async def attempts(running: Running, shown: dict[str, str], tool: str) -> list[Any]:
    """Ask for a tool in every way; return the answers."""
    arguments: dict[str, Any] = {"name": tool, "arguments": {}}
    asked = [
        call(method, **arguments)
        for method in (*sorted(Router.METHODS), "tools/describe", "vendor/run")
        if method.startswith(("tools/", "prompts/get", "vendor/"))
    ]
    asked += [
        call("completion/complete", ref={"type": "ref/tool", "name": tool}, argument={}),
        call("vendor/run", tool=tool),
        call("vendor/run", arguments={}),
    ]
    answers = [await (await running.post(message, **shown)).json() for message in asked]
    message, headers = modern("tools/call", tool, arguments={})
    answers.append(await (await running.post(message, **headers, **shown)).json())
    hello = await running.post(HELLO, **shown)
    session = {**shown, "mcp_session_id": hello.headers["mcp-session-id"]}
    for message in asked:
        answers.append(await (await running.post(message, **session)).json())  # noqa: PERF401
    await running.post(
        {"jsonrpc": "2.0", "method": "notifications/v", "params": arguments}, **session
    )
    return answers


@pytest.mark.parametrize("by", ["token", "profile"])
@pytest.mark.parametrize(
    "policy", [Policy(denied=("pid",)), Policy(allowed=("echo", "fail")), Policy(read_only=True)]
)
@pytest.mark.parametrize("servers", [(PLAIN,), (PLAIN, TWIN)], ids=["alone", "two"])
async def test_a_hidden_tool_is_reachable_by_nothing(
    tmp_path: Path, by: str, policy: Policy, servers: tuple[ServerDefinition, ...]
) -> None:
    async with known_of(tmp_path, *servers) as known:
        running = known.running
        shown = await known.token("ci", policy=policy if by == "token" else Policy())
        if by == "profile":
            await set_policy(running, policy)
        assert "pid" not in await tools(running, shown)
        running.said.clear()
        answers = await attempts(running, shown, "pid")
        pids = [each for each in running.said if each[0] == "upstream.logged"]
        assert not [said for said in pids if "pid" in str(said)]
        for answer in answers:
            if "tools" not in answer.get("result", {}):
                assert "error" in answer, answer
        assert running.find("call.finished", method="tools/call", server="plain") is None
        assert running.find("call.finished", method="vendor/run", server="plain") is None
        # Nobody else notices.
        assert by == "profile" or str(await use(running, "pid")).isdigit()


async def test_names_do_not_depend_on_what_a_token_may_see(tmp_path: Path) -> None:
    async with known_of(tmp_path, PLAIN, TWIN) as known:
        running = known.running
        narrow = await known.token("narrow", policy=Policy(allowed=("twin/echo",)))
        assert await tools(running, narrow) == ["twin__echo"]
        refused = await running.post(call("tools/call", name="echo", arguments={}), **narrow)
        assert "Unknown tool: echo" in (await refused.json())["error"]["message"]
        answer = await running.post(call("tools/call", name="twin__echo", arguments={}), **narrow)
        assert "result" in await answer.json()


async def test_a_profile_and_a_token_both_have_to_allow_a_tool(tmp_path: Path) -> None:
    async with known_of(tmp_path, PLAIN) as known:
        shown = await known.token("ci", policy=Policy(allowed=("echo", "pid")))
        await set_policy(known.running, Policy(denied=("pid",)))
        assert await tools(known.running, shown) == ["echo"]


async def test_a_policy_that_changes_is_announced_and_holds_at_once(tmp_path: Path) -> None:
    async with known_of(tmp_path, PLAIN) as known:
        running = known.running
        session = await known.session({})
        async with opened(running, session) as stream:
            await set_policy(running, Policy(denied=("pid",)))
            assert "pid" not in await tools(running, session)
            message = await raw(stream)
            assert message == "notifications/tools/list_changed"


async def raw(stream: Stream) -> str:
    with anyio.fail_after(15):
        chunk = b""
        while b"list_changed" not in chunk:
            chunk += await stream.reply.content.readany()
    return "notifications/tools/list_changed"


async def test_trust_in_annotations_restarts_no_server(tmp_path: Path) -> None:
    async with known_of(tmp_path, PLAIN) as known:
        running = known.running
        pid = await use(running, "pid")
        server = await queries.get_server(running.database, "plain")
        await queries.update_server(
            running.database, "plain", replace(server, trust_annotations=True)
        )
        await running.gateway.reload()
        assert await use(running, "pid") == pid
