"""Servers behind a URL that answer as real servers do, and not as the specification says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from local_mcp_gateway.gateway.upstreams import streamable_http
from tests.gateway.messages import META, call
from tests.gateway.support import QUICK, Running, gateway_of, http, serve
from tests.gateway.using import names, session, use

Headers = list[tuple[bytes, bytes]]
JSON = (b"content-type", b"application/json")
TEXT = (b"content-type", b"text/html")
STREAM = (b"content-type", b"text/event-stream")
Reply = tuple[int, Headers, bytes]
SIGN_IN = "it wants you to sign in (HTTP 401): `server login odd`"


def rpc(message: Mapping[str, Any], status: int = 200, **members: Any) -> Reply:
    return status, [JSON], json.dumps({"jsonrpc": "2.0", "id": message["id"], **members}).encode()


def refused(message: Mapping[str, Any], said: str, status: int = 200, code: int = -32000) -> Reply:
    return rpc(message, status, error={"code": code, "message": said})


class Server:
    """Speaks 2025-11-25, in sessions that it forgets when `forgotten` is set; `say` can answer otherwise."""

    forgotten: Reply | None = None

    def __init__(self) -> None:
        self.heard = Counter[str]()
        self.sessions = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        message = json.loads(body) if body else {}
        self.heard[message.get("method", scope["method"])] += 1
        self.receive = receive
        status, headers, body = await self.answer(scope, message)
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, scope: Mapping[str, Any], message: dict[str, Any]) -> Reply:
        given = dict(scope["headers"])
        said = await self.say(message, given) if message else (405, [TEXT], b"no")
        if said is not None:
            return said
        if message["method"] == "initialize":
            self.sessions += 1
            known = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            info = {"serverInfo": {"name": "odd", "version": "1"}}
            status, headers, body = rpc(message, result={**known, **info})
            return status, [*headers, (b"mcp-session-id", b"%d" % self.sessions)], body
        if self.forgotten is not None and given.get(b"mcp-session-id") != b"%d" % self.sessions:
            return self.forgotten
        if "id" not in message:
            return 202, [], b""
        match message["method"]:
            case "tools/list":
                tool = {"name": "echo", "inputSchema": {"type": "object"}}
                return rpc(message, result={"tools": [tool]})
            case "tools/call":
                return rpc(message, result={"content": [{"type": "text", "text": "echo"}]})
            case "ping":
                return rpc(message, result={})
        return refused(message, "no such method", code=-32601)

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        """Answer otherwise than a good server would, or not."""
        del message, given
        return None


@asynccontextmanager
async def behind(
    tmp_path: Path, server: Server, path: str = "/mcp", **changes: Any
) -> AsyncIterator[Running]:
    async with serve(server) as url:
        definition = http("odd", url + path, **changes)
        async with gateway_of(tmp_path, definition) as running:
            yield running


# --- which protocol it speaks -----------------------------------------------------------------


class Undiscoverable(Server):
    """Answers `server/discover` with what it is given; None is silence."""

    def __init__(self, reply: Reply | None) -> None:
        super().__init__()
        self.reply = reply

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        del given
        if message["method"] != "server/discover":
            return None
        if self.reply is None:
            await self.receive()  # until the client leaves
        return self.reply


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 415, 422, 429, 500, 501, 503])
async def test_an_http_error_on_discover_means_a_handshake(tmp_path: Path, status: int) -> None:
    server = Undiscoverable((status, [TEXT], b"<h1>Oops</h1>"))
    async with behind(tmp_path, server) as running:
        assert await names(running) == ["echo"]
        assert await use(running, "echo") == "echo"


@pytest.mark.parametrize(
    "reply",
    [
        (202, [], b""),
        (200, [JSON], b""),
        (204, [], b""),
        (200, [TEXT], b"<h1>Welcome</h1>"),
        (200, [JSON], b'{"ok":true}'),
        (200, [JSON], b'{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"no"}}'),
        (200, [JSON], b'{"jsonrpc":"2.0","id":1,"result":{}}'),
        (200, [JSON], b'{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2025-11-25"]}}'),
        (200, [STREAM], b""),
        (400, [JSON], b'{"error":"invalid_request"}'),
        (404, [JSON, (b"content-encoding", b"gzip")], b""),
    ],
)
async def test_any_other_answer_to_discover_means_a_handshake(tmp_path: Path, reply: Reply) -> None:
    async with behind(tmp_path, Undiscoverable(reply)) as running:
        assert await names(running) == ["echo"]


async def test_silence_on_discover_means_a_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamable_http, "DISCOVER_S", 0.5)
    async with behind(tmp_path, Undiscoverable(None)) as running:
        assert await names(running) == ["echo"]


class Unready(Server):
    """Never accepts `notifications/initialized`."""

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        del given
        if message["method"] == "notifications/initialized":
            await self.receive()  # until the client leaves
        return None


async def test_a_server_that_never_accepts_initialized_is_used_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamable_http, "INITIALIZED_S", 0.5)
    async with behind(tmp_path, Unready()) as running:
        assert await names(running) == ["echo"]
        assert await use(running, "echo") == "echo"


async def test_a_connection_closed_on_discover_means_a_handshake(tmp_path: Path) -> None:
    inner = Server()

    async def closing(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        message = await receive()

        async def again() -> Any:
            return message

        if b"server/discover" in message.get("body", b""):
            start = {"type": "http.response.start", "status": 200}
            await send({**start, "headers": [JSON, (b"content-length", b"50")]})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await inner(scope, again, send)

    async with serve(closing) as url, gateway_of(tmp_path, http("odd", url)) as running:
        assert await names(running) == ["echo"]


class Older(Server):
    """Refuses every version but its own, in this way."""

    def __init__(self, own: str, status: int, *, as_text: bool = False) -> None:
        super().__init__()
        self.own, self.status, self.as_text = own, status, as_text
        self.asked: list[str] = []

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        del given
        if message["method"] != "initialize":
            return None
        self.asked.append(message["params"]["protocolVersion"])
        if self.asked[-1] != self.own:
            text = f"Unsupported protocol version (supported versions: {self.own}, 1999-01-01)"
            if self.as_text:
                return self.status, [TEXT], text.encode()
            return refused(message, text, self.status)
        known = {"protocolVersion": self.own, "capabilities": {"tools": {}}}
        return rpc(message, result={**known, "serverInfo": {"name": "old", "version": "1"}})


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(("own", "status"), [("2024-10-07", 400), ("2025-03-26", 400)])
async def test_a_server_that_names_an_older_version_is_asked_again_with_it(
    tmp_path: Path, own: str, status: int, *, as_text: bool
) -> None:
    server = Older(own, status, as_text=as_text)
    async with behind(tmp_path, server) as running:
        assert await names(running) == ["echo"]
        assert server.asked == ["2025-11-25", own]


# --- a session that the server has forgotten ------------------------------------------------------

GONE = b'{"jsonrpc":"2.0","id":null,"error":{"code":%d,"message":"%s"}}'


@pytest.mark.parametrize(
    "reply",
    [
        (404, [TEXT], b""),
        (404, [JSON], GONE % (-32001, b"Session not found")),
        (410, [TEXT], b"Gone"),
        (400, [JSON], GONE % (-32000, b"Bad Request: No valid session ID provided")),
        (400, [TEXT], b"Invalid session ID"),
        (401, [JSON], b'{"error":"invalid_token"}'),
        (403, [TEXT], b"Forbidden"),
        (403, [JSON], GONE % (-32000, b"Forbidden")),
        (200, [JSON], GONE % (-32001, b"Session not found")),
        (200, [JSON], GONE % (-32600, b"Invalid or expired session")),
    ],
)
async def test_a_session_that_the_server_has_forgotten_is_made_again_and_the_call_repeated(
    tmp_path: Path, reply: Reply
) -> None:
    server = Server()
    async with behind(tmp_path, server) as running:
        assert await use(running, "echo") == "echo"
        server.sessions, server.forgotten = 5, reply
        assert await use(running, "echo") == "echo"
        assert (server.sessions, server.heard["tools/call"]) == (6, 3)
        assert running.gateway.status()["servers"]["odd"]["state"] == "ready"


class Watched(Server):
    """Has a GET stream, which ends when the server forgets its sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.forgets, self.renewed = asyncio.Event(), asyncio.Event()
        self.made_up_for = {"resources/subscribe", "logging/setLevel", "tools/list"}
        """What has still to come after that."""

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["method"] != "GET" or self.forgets.is_set():
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [STREAM]})
        await send({"type": "http.response.body", "body": b"retry: 1\n\n", "more_body": True})
        await self.forgets.wait()
        await send({"type": "http.response.body", "body": b""})

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        if message["method"] == "initialize":
            self.sessions += 1
            known = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}}}
            info = {"serverInfo": {"name": "odd", "version": "1"}}
            status, headers, body = rpc(message, result={**known, **info})
            return status, [*headers, (b"mcp-session-id", b"%d" % self.sessions)], body
        if self.forgets.is_set() and int(given.get(b"mcp-session-id", b"0")) < 5:
            return 404, [TEXT], b""
        if self.forgets.is_set():
            self.made_up_for.discard(message["method"])
            if not self.made_up_for:
                self.renewed.set()
        said = message["method"] in {"resources/subscribe", "logging/setLevel"}
        return rpc(message, result={}) if said else None


@pytest.mark.parametrize("by_call", [True, False])
async def test_what_clients_watch_is_watched_in_the_new_session_too(
    tmp_path: Path, *, by_call: bool
) -> None:
    server = Watched()
    async with behind(tmp_path, server) as running:
        headers = await session(running)
        await running.post(call("resources/subscribe", uri="x:y"), **headers)
        await running.post(call("logging/setLevel", level="error"), **headers)
        server.sessions = 5
        server.forgets.set()
        if by_call:
            await running.post(call("tools/call", name="echo"), **headers)
        with anyio.fail_after(30):
            await server.renewed.wait()


class Revoked(Watched):
    """Refuses everything with its stream: the token that it was given is not valid any more."""

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        if self.forgets.is_set():
            return 401, [JSON], b'{"error":"invalid_token"}'
        return await super().say(message, given)


async def test_a_server_that_refuses_its_stream_and_its_session_is_not_shown_as_ready(
    tmp_path: Path,
) -> None:
    server = Revoked()
    async with behind(tmp_path, server) as running:
        assert await use(running, "echo") == "echo"
        server.forgets.set()
        await running.heard("upstream.lost", reason=SIGN_IN)
        assert running.gateway.status()["servers"]["odd"]["state"] != "ready"


class Touchy(Server):
    """Answers a call with an error that may be taken for a lost session, which it is not."""

    reply: Reply

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        del given
        if message["method"] != "tools/call":
            return None
        status, headers, body = self.reply
        return status, headers, body.replace(b"ID", json.dumps(message["id"]).encode())


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            refused({"id": "ID"}, "The browser session was not found"),
            "The browser session was not found",
        ),
        (refused({"id": "ID"}, "Pass a session", 400, -32602), "Pass a session"),
        (
            (403, [TEXT], b"not this tool"),
            "The server 'odd' is not available: it answered HTTP 403",
        ),
        ((500, [TEXT], b"crash"), "The server 'odd' is not available: it answered HTTP 500"),
    ],
)
async def test_an_error_of_one_call_leaves_the_session_alone_and_is_not_repeated(
    tmp_path: Path, reply: Reply, said: str
) -> None:
    server = Touchy()
    server.reply = reply[0], reply[1], reply[2].replace(b'"ID"', b"ID")
    async with behind(tmp_path, server) as running:
        assert (await use(running, "echo"))["message"] == said
        assert (server.sessions, server.heard["tools/call"]) == (1, 1)
        assert running.gateway.status()["servers"]["odd"]["state"] == "ready"


class Closed(Server):
    """Refuses everything once it is closed."""

    closed: Reply | None = None

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        del message, given
        return self.closed


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((404, [TEXT], b""), "it answered HTTP 404"),
        ((403, [TEXT], b""), "it answered HTTP 403"),
        ((502, [TEXT], b"Bad Gateway"), "it answered HTTP 502"),
        ((503, [TEXT], b"Bad Gateway"), "it answered HTTP 503"),
        (
            (401, [JSON], b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"no"}}'),
            SIGN_IN,
        ),
    ],
)
async def test_a_server_that_refuses_everything_is_not_shown_as_ready(
    tmp_path: Path, reply: Reply, reason: str
) -> None:
    server = Closed()
    async with behind(tmp_path, server) as running:
        assert await use(running, "echo") == "echo"
        server.closed = reply
        assert (await use(running, "echo"))["message"].endswith(reason)
        await running.heard("upstream.lost", reason=reason)
        server.closed = None
        assert await use(running, "echo") == "echo"


async def test_a_reload_tries_a_server_again_at_once_and_finds_out_what_refuses_everything(
    tmp_path: Path,
) -> None:
    server = Closed()
    async with serve(server) as url:
        options = replace(QUICK, backoff_max_s=3600)
        async with gateway_of(tmp_path, http("odd", url), options=options) as running:
            assert await use(running, "echo") == "echo"
            server.closed = 403, [TEXT], b""
            await running.gateway.reload()
            await running.heard("upstream.lost", reason="it answered HTTP 403")
            server.closed = None
            connected = [name for name, _ in running.said].count("upstream.connected")
            await running.gateway.reload()
            await running.until(
                lambda: [name for name, _ in running.said].count("upstream.connected") > connected
            )


class ModernOnly(Server):
    """Speaks 2026-07-28, until it is closed."""

    closed = False

    async def say(self, message: Mapping[str, Any], given: Mapping[bytes, bytes]) -> Reply | None:
        del given
        if self.closed:
            return 503, [TEXT], b""
        if message["method"] == "server/discover":
            known = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            return rpc(message, result={"resultType": "complete", **known})
        if message["method"] == "initialize":
            return refused(message, "no such method", 404, -32601)
        return None


async def test_a_stateless_server_that_refuses_everything_is_not_shown_as_ready(
    tmp_path: Path,
) -> None:
    server = ModernOnly()
    async with behind(tmp_path, server) as running:
        message = call("tools/call", name="echo", arguments={}, _meta=META)
        assert await use(running, "echo") == "echo"
        server.closed = True
        headers = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call"}
        answer = await (await running.post(message, **headers, mcp_name="echo")).json()
        assert answer["error"]["message"].endswith("it answered HTTP 503")
        await running.heard("upstream.lost", reason="it answered HTTP 503")


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({}, SIGN_IN),
        (
            {"authorization": "x"},
            "it refuses its Authorization header (HTTP 401): give it a valid one with `server edit odd",
        ),
    ],
)
async def test_a_server_that_wants_a_sign_in_says_so(
    tmp_path: Path, headers: dict[str, str], what: str
) -> None:
    server = Closed()
    server.closed = 401, [JSON], b'{"error":"invalid_token","error_description":"Missing"}'
    async with behind(tmp_path, server, headers=headers) as running:
        said = await use(running, "echo")
        assert what in said["message"]


# --- cookies, and the older transport -------------------------------------------------------------


class Sticky(Server):
    """A load balancer: a session lives where its cookie says; each `initialize` goes to another place."""

    async def answer(self, scope: Mapping[str, Any], message: dict[str, Any]) -> Reply:
        status, headers, body = await super().answer(scope, message)
        sent = dict(scope["headers"]).get(b"cookie", b"")
        if message.get("method") == "initialize":
            cookie = b"LB=a/b==%d; Path=/; HttpOnly" % self.sessions
            return status, [*headers, (b"set-cookie", cookie)], body
        if message.get("method") != "server/discover" and sent != b"LB=a/b==%d" % self.sessions:
            return 400, [TEXT], b"wrong node"
        return status, headers, body


async def test_the_cookies_of_a_server_are_sent_back_to_it_and_to_no_other(tmp_path: Path) -> None:
    server, other = Sticky(), Sticky()
    other.sessions = 40
    async with serve(server) as url, serve(other) as foreign:
        two = http("odd", url + "/mcp"), http("other", foreign + "/mcp")
        async with gateway_of(tmp_path, *two) as running:
            assert await use(running, "echo") == "echo"
            assert await use(running, "other__echo") == "echo"
            assert (server.sessions, other.sessions) == (1, 41)


class Older2024:
    """Speaks HTTP+SSE only: a GET is the stream, a POST to the same path gets this status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["method"] == "GET":
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [STREAM]})
            await self.stream(send, receive)
            return
        message = json.loads((await receive())["body"])
        status = 202 if scope["path"] == "/messages" else self.status
        if status == 202 and "id" in message:
            known = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}
            tool = {"name": "echo", "inputSchema": {"type": "object"}}
            results: dict[str, Any] = {
                "initialize": {**known, "serverInfo": {"name": "old", "version": "1"}},
                "tools/list": {"tools": [tool]},
            }
            result = results.get(message["method"], {})
            self.lines.put_nowait(rpc(message, result=result)[2])
        await send({"type": "http.response.start", "status": status, "headers": [TEXT]})
        await send({"type": "http.response.body", "body": b""})

    async def stream(self, send: Any, receive: Any) -> None:
        event, part = b"event: endpoint\ndata: /messages\n\n", "http.response.body"
        leaving = asyncio.ensure_future(receive())
        while True:
            await send({"type": part, "body": event, "more_body": True})
            line = asyncio.ensure_future(self.lines.get())
            await asyncio.wait((line, leaving), return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                line.cancel()
                return
            event = b"event: message\ndata: " + line.result() + b"\n\n"


@pytest.mark.parametrize("status", [400, 404, 405, 415])
async def test_a_url_of_the_older_transport_is_found_out(tmp_path: Path, status: int) -> None:
    async with serve(Older2024(status)) as url:
        async with gateway_of(tmp_path, http("old", url + "/sse")) as running:
            assert await names(running) == ["echo"]
            await running.wrote("its URL speaks the older HTTP+SSE transport")


async def test_a_url_that_speaks_neither_transport_is_told_by_its_first_answer(
    tmp_path: Path,
) -> None:
    server = Closed()
    server.closed = 405, [TEXT], b""
    async with serve(server) as url:
        options = replace(QUICK, list_timeout_s=1)
        async with gateway_of(tmp_path, http("odd", url), options=options) as running:
            assert await names(running) == []
            await running.heard("upstream.lost", reason="it answered HTTP 405")


# --- connections that the server closes ---------------------------------------------------------------


@asynccontextmanager
async def closing(server: Server) -> AsyncIterator[str]:
    """Serve over raw sockets, and close each connection after one answer without having said so."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            named = [line.partition(": ") for line in head[1:] if line]
            headers = [(name.lower().encode(), value.encode()) for name, _, value in named]
            body = await reader.readexactly(int(dict(headers).get(b"content-length", b"0")))
            message = json.loads(body) if body else {}
            server.heard[message.get("method", "GET")] += 1
            status, more, body = await server.answer({"headers": headers}, message)
            lines = [b"%s: %s\r\n" % header for header in more]
            start = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n" % (status, len(body))
            writer.write(start + b"".join(lines) + b"\r\n" + body)
        writer.close()

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as listening:
        yield "http://{}:{}/mcp".format(*listening.sockets[0].getsockname())


async def test_a_server_that_closes_after_each_answer_without_saying_so_works(
    tmp_path: Path,
) -> None:
    server = Server()
    async with closing(server) as url, gateway_of(tmp_path, http("odd", url)) as running:
        answers = [await use(running, "echo") for _ in range(300)]
        assert answers == ["echo"] * 300
        assert server.heard["tools/call"] == 300
