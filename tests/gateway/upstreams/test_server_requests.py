"""What servers ask: progress on the answer reaches them, and they can take a question back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.gateway.clients import sessions
from tests.gateway.messages import HELLO, call
from tests.gateway.servers import asking
from tests.gateway.support import Running, gateway_of, http, serve, stdio
from tests.gateway.using import Stream, opened, posted, use


class Asking:
    """The server of `servers/asking.py` over HTTP: what it says of a call comes in that call's stream."""

    def __init__(self) -> None:
        self.progress: list[Any] = []
        self.taken = asyncio.Event()
        self._answer: Any = None

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        message = json.loads((await receive())["body"] or b"{}")
        method, identity = message.get("method"), message.get("id")
        results: dict[str, Any] = {
            "initialize": {"protocolVersion": "2025-03-26", "capabilities": {"tools": {}}},
            "tools/list": {"tools": [{"name": "ask", "inputSchema": {}}]},
        }
        if method == "notifications/progress":
            self.progress.append(message["params"])
            self.taken.set()
        elif method is None and identity == "q":
            self._answer = message.get("result")
            self.taken.set()
        status, kind, body = 202, b"application/json", b""
        if scope["method"] != "POST":
            status = 405
        elif method in results:
            status = 200
            body = json.dumps([asking.answered(identity, results[method])]).encode()
        elif method == "server/discover":
            error = {"code": -32601, "message": "no"}
            status = 400
            body = json.dumps({"jsonrpc": "2.0", "id": identity, "error": error}).encode()
        elif method == "tools/call":
            status, kind = 200, b"text/event-stream"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if method == "tools/call":
            await self.ask(message, send)
        await send({"type": "http.response.body", "body": body})

    async def ask(self, message: Any, send: Any) -> None:
        async def event(*messages: Any) -> None:
            data = json.dumps(messages[0] if len(messages) == 1 else messages)
            body = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})

        await event(asking.NEWS, asking.QUESTION)
        await self.taken.wait()
        if message["params"]["arguments"].get("call_off"):
            await event(asking.CALLED_OFF)
            await event(asking.answered(message["id"], asking.text("called off")))
        else:
            await event(asking.answered(message["id"], asking.text(self._answer)))


@pytest.fixture(params=["stdio", "http"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    if request.param == "stdio":
        async with gateway_of(tmp_path, stdio("asking", "asking.py")) as running:
            yield running
    else:
        server = Asking()
        async with serve(server) as url:
            async with gateway_of(tmp_path, http("asking", url)) as running:
                yield running
            server.taken.set()


@asynccontextmanager
async def question(
    running: Running, *, call_off: bool
) -> AsyncIterator[tuple[Stream, dict[str, str], Any]]:
    """Call the tool in a session that can be asked; yield the stream, the session and the question."""
    params = {**HELLO["params"], "capabilities": {"elicitation": {}}}
    hello = await running.post({**HELLO, "params": params})
    session = {"mcp_session_id": hello.headers["mcp-session-id"]}
    message = call("tools/call", 5, name="ask", arguments={"call_off": call_off})
    async with posted(running, session, message) as stream:
        _, news = await stream.next()
        assert news["params"]["data"] == "in a batch"
        yield stream, session, (await stream.next())[1]


async def test_a_server_hears_of_progress_and_takes_its_question_back(running: Running) -> None:
    async with question(running, call_off=True) as (stream, session, asked):
        token = asked["params"]["_meta"]["progressToken"]
        assert (asked["method"], token == 7) == ("elicitation/create", False)
        stray = {"progressToken": "gateway-1", "progress": 1}
        for params in (stray, {"progressToken": token, "progress": 1, "message": "thinking"}):
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            assert (await running.post(note, **session)).status == 202
        _, called_off = await stream.next()
        assert called_off["method"] == "notifications/cancelled"
        assert called_off["params"]["requestId"] == asked["id"]
        _, answer = await stream.next()
        assert answer["result"] == asking.text("called off")


async def test_a_question_is_answered(running: Running) -> None:
    async with question(running, call_off=False) as (stream, session, asked):
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}}
        assert (await running.post(answer, **session)).status == 202
        assert (await stream.next())[1]["result"] == asking.text({"action": "decline"})


async def test_a_question_of_a_call_that_was_cancelled_waits_no_longer(running: Running) -> None:
    async with question(running, call_off=False) as (stream, session, _):
        registry = running.gateway.registry
        own = [upstream for _, upstream in registry.owned_at("asking")]
        (upstream,) = own or [registry.upstreams["asking"]]
        server_requests = upstream.lifecycle.connection._server_requests  # type: ignore[union-attr]
        assert len(server_requests.open) == 1
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
        await running.post(note, **session)
        await running.until(lambda: not server_requests.open)
        await stream.next()


async def test_progress_goes_back_under_the_token_of_the_server(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("asking", "asking.py")) as running:
        async with question(running, call_off=True) as (_, session, asked):
            token = asked["params"]["_meta"]["progressToken"]
            params = {"progressToken": token, "progress": 0.5, "extra": [1]}
            note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
            await running.post(note, **session)
            line = await running.wrote("progress ")
            assert json.loads(line.removeprefix("progress ")) == {**params, "progressToken": 7}


@asynccontextmanager
async def asked_later(
    running: Running, headers: dict[str, str]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Let the server ask after its call was answered; yield the question, as this client got it."""
    async with opened(running, headers) as stream:
        await ask_later(running, headers)
        identity, message = await stream.next()
        while message["method"] == "notifications/message":  # it was met
            identity, message = await stream.next()
        assert message["method"] == "elicitation/create"
        yield identity or "", message


async def ask_later(running: Running, headers: dict[str, str]) -> None:
    message = call("tools/call", 6, name="ask", arguments={"later": True})
    await running.post(message, **headers)


async def able(running: Running) -> dict[str, str]:
    """Return the session of a client that can be asked."""
    params = {**HELLO["params"], "capabilities": {"elicitation": {}}}
    hello = await running.post({**HELLO, "params": params})
    return {"mcp_session_id": hello.headers["mcp-session-id"]}


async def told(running: Running) -> Any:
    """Return what the server was told in answer to its question."""
    return json.loads((await running.wrote("told ")).removeprefix("told "))


async def test_a_question_outside_of_any_call_goes_to_the_client_that_listens(
    tmp_path: Path,
) -> None:
    async with gateway_of(tmp_path, stdio("asking", "asking.py")) as running:
        headers = await able(running)
        async with asked_later(running, headers) as (_, message):
            reply = {"jsonrpc": "2.0", "id": message["id"], "result": {"action": "accept"}}
            await running.post(reply, **headers)
            assert await told(running) == {"action": "accept"}


async def test_nobody_else_is_asked_when_the_client_of_the_call_cannot_be(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("asking", "asking.py")) as running:
        one, other = await able(running), await able(running)
        async with opened(running, one), opened(running, other):
            await use(running, "ask", later=True)
            assert "No client is known" in (await told(running))["message"]


@pytest.mark.parametrize("goodbye", [True, False])
async def test_a_server_is_told_when_the_client_that_it_asked_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, goodbye: bool
) -> None:
    if not goodbye:
        monkeypatch.setattr(sessions, "GRACE_S", 0.1)
    async with gateway_of(tmp_path, stdio("asking", "asking.py")) as running:
        headers = await able(running)
        async with asked_later(running, headers):
            if goodbye:
                named = {"Mcp-Session-Id": headers["mcp_session_id"]}
                async with running.http.delete(running.url, headers=named) as reply:
                    assert reply.status == 200
        assert (await told(running))["message"] == "The client has left"


async def test_a_client_that_comes_back_can_still_answer(tmp_path: Path) -> None:
    async with gateway_of(tmp_path, stdio("asking", "asking.py")) as running:
        headers = await able(running)
        async with asked_later(running, headers) as (identity, message):
            pass
        client = running.gateway.sessions.of_stream(headers["mcp_session_id"])
        assert client is not None
        before = {"Last-Event-ID": str(int(identity) - 1)}
        async with opened(running, headers, **before) as stream:
            assert (await stream.next())[1] == message
            assert client.abandon_timer is None
            reply = {"jsonrpc": "2.0", "id": message["id"], "result": {"action": "cancel"}}
            await running.post(reply, **headers)
            assert await told(running) == {"action": "cancel"}


async def test_a_batch_does_not_wait_for_a_client_that_listens_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for a call in a batch goes to the GET stream: the batch has no stream."""
    monkeypatch.setattr(sessions, "GRACE_S", 0.1)
    async with gateway_of(tmp_path, stdio("plain", "plain.py")) as running:
        params = {**HELLO["params"], "protocolVersion": "2025-03-26"}
        hello = await running.post({**HELLO, "params": params})
        headers = {"mcp_session_id": hello.headers["mcp-session-id"]}
        batch = [call("tools/call", 1, name="ask", arguments={"method": "acme/weigh"})]
        async with opened(running, headers) as stream:
            post_request = asyncio.create_task(running.post(batch, **headers))
            assert (await stream.next())[1]["method"] == "acme/weigh"
        (answer,) = await (await post_request).json()
        assert "The client has left" in answer["result"]["content"][0]["text"]
