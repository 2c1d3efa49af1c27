"""Who is admitted: by which token, to what, and until when."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import which
from traceback import format_exception
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, ClientSession, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.gateway.clients import Admission, RefusalDelay, TokenRefused
from local_mcp_gateway.gateway.clients.admission import AT_ONCE, MOST_WAITING
from local_mcp_gateway.store import (
    ClientToken,
    Member,
    Policy,
    ProfileDefinition,
    add_token,
    list_tokens,
    new_token,
    queries,
    remove_token,
)
from tests.gateway.messages import HELLO, META, MODERN, call, modern
from tests.gateway.support import QUICK, Running, gateway_of, http, serve, stdio
from tests.gateway.upstreams.test_network import Recording
from tests.gateway.using import ACCEPT, opened

STRICT = replace(QUICK, require_token=True)
PLAIN = stdio("plain", "plain.py")
PING = call("ping")
MISSING = "This gateway wants a token"
UNKNOWN = "The token is not known here"
GONE = "The token was revoked or has expired, and this request has ended with it"


@dataclass
class Known:
    """A gateway that demands tokens, and what its clients show."""

    running: Running

    async def token(self, name: str, *profiles: str, **changes: Any) -> dict[str, str]:
        """Make a token; return the header that shows it."""
        ids = {p.name: p.id for p in await queries.list_profiles(self.running.database)}
        reached = frozenset(ids[profile] for profile in profiles) if profiles else None
        token, text = new_token(ClientToken(name, profiles=reached, **changes))
        await add_token(self.running.database, token)
        await self.running.gateway.reload()
        return {"authorization": f"Bearer {text}"}

    async def revoke(self, name: str) -> None:
        await remove_token(self.running.database, name)
        await self.running.gateway.reload()

    async def refused(self, sentence: str, **headers: str) -> None:
        """Assert that a request is refused with this sentence, where every client looks for it."""
        reply = await self.running.post(PING, **headers)
        message = (await reply.json())["error"]["message"]
        assert (reply.status, sentence in message) == (401, True), message
        challenge = reply.headers["www-authenticate"]
        assert challenge.startswith(f'Bearer error="invalid_token", error_description="{sentence}')
        assert "resource_metadata" not in challenge

    async def session(self, shown: dict[str, str], path: str = "/mcp") -> dict[str, str]:
        reply = await self.running.post(HELLO, path=path, **shown)
        assert reply.status == 200
        return {**shown, "mcp_session_id": reply.headers["mcp-session-id"]}


async def test_a_token_that_was_admitted_is_refused_as_soon_as_it_changes() -> None:
    admission = Admission(STRICT, lambda: None)
    token, text = new_token(ClientToken("laptop"))
    changed = replace(token, policy=Policy(read_only=True))
    expired = replace(token, expires_at=now_ms() - 1)

    def admitted() -> ClientToken | None:
        return admission.admit({"authorization": f"Bearer {text}"})

    for kept in (token, changed):
        admission.replace([kept])
        assert admitted() is admitted() is kept
        with pytest.raises(TokenRefused, match=UNKNOWN):
            admission.admit({"authorization": f"Bearer {text[:-1]}-"})
        with pytest.raises(TokenRefused, match=UNKNOWN):
            admission.admit({"authorization": f"Basic {text}"})
    for left, why in (([expired], "has expired"), ([], UNKNOWN)):
        admission.replace(left)
        for _ in range(2):
            with pytest.raises(TokenRefused, match=why):
                admitted()
    admission.close()


async def is_answered_at_once(delay: RefusalDelay, held: list[Coroutine[Any, Any, bool]]) -> bool:
    """Tell whether a refusal may be answered now; one that has to wait is held."""
    waiting = delay.wait()
    try:
        waiting.send(None)
    except StopIteration:
        return True
    held.append(waiting)
    return False


async def test_refusals_are_answered_late_while_there_are_many() -> None:
    delay, held = RefusalDelay(later_s=3600), list[Coroutine[Any, Any, bool]]()
    for _ in range(AT_ONCE):
        assert await is_answered_at_once(delay, held)
    while len(held) < MOST_WAITING:
        await is_answered_at_once(delay, held)
    while await delay.wait():
        pass  # so much time has passed that another one is answered at once
    held.pop().close()
    while await is_answered_at_once(delay, held):
        pass
    for waiting in held:
        waiting.close()


@asynccontextmanager
async def strict(tmp_path: Path) -> AsyncIterator[Known]:
    async with gateway_of(tmp_path, PLAIN, options=STRICT) as running:
        work = ProfileDefinition("work", members=(Member("plain"),))
        await queries.add_profile(running.database, work)
        yield Known(running)


async def test_without_a_right_token_a_client_is_told_what_to_do(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        shown = await known.token("ci")
        right = shown["authorization"]
        await known.refused(MISSING)
        for wrong in (
            right[:-1] + ("A" if right[-1] != "A" else "B"),
            right + "A",
            right.replace("Bearer", "Basic"),
            "Bearer " + "a" * 65_536,
            "Bearer lmg_é",
            "Bearer",
            "",
        ):
            await known.refused(UNKNOWN, authorization=wrong)
        assert (await known.running.post(PING, **shown)).status == 200
        assert (await known.running.post(PING, authorization=right.lower()[:6] + right[6:])).ok


async def test_a_flood_of_wrong_tokens_slows_nobody_and_hardly_shows_in_the_log(
    tmp_path: Path,
) -> None:
    async with strict(tmp_path) as known:
        shown = await known.token("ci")
        statuses: list[int] = []
        many = anyio.Event()

        async def try_tokens(number: int) -> None:
            while True:
                wrong = {"authorization": f"Bearer lmg_{number}"}
                statuses.append((await known.running.post(PING, **wrong)).status)
                if len(statuses) == AT_ONCE:
                    many.set()

        async with anyio.create_task_group() as tasks:
            for number in range(3 * AT_ONCE):
                tasks.start_soon(try_tokens, number)
            await many.wait()
            for _ in range(50):
                assert (await known.running.post(PING, **shown)).status == 200
            tasks.cancel_scope.cancel()
        assert set(statuses) == {401}
        refused = [fields for name, fields in known.running.said if name == "call.refused"]
        assert {fields["path"] for fields in refused} == {"/mcp"}
        assert len(refused) < AT_ONCE  # one in ten seconds, however long this took
        assert len(known.running.gateway.sessions) == 0


async def test_a_client_that_would_sign_in_is_told_the_same(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        base = known.running.url.removesuffix("/mcp")
        for path in ("oauth-protected-resource/mcp", "oauth-authorization-server", "openid"):
            async with known.running.http.get(f"{base}/.well-known/{path}") as reply:
                assert reply.status == 404
                assert "plain" not in str(await reply.json())
        reply = await known.running.post({"redirect_uris": []}, path="/register")
        said = await reply.json()
        assert (reply.status, said["error"]) == (400, "invalid_client_metadata")
        assert "token create NAME" in said["error_description"]


async def test_a_stranger_learns_nothing_of_servers_and_profiles(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        base, narrow = known.running.url.removesuffix("/mcp"), await known.token("ci", "work")
        reader = await known.token("reader", policy=Policy(read_only=True))
        for headers in ({}, narrow, reader):
            async with known.running.http.get(f"{base}/health/ready", headers=headers) as reply:
                assert await reply.json() == {"status": "ready"}
            async with known.running.http.get(f"{base}/metrics", headers=headers) as reply:
                assert reply.status == (404 if headers else 401)
                assert "plain" not in await reply.text()
        async with known.running.http.get(f"{base}/health/live") as reply:
            assert reply.status == 200
        async with known.running.http.get(f"{base}/metrics", headers=await known.token("a")) as r:
            assert r.status == 200
        for path in ("/mcp/none", "/sse", "/messages/1", "/api/mcp/work"):
            assert (await known.running.post(PING, path=path)).status == 401


async def test_a_profile_out_of_reach_is_one_that_does_not_exist(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        narrow = await known.token("ci", "work")
        hidden = await known.running.post(PING, path="/mcp/default", **narrow)
        absent = await known.running.post(PING, path="/mcp/nothing", **narrow)
        assert (hidden.status, absent.status) == (404, 404)
        said = (await hidden.json())["error"]["message"]
        assert said == (await absent.json())["error"]["message"].replace("nothing", "default")
        assert said == "Nothing is served at /mcp/default; there is /mcp/work"
        # The only profile that it reaches needs no name.
        assert (await known.running.post(PING, **narrow)).status == 200
        await queries.remove_profile(known.running.database, "work")
        await queries.add_profile(known.running.database, ProfileDefinition("work"))
        await known.running.gateway.reload()
        gone = await (await known.running.post(PING, path="/mcp/work", **narrow)).json()
        assert "the profiles of this token were removed" in gone["error"]["message"]


async def test_a_session_belongs_to_the_token_that_opened_it(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        one, other = await known.token("one"), await known.token("other")
        session = await known.session(one)
        assert (await known.running.post(PING, **session)).status == 200
        stolen = {**session, **other}
        assert (await known.running.post(PING, **stolen)).status == 404
        named = {name.replace("_", "-"): value for name, value in stolen.items()}
        async with known.running.http.delete(known.running.url, headers=named) as reply:
            assert reply.status == 404
        assert (await known.running.post(PING, **session)).status == 200


async def calling(known: Known, shown: dict[str, str], *, stateless: bool) -> Any:
    """Make a call that never ends; return its answer."""
    if not stateless:
        session = await known.session(shown)
        message = call("tools/call", name="sleep", arguments={})
        return await (await known.running.post(message, **session)).json()
    message, headers = modern("tools/call", "sleep", arguments={})
    return await (await known.running.post(message, **headers, **shown)).json()


async def expire(known: Known) -> None:
    """Let the token expire a moment later, by the clock alone."""
    async with known.running.database.transaction() as writer:
        soon = (now_ms() + 300, "ci")
        await writer.execute("UPDATE client_tokens SET expires_at = ? WHERE name = ?", soon)
    await known.running.gateway.reload()


async def revoke(known: Known) -> None:
    await known.revoke("ci")


@pytest.mark.parametrize("end", [revoke, expire])
async def test_what_runs_with_a_token_ends_with_it_at_once(
    tmp_path: Path, end: Callable[[Known], Awaitable[None]]
) -> None:
    async with strict(tmp_path) as known:
        running, other = known.running, await known.token("other")
        shown = await known.token("ci")
        session, stays = await known.session(shown), await known.session(other)
        listens = call("subscriptions/listen", "l", notifications={}, _meta=META)
        named = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen", **ACCEPT}
        base = running.url.removesuffix("/mcp")
        answers: list[Any] = []

        async def ask(*, stateless: bool) -> None:
            answers.append(await calling(known, shown, stateless=stateless))

        bearer = {"Authorization": shown["authorization"]}
        async with (
            opened(running, session, **bearer) as stream,
            opened(running, stays, Authorization=other["authorization"]) as kept,
            running.http.post(running.url, json=listens, headers={**named, **bearer}) as listening,
            running.http.get(f"{base}/sse", headers=bearer) as legacy,
            anyio.create_task_group() as tasks,
        ):
            for stateless in (False, True):
                tasks.start_soon(partial(ask, stateless=stateless))
            await running.until(lambda: _sleeping(running) == 2)
            await end(known)
            with anyio.fail_after(30):
                for reply in (stream.reply, listening, legacy):
                    assert await reply.read() is not None
            assert not kept.reply.content.at_eof()
        messages = {answer["error"]["message"] for answer in answers}
        assert messages == {GONE, "The session has ended, and this request with it"}
        await known.refused(UNKNOWN if end is revoke else "The token 'ci' has expired", **shown)
        assert (await running.post(PING, **stays)).status == 200


def _sleeping(running: Running) -> int:
    lines = [f["line"] for name, f in running.said if name == "upstream.logged"]
    return sum(line.startswith("sleeping") for line in lines)


@pytest.mark.parametrize(
    "message", [HELLO, [PING], call("prompts/list")], ids=["a session", "a batch", "a call"]
)
async def test_a_token_that_is_revoked_before_the_body_arrives_opens_nothing(
    tmp_path: Path, message: Any
) -> None:
    async with strict(tmp_path) as known:
        shown = await known.token("ci")
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            await known.revoke("ci")
            return {"type": "http.request", "body": json.dumps(message).encode()}

        async def send(part: dict[str, Any]) -> None:
            sent.append(part)

        headers = {"host": "localhost", "content-type": "application/json", **ACCEPT, **shown}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": pairs}
        await known.running.gateway.app(scope, receive, send)
        assert (sent[0]["status"], GONE.encode() in sent[1]["body"]) == (401, True)
        assert len(known.running.gateway.sessions) == 0


@pytest.mark.parametrize("required", [False, True])
async def test_a_token_goes_to_no_server_and_what_is_meant_for_one_does(
    tmp_path: Path, *, required: bool
) -> None:
    server = Recording(modern=False)
    options = replace(QUICK, require_token=required)
    async with serve(server) as url:
        given = http("odd", url, client_headers=("Authorization",))
        async with gateway_of(tmp_path, given, options=options) as running:
            known = Known(running)
            shown = await known.token("ci")
            message = call("tools/call", name="echo", arguments={})
            assert "result" in await (await running.post(message, **shown)).json()
            assert b"authorization" not in server.calls["tools/call"]
            theirs = {"authorization": "Bearer theirs"}
            assert (await running.post(message, **theirs)).status == (401 if required else 200)
            if not required:
                assert server.calls["tools/call"][b"authorization"] == b"Bearer theirs"
                await known.revoke("ci")
                await known.refused(UNKNOWN, **shown)


async def test_the_log_of_calls_names_the_token_and_the_client(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        session = await known.session(await known.token("ci"))
        await known.running.post(PING, **session)
        assert (await known.running.heard("call.finished"))["holder"] == "ci"
        await known.running.gateway.calls.flush()
        rows = await known.running.database.fetch_all("SELECT holder, client FROM debug_logs")
        assert [tuple(row) for row in rows] == [("ci", "curl 8")]
        (token,) = await list_tokens(known.running.database)
        assert (token.last_client, token.last_used_at is None) == ("curl 8", False)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_shows_the_sentence_or_gets_its_tools(
    tmp_path: Path, mode: Any
) -> None:
    async with strict(tmp_path) as known:
        shown = await known.token("ci", policy=Policy(allowed=("echo",)))
        for headers, wanted in ((shown, None), ({}, MISSING), ({"authorization": "x"}, UNKNOWN)):
            said = ""
            async with httpx2.AsyncClient(headers=headers) as http_client:
                transport = streamable_http_client(known.running.url, http_client=http_client)
                try:
                    async with Client(transport, mode=mode) as client:
                        tools = (await client.list_tools()).tools
                        assert [tool.name for tool in tools] == ["echo"]
                except* MCPError as group:
                    said = "".join(format_exception(group))
            assert (said == "") is (wanted is None)
            assert (wanted or "") in said


async def test_curl_prints_the_sentence_or_the_answer(tmp_path: Path) -> None:
    if which("curl") is None:
        pytest.skip("needs curl")
    async with strict(tmp_path) as known:
        shown = await known.token("ci")
        text = ("-H", "Content-Type: application/json", "-d", json.dumps(PING))
        curl = ("curl", "--silent", known.running.url, *text)
        refused = json.loads((await anyio.run_process(curl)).stdout)
        assert MISSING in refused["error"]["message"]
        header = f"Authorization: {shown['authorization']}"
        assert json.loads((await anyio.run_process([*curl, "-H", header])).stdout)["result"] == {}


async def test_the_older_transport_is_for_those_with_a_token_too(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        shown = await known.token("ci", policy=Policy(denied=("pid",)))
        url = known.running.url.replace("/mcp", "/sse")
        async with sse_client(url, headers=dict(shown)) as streams, ClientSession(*streams) as one:
            await one.initialize()
            names = [tool.name for tool in (await one.list_tools()).tools]
            assert ("echo" in names, "pid" in names) == (True, False)
            answer = await one.call_tool("echo", {})
            assert not answer.is_error
        await known.running.gateway.calls.flush()
        rows = await known.running.database.fetch_all("SELECT DISTINCT holder FROM debug_logs")
        assert [row[0] for row in rows] == ["ci"]


async def test_a_row_that_was_edited_into_nonsense_opens_nothing(tmp_path: Path) -> None:
    async with strict(tmp_path) as known:
        shown = await known.token("ci", "work")
        async with known.running.database.transaction() as writer:
            await writer.execute("UPDATE client_tokens SET profiles = ?", (json.dumps("all"),))
        await known.running.gateway.reload()
        assert (await known.running.post(PING, path="/mcp/work", **shown)).status == 404
