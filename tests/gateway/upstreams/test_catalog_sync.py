"""A server's lists: each comes for itself, and is fetched again when it may be old."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.catalog import item_schema
from local_mcp_gateway.gateway.catalog.server_catalog import HELD
from local_mcp_gateway.gateway.upstreams import backoff, catalog_sync
from local_mcp_gateway.service.admin.servers import altered_tools, approve_tools
from local_mcp_gateway.store.model import CatalogKind
from tests.gateway.messages import HELLO, META, MODERN, call
from tests.gateway.support import QUICK, Running, gateway_of, http, serve

LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
OFTEN = replace(QUICK, list_timeout_s=30, backoff_max_s=0.2)


class Server:
    """Speaks one era over HTTP; its lists can be changed, fail and hang."""

    def __init__(self, *, modern: bool = False, ttl_ms: object = None) -> None:
        self.items: dict[str, list[dict[str, Any]]] = {
            "tools/list": [{"name": "one", "inputSchema": {"type": "object"}}],
            "prompts/list": [{"name": "ask"}],
            "resources/list": [{"uri": "it://1", "name": "it"}],
            "resources/templates/list": [],
        }
        self.raw: dict[str, bytes] = {}
        """Results that are sent as they are."""
        self.answering: dict[str, Callable[[], None]] = {}
        """Called before an answer."""
        self.failing: set[str] = set()
        self.hanging: set[str] = set()
        self.over = asyncio.Event()
        self.heard = asyncio.Event()
        """Set, and replaced by a new one, at each request."""
        self.asked: Counter[str] = Counter()
        self.capabilities: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}}
        self._modern = modern
        self._ttl = {} if ttl_ms is None else {"ttlMs": ttl_ms, "cacheScope": "private"}

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        message = json.loads((await receive())["body"] or b"{}")
        status, body = 405, b""
        if scope["method"] == "POST":
            status = 202
        if "id" in message:
            status = 200
            answer = await self.answer(message["method"])
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}).encode()
            if (raw := self.raw.get(message["method"])) is not None:
                body = b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (
                    json.dumps(message["id"]).encode(),
                    raw,
                )
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, method: str) -> dict[str, Any]:
        self.asked[method] += 1
        self.heard.set()
        self.heard = asyncio.Event()
        self.answering.get(method, lambda: None)()
        if method in self.hanging:
            await self.over.wait()
        if method in self.failing:
            return {"error": {"code": -32603, "message": "out of order"}}
        capabilities = self.capabilities
        if method in LISTS:
            return {"result": {LISTS[method]: self.items[method], **self._ttl}}
        if method == "server/discover" and self._modern:
            return {"result": {"supportedVersions": [MODERN], "capabilities": capabilities}}
        if method == "initialize" and not self._modern:
            return {"result": {"protocolVersion": "2025-11-25", "capabilities": capabilities}}
        return {"error": {"code": -32601, "message": f"no {method}"}}


@asynccontextmanager
async def behind(tmp_path: Path, server: Server, **more: Any) -> AsyncIterator[Running]:
    async with serve(server) as url:
        async with gateway_of(tmp_path, http("kept", url + "/mcp"), **more) as running:
            yield running
        server.over.set()


async def listed(running: Running, method: str) -> list[str]:
    body = await (await running.post(call(method))).json()
    return [item.get("name") or item["uri"] for item in body["result"][LISTS[method]]]


def health(running: Running) -> str | None:
    reason: str | None = running.gateway.status()["servers"]["kept"]["reason"]
    return reason


async def asked(server: Server, method: str, times: int) -> None:
    """Return once the server was asked that often."""
    with anyio.fail_after(30):
        while server.asked[method] < times:
            await server.heard.wait()


async def settled(running: Running) -> None:
    """Meet the server; return once its lists are there, or will be announced."""
    upstream = running.gateway.registry.upstreams["kept"]
    with anyio.fail_after(30):
        await upstream.catalog_ready()


@pytest.mark.parametrize("broken", LISTS)
async def test_a_list_that_fails_keeps_no_other_from_coming(tmp_path: Path, broken: str) -> None:
    server = Server()
    server.items["resources/templates/list"] = [{"uriTemplate": "it://{x}", "name": "any"}]
    server.failing = {broken}
    async with behind(tmp_path, server, options=OFTEN) as running:
        for method in LISTS:
            wanted = [item["name"] for item in server.items[method]] if method != broken else []
            assert await listed(running, method) == wanted
        assert f"{broken} failed" in (health(running) or "")
        others = sum(server.asked[method] for method in LISTS if method != broken)
        server.failing = set()
        await running.until(lambda: health(running) is None)
        assert await listed(running, broken) == [i["name"] for i in server.items[broken]]
        assert sum(server.asked[method] for method in LISTS if method != broken) == others


async def test_a_list_that_is_late_keeps_no_other_waiting(tmp_path: Path) -> None:
    server = Server()
    server.hanging = {"prompts/list"}
    async with behind(tmp_path, server, options=OFTEN) as running:
        await settled(running)
        assert await listed(running, "tools/list") == ["one"]
        assert await listed(running, "prompts/list") == []
        assert health(running) == "prompts/list is not answered yet"
        server.over.set()
        await running.kept("kept", "ask")
        assert await listed(running, "prompts/list") == ["ask"]
        assert health(running) is None


async def test_a_list_that_never_comes_is_told(tmp_path: Path) -> None:
    server = Server()
    server.hanging = {"prompts/list"}
    async with behind(tmp_path, server, options=replace(QUICK, list_timeout_s=0.1)) as running:
        await settled(running)
        told = "prompts/list was not answered in "
        await running.until(lambda: (health(running) or "").startswith(told))
        assert await listed(running, "tools/list") == ["one"]


async def test_a_list_that_fails_later_stays_as_it_was_also_over_a_restart(tmp_path: Path) -> None:
    server = Server()
    async with serve(server) as url:
        kept = http("kept", url + "/mcp")
        async with gateway_of(tmp_path, kept) as running:
            assert await listed(running, "tools/list") == ["one"]
            await running.kept("kept", "ask")
        server.failing = {"prompts/list"}
        async with gateway_of(tmp_path, kept) as running:
            await listed(running, "tools/list")
            await running.wrote("prompts/list failed")
            assert await listed(running, "prompts/list") == ["ask"]


@pytest.mark.parametrize("ttl_ms", [0, None])
async def test_a_list_that_is_too_old_is_fetched_behind_who_asks_and_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ttl_ms: int | None
) -> None:
    monkeypatch.setattr(catalog_sync, "LEAST_TTL_S", 0.0)
    monkeypatch.setattr(catalog_sync, "UNTOLD_TTL_S", 0.0)
    server = Server(modern=ttl_ms is not None, ttl_ms=ttl_ms)
    async with behind(tmp_path, server) as running:
        await listed(running, "tools/list")
        hello = await running.post(HELLO)
        session = {"mcp_session_id": hello.headers["mcp-session-id"]}
        server.items["tools/list"][0]["name"] = "two"
        assert await listed(running, "tools/list") == ["one"], "what is known is told at once"
        headers = {"Mcp-Session-Id": session["mcp_session_id"], "Accept": "text/event-stream"}
        async with running.http.get(running.url, headers=headers) as stream:
            with anyio.fail_after(30):
                heard = b""
                while b"tools/list_changed" not in heard:
                    heard += await stream.content.readany()
        assert await listed(running, "tools/list") == ["two"]


@pytest.mark.parametrize("ttl_ms", [0, 1, -5, 3_600_000, None, True, "soon"])
async def test_clients_that_ask_all_the_time_do_not_make_a_storm(
    tmp_path: Path, ttl_ms: object
) -> None:
    server = Server(modern=True, ttl_ms=ttl_ms)
    async with behind(tmp_path, server) as running:
        await listed(running, "tools/list")
        for _ in range(30):
            await listed(running, "tools/list")
        assert server.asked["tools/list"] == 1


async def test_a_list_that_never_comes_keeps_no_other_from_being_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_sync, "LEAST_TTL_S", 0.0)
    server = Server(modern=True, ttl_ms=0)
    server.hanging = {"prompts/list"}
    async with behind(tmp_path, server, options=OFTEN) as running:
        await settled(running)
        for name in ("two", "three"):
            server.items["tools/list"][0]["name"] = name
            await listed(running, "tools/list")
            await running.kept("kept", name)
            assert await listed(running, "tools/list") == [name]
        assert server.asked["prompts/list"] == 1, "the one that is late is not asked for once more"
        assert health(running) == "prompts/list is not answered yet"


@given(st.lists(st.floats(0, 0.9), min_size=40, max_size=60))
def test_a_server_whose_lists_never_stop_changing_is_asked_every_5_s(between: list[float]) -> None:
    """`between` is how long it took to answer; it announced the next change at once."""
    gathering = backoff.ChangeDebounce()
    now, pauses = 100.0, [gathering.pause_s(100.0)]
    for took in between:
        now += max(took, pauses[-1])
        pauses.append(gathering.pause_s(now))
    assert pauses[: backoff.FREE + 1] == [backoff.SETTLE_S] * (backoff.FREE + 1), (
        "a few are nothing"
    )
    assert pauses == sorted(pauses)
    assert pauses[-1] == backoff.SETTLE_MOST_S
    assert gathering.pause_s(now + 2 * pauses[-1] + backoff.CALM_S) == backoff.SETTLE_S, (
        "it is forgiven"
    )


async def test_a_server_that_announces_a_change_whenever_it_is_asked_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "CALM_S", 60.0)
    monkeypatch.setattr(backoff, "SETTLE_S", 0.001)
    server = Server()
    async with behind(tmp_path, server, options=OFTEN) as running:
        keeping = running.gateway.registry.upstreams["kept"].catalog_sync
        server.answering["tools/list"] = lambda: keeping.changed(frozenset({CatalogKind.TOOLS}))
        await listed(running, "tools/list")
        await asked(server, "tools/list", backoff.FREE + 5)
        assert keeping._pause_s({CatalogKind.TOOLS}) >= 0.016
        assert await listed(running, "tools/list") == ["one"]


async def test_a_list_that_changes_while_it_is_fetched_is_fetched_once_more(tmp_path: Path) -> None:
    server = Server()
    async with behind(tmp_path, server, options=OFTEN) as running:
        await listed(running, "tools/list")
        server.hanging = {"tools/list"}
        upstream = running.gateway.registry.upstreams["kept"]
        for _ in range(3):
            upstream.catalog_sync.changed(frozenset({CatalogKind.TOOLS}))
            await asked(server, "tools/list", 2)
        server.hanging = set()
        server.over.set()
        await asked(server, "tools/list", 3)
        assert await listed(running, "tools/list") == ["one"]
        assert server.asked["tools/list"] == 3


async def told_unfit(tmp_path: Path, method: str, *items: bytes) -> tuple[list[str], str]:
    """Return what of these items is listed, and what the health of their server says."""
    server = Server()
    server.raw[method] = b'{"%s":[%s]}' % (LISTS[method].encode(), b",".join(items))
    async with behind(tmp_path, server, options=OFTEN) as running:
        return await listed(running, method), health(running) or ""


@pytest.mark.parametrize("levels", [item_schema.MOST_LEVELS, item_schema.MOST_LEVELS + 1])
async def test_an_item_too_deep_for_clients_is_passed_over_and_told(
    tmp_path: Path, levels: int
) -> None:
    begun = rb'{"[{":"]}\"}","not":' * (levels - 2)  # what stands in texts is no level
    deep = b'{"name":"deep","inputSchema":' + begun + b"{}" + b"}" * (levels - 1)
    wide = b'{"name":"wide","inputSchema":{"x":[' + b"[]," * 200 + b"0]}}"
    shown, fault = await told_unfit(tmp_path, "tools/list", wide, deep)
    if levels > item_schema.MOST_LEVELS:
        assert (shown, fault) == (
            ["wide"],
            "tools/list: 'deep' is left out: it is nested deeper than 120 levels",
        )
    else:
        assert (shown, fault) == (["wide", "deep"], "")


@pytest.mark.parametrize(
    ("method", "sound", "unfit", "lacking"),
    [
        ("tools/list", b'{"name":"a","inputSchema":{}}', b'{"name":"b"}', "inputSchema"),
        (
            "tools/list",
            b'{"name":"a","inputSchema": {"type":"object"}}',
            b'{"name":"b","inputSchema":null}',
            "inputSchema",
        ),
        ("resources/list", b'{"uri":"a:","name":"a"}', b'{"uri":"b:"}', "name"),
    ],
)
async def test_an_item_that_clients_refuse_with_the_whole_list_is_passed_over_and_told(
    tmp_path: Path, method: str, sound: bytes, unfit: bytes, lacking: str
) -> None:
    shown, fault = await told_unfit(tmp_path, method, unfit, sound)
    key = "b:" if method == "resources/list" else "b"
    assert (shown, fault) == (["a"], f"{method}: {key!r} is left out: it has no {lacking}")


async def test_what_only_stateless_clients_can_read_is_listed_only_for_them(tmp_path: Path) -> None:
    server = Server()
    plain = {"name": "plain", "inputSchema": {"type": "object"}}
    server.items["tools/list"] = [{**plain, "name": "array", "outputSchema": {"type": "array"}}]
    server.items["tools/list"] += [plain]
    async with behind(tmp_path, server, options=OFTEN) as running:
        assert await listed(running, "tools/list") == ["plain"]
        asked = call("tools/list", _meta=META)
        headers = {"mcp_method": "tools/list", "mcp_protocol_version": MODERN}
        body = await (await running.post(asked, **headers)).json()
        assert [tool["name"] for tool in body["result"]["tools"]] == ["array", "plain"]
        assert "'array' is only for clients of 2026-07-28" in (health(running) or "")
    async with behind(tmp_path, server, options=OFTEN) as running:
        server.failing = set(LISTS)
        assert await listed(running, "tools/list") == ["plain"], "after a restart, too"


async def test_tools_are_listed_although_the_server_does_not_declare_them(tmp_path: Path) -> None:
    server = Server()
    server.capabilities = {}
    async with behind(tmp_path, server, options=OFTEN) as running:
        for method in LISTS:
            assert await listed(running, method) == [
                item["name"] for item in server.items[method]
            ], method
        hello = await (await running.post(HELLO)).json()
        assert {"tools", "prompts", "resources"} <= hello["result"]["capabilities"].keys()


async def test_a_capability_that_clients_could_not_read_is_told(tmp_path: Path) -> None:
    server = Server()
    server.capabilities = {"tools": {}, "experimental": {"a": 1}}
    async with behind(tmp_path, server, options=OFTEN) as running:
        assert await listed(running, "tools/list") == ["one"]
        said = "its capability 'experimental' is not shown as it is: clients could not read it"
        assert health(running) == said


async def test_a_list_that_is_not_declared_is_asked_for_once_and_silently(tmp_path: Path) -> None:
    server = Server()
    server.capabilities = {"prompts": {}}
    server.failing = {"tools/list"}
    async with behind(tmp_path, server, options=OFTEN) as running:
        assert await listed(running, "prompts/list") == ["ask"]
        assert await listed(running, "tools/list") == []
        assert health(running) is None
        upstream = running.gateway.registry.upstreams["kept"]
        upstream.catalog_sync.changed(frozenset(CatalogKind) - {CatalogKind.INITIALIZE})
        await asked(server, "prompts/list", 2)
        assert server.asked["tools/list"] == 1
        assert server.asked["resources/list"] == 0, "a server may end itself at an unknown method"


DEEP = "[" * 3000 + "]" * 3000
ODD = {
    "a time in 400 digits": b'{"tools":[],"ttlMs":1' + b"0" * 400 + b"}",
    "a time out of range": b'{"tools":[],"ttlMs":1e999}',
    "a schema without a bottom": b'{"tools":[{"name":"x","inputSchema":' + DEEP.encode() + b"}]}",
    "a name in another encoding": b'{"tools":[{"name":"\xe9"}]}',
    "a description in another encoding": b'{"tools":[{"name":"x","description":"\xe9"}]}',
    "half an emoji": b'{"tools":[{"name":"one","description":"\\ud83d"}]}',
    "no list": b'{"tools":{"name":"x"}}',
    "no object": b"[]",
    "a cursor that is a number": b'{"tools":[],"nextCursor":7}',
    "an item twice": b'{"tools":[{"name":"one"},{"name":"one","description":"Other."},7,{"name":7}]}',
}


async def test_a_server_that_showed_no_tools_at_first_cannot_slip_new_ones_in(
    tmp_path: Path,
) -> None:
    options = replace(OFTEN, hold_new_tools=True)
    server = Server()
    tool = server.items["tools/list"].pop()
    async with serve(server) as url:
        kept = http("kept", url + "/mcp")
        async with gateway_of(tmp_path, kept, options=options) as running:
            assert await listed(running, "tools/list") == []
            server.items["tools/list"] = [tool]
            upstream = running.gateway.registry.upstreams["kept"]
            upstream.catalog_sync.changed(frozenset({CatalogKind.TOOLS}))
            assert (await running.heard("catalog.altered", tools=["one"]))["held"]
            await running.kept("kept", '"one"')
        async with gateway_of(tmp_path, kept, options=options) as running:
            assert await listed(running, "tools/list") == []
            refused = await (await running.post(call("tools/call", name="one"))).json()
            assert refused["error"]["code"] == HELD
            identity = running.gateway.registry.upstreams["kept"].definition.id
            (waiting,) = await altered_tools(running.database, identity)
            assert waiting["approved"] is None
            approved = {"name": "kept", "tools": {"one": waiting["offered"]}}
            await approve_tools(running.database, approved)
            await running.gateway.reload()
            assert await listed(running, "tools/list") == ["one"]


async def test_a_method_nobody_knows_reaches_no_held_tool_but_the_server_of_a_resource(
    tmp_path: Path,
) -> None:
    first, second = Server(), Server()
    second.items["resources/list"] = [{"uri": "its://2", "name": "its"}]
    second.items["tools/list"] = [{"name": "two", "inputSchema": {}}]
    options = replace(OFTEN, hold_new_tools=True)
    async with serve(first) as url, serve(second) as other_url:
        servers = (http("kept", url + "/mcp"), http("other", other_url + "/mcp"))
        async with gateway_of(tmp_path, *servers, options=options) as running:
            await listed(running, "resources/list")
            await running.post(call("extra/thing", uri="its://2"))
            assert (first.asked["extra/thing"], second.asked["extra/thing"]) == (0, 1)
            await running.post(call("extra/thing", name="ask"))
            assert (first.asked["extra/thing"], second.asked["extra/thing"]) == (1, 1)
            first.items["tools/list"].append({"name": "new", "inputSchema": {}})
            keeping = running.gateway.registry.upstreams["kept"].catalog_sync
            keeping.changed(frozenset({CatalogKind.TOOLS}))
            await running.heard("catalog.altered", tools=["new"])
            refused = await (await running.post(call("extra/thing", name="new"))).json()
            assert refused["error"]["code"] == HELD
            assert first.asked["extra/thing"] == 1


async def test_a_resource_is_asked_of_every_server_whose_template_it_fits(tmp_path: Path) -> None:
    broad, narrow = Server(), Server()
    broad.items["resources/templates/list"] = [{"uriTemplate": "any://{+rest}", "name": "any"}]
    narrow.items["resources/templates/list"] = [{"uriTemplate": "any://two/{id}", "name": "two"}]
    narrow.raw["resources/read"] = b'{"contents":[{"uri":"any://two/7","text":"seven"}]}'
    async with serve(broad) as url, serve(narrow) as other_url:
        servers = (http("broad", url + "/mcp"), http("narrow", other_url + "/mcp"))
        async with gateway_of(tmp_path, *servers) as running:
            read = await (await running.post(call("resources/read", uri="any://two/7"))).json()
            assert read["result"]["contents"][0]["text"] == "seven"
            read = await (await running.post(call("resources/read", uri="any://other"))).json()
            assert read["error"]["message"] == "no resources/read"
            assert (broad.asked["resources/read"], narrow.asked["resources/read"]) == (2, 1)


async def test_tools_that_could_not_be_had_at_first_are_no_new_ones(tmp_path: Path) -> None:
    server = Server()
    server.failing = {"tools/list"}
    options = replace(OFTEN, hold_new_tools=True)
    async with behind(tmp_path, server, options=options) as running:
        assert await listed(running, "prompts/list") == ["ask"]
        assert await listed(running, "tools/list") == []
        server.failing = set()
        await running.kept("kept", '"one"')
        assert await listed(running, "tools/list") == ["one"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("hold", [False, True])
async def test_odd_lists_of_one_server_end_nothing(tmp_path: Path, odd: str, *, hold: bool) -> None:
    """Not its own refreshing, either, nor what the others show: once it is well, all is as ever."""
    server, other = Server(), Server()
    other.items["tools/list"] = [{"name": "sound", "inputSchema": {"type": "object"}}]
    options = replace(OFTEN, hold_altered_tools=hold)
    async with serve(server) as url, serve(other) as other_url:
        servers = (http("kept", url + "/mcp"), http("other", other_url + "/mcp"))
        async with gateway_of(tmp_path, *servers, options=options) as running:
            assert await listed(running, "tools/list") == ["one", "sound"]
            keeping = running.gateway.registry.upstreams["kept"].catalog_sync
            for times, raw in ((2, ODD[odd]), (3, ODD[odd].replace(b":", b": "))):
                server.raw["tools/list"] = raw
                keeping.changed(frozenset({CatalogKind.TOOLS}))
                await asked(server, "tools/list", times)
                assert "sound" in await listed(running, "tools/list")
            server.raw.clear()
            server.items["tools/list"].append({"name": "two", "inputSchema": {"type": "object"}})
            keeping.changed(frozenset({CatalogKind.TOOLS}))
            await running.kept("kept", '"two"')
            await running.until(lambda: health(running) is None)
            assert "two" in await listed(running, "tools/list")
