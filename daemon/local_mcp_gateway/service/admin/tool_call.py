"""Try a server or call a tool, through the same application that serves HTTP clients."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import anyio

from local_mcp_gateway.errors import UpstreamProblem, UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import redact_text
from local_mcp_gateway.store import queries

if TYPE_CHECKING:
    from local_mcp_gateway.database.pool import ConnectionPool
    from local_mcp_gateway.gateway import Gateway

CHECK_TIMEOUT_S = 60.0


async def check_server(database: ConnectionPool, gateway: Gateway, name: str) -> dict[str, object]:
    """Connect to a server, initialize a session and close it; running connections are not touched."""
    server = await queries.get_server(database, name)
    start = time.perf_counter()
    try:
        with anyio.fail_after(CHECK_TIMEOUT_S):
            identity = await gateway.check(server)
    except TimeoutError:
        raise UpstreamProblem(
            f"Server {name!r} did not answer within {CHECK_TIMEOUT_S:.0f} s."
        ) from None
    except UpstreamProblem as error:
        raise UpstreamProblem(
            f"Server {name!r} does not work: {redact_text(error.message)}", hint=error.hint
        ) from error
    except Exception as error:  # each transport fails in its own way; report one sentence
        raise UpstreamProblem(
            f"Server {name!r} does not work: {redact_text(str(error))}"
        ) from error
    return {
        "name": name,
        "answered_as": identity.name or None,
        "protocol": identity.version,
        "capabilities": sorted(identity.capabilities),
        "duration_ms": round((time.perf_counter() - start) * 1000, 3),
    }


async def call_tool(
    database: ConnectionPool, gateway: Gateway, default: str, question: dict[str, Any]
) -> object:
    """Call a tool of a profile and return MCP's result object."""
    profile = await _profile(database, question.get("profile"), default)
    params = {"name": question["tool"], "arguments": question["arguments"]}
    answer = await _post(gateway.app, f"/mcp/{profile}", "tools/call", params)
    if "error" in answer:
        said = redact_text(str(answer["error"].get("message")))
        raise UpstreamProblem(
            f"The call of {question['tool']} failed: {said}",
            hint=f"`profile show {profile}` lists its servers, `server test NAME` tries one.",
        )
    return answer["result"]


async def _profile(database: ConnectionPool, wanted: str | None, default: str) -> str:
    """Return the given profile, else the default one, else the only one."""
    names = [profile.name for profile in await queries.list_profiles(database)]
    if wanted is None:
        wanted = names[0] if len(names) == 1 else default
    if wanted not in names:
        raise UsageProblem(f"There is no profile {wanted!r}.", hint="Give one with --profile.")
    return wanted


async def _post(app: Any, path: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Send one JSON-RPC request to an ASGI application in this process, without a socket."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    parts: list[bytes] = []
    sent = anyio.Event()

    async def receive() -> dict[str, Any]:
        if sent.is_set():
            await anyio.sleep_forever()
        sent.set()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
        ],
    }
    await app(scope, receive, send)
    try:
        answer: dict[str, Any] = parse_json(b"".join(parts))
    except ValueError as error:
        raise UpstreamProblem(
            f"The answer cannot be shown: {error}.", hint="Call it over HTTP."
        ) from None
    return answer
