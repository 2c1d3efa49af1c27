"""Use the tools behind a running gateway: try a server, list what profiles show, call one.

These verbs talk to servers, so they hold no lock on the database.
"""

from __future__ import annotations

import json
import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import anyio

from local_mcp_gateway.errors import GatewayError, UpstreamProblem, UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import redact_text
from local_mcp_gateway.store import CatalogKind, queries

if TYPE_CHECKING:
    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.gateway import Fetched, Gateway

CHECK_TIMEOUT_S = 60.0


async def check_server(database: ConnectionPool, gateway: Gateway, name: str) -> dict[str, object]:
    """Connect to a server, initialize a session and close it; running connections are not touched."""
    from local_mcp_gateway.gateway import SignInNeeded

    server = await queries.get_server(database, name)
    start = time.perf_counter()
    try:
        with anyio.fail_after(CHECK_TIMEOUT_S):
            identity, fetched = await gateway.check(server)
    except TimeoutError:
        raise UpstreamProblem(
            f"Server {name!r} did not answer within {CHECK_TIMEOUT_S:.0f} s.",
            hint="If it downloads something first, use it from a client and see `server list`.",
        ) from None
    except UpstreamProblem as error:
        raise UpstreamProblem(
            f"Server {name!r} does not work: {redact_text(error.message)}", hint=error.hint
        ) from error
    except SignInNeeded as needed:
        raise UpstreamProblem(
            f"Server {name!r} does not work: {redact_text(needed.reason)}",
            hint=f"Sign in with `{needed.command}`; or give it a header: "
            f"`server edit {name} --header Authorization=…`.",
        ) from needed
    except Exception as error:  # each transport fails in its own way; report one sentence
        if isinstance(known := error.__cause__, GatewayError):  # its values cannot be made
            said = f"{known.message[0].lower()}{known.message[1:]}"
            raise UpstreamProblem(
                f"Server {name!r} does not work: {redact_text(said)}", hint=known.hint
            ) from error
        raise UpstreamProblem(
            f"Server {name!r} does not work: {redact_text(str(error))}"
        ) from error
    return {
        "name": name,
        "answered_as": identity.name or None,
        "protocol": identity.version,
        "capabilities": sorted(identity.capabilities),
        "tools": len(fetched.lists.get(CatalogKind.TOOLS, ())),
        "notes": [*map(redact_text, fetched.problems), *_unfit_names(fetched)],
        "duration_ms": round((time.perf_counter() - start) * 1000, 3),
    }


def _unfit_names(fetched: Fetched) -> list[str]:
    """Return which tools get another name, because model APIs refuse theirs."""
    from local_mcp_gateway.gateway import fitting

    tools = fetched.lists.get(CatalogKind.TOOLS, ())
    pairs = ((item.key, fitting(item.key)) for item in tools)
    return [f"{key!r} is shown as {name!r}" for key, name in pairs if key != name]


async def call_tool(
    database: ConnectionPool, gateway: Gateway, default: str, question: dict[str, Any]
) -> object:
    """Call a tool of a profile and return MCP's result object.

    Without a profile it is the one that shows the tool, if there is only one.
    """
    tool, given = question["tool"], question.get("profile")
    profile = await _profile_with(database, gateway, tool, given, default)
    arguments = question["arguments"]
    texts = question.get("texts", {})
    if doubtful := {key: text for key, text in texts.items() if text != arguments[key]}:
        arguments |= await _as_text(gateway, profile, tool, arguments, doubtful)
    params = {"name": tool, "arguments": arguments}
    answer = await _post(gateway.app, f"/mcp/{profile}", "tools/call", params)
    if "error" in answer:
        reason = redact_text(str(answer["error"].get("message")))
        raise UpstreamProblem(
            f"The call of {tool} failed: {reason}", hint=_hint(gateway, profile, tool)
        )
    return answer["result"]


_JSON_TYPES = {
    bool: {"boolean"},
    int: {"integer", "number"},
    float: {"number"},
    type(None): {"null"},
    list: {"array"},
    dict: {"object"},
}


async def _as_text(
    gateway: Gateway,
    profile: str,
    tool: str,
    values: dict[str, Any],
    texts: dict[str, str],
) -> dict[str, str]:
    """Return those of the texts that look like JSON but are text by the tool's schema: `zip=01234`, `name=null`."""
    answer = await _post(gateway.app, f"/mcp/{profile}", "tools/list", {})
    listed = answer.get("result", {}).get("tools", ())
    schema = next((one.get("inputSchema") for one in listed if one["name"] == tool), None) or {}
    properties = schema.get("properties")
    found = {}
    for key, text in texts.items():
        declared = properties.get(key) if isinstance(properties, dict) else None
        types = declared.get("type") if isinstance(declared, dict) else None
        listed_types = types if isinstance(types, list) else [types]
        wanted = {each for each in listed_types if isinstance(each, str)}
        if "string" in wanted and _JSON_TYPES.get(type(values[key]), wanted).isdisjoint(wanted):
            found[key] = text
    return found


def _hint(gateway: Gateway, profile: str, tool: str) -> str:
    known = gateway.registry.view(profile).routes[CatalogKind.TOOLS]
    if tool not in known and (near := get_close_matches(tool, known, n=3)):
        return f"Did you mean {' or '.join(near)}? `tools --profile {profile}` lists them."
    return f"`tools --profile {profile}` lists its tools, `server test NAME` tries a server."


async def list_tools(
    database: ConnectionPool, gateway: Gateway, question: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return each tool that a profile shows, with its server and its definition as clients get it."""
    profiles = [profile.name for profile in await queries.list_profiles(database)]
    if wanted := question.get("profile"):
        profiles = [await _required_profile(database, wanted, wanted)]
    found = []
    for profile in profiles:
        answer = await _post(gateway.app, f"/mcp/{profile}", "tools/list", {})
        routes = gateway.registry.view(profile).routes[CatalogKind.TOOLS]
        found += [
            {
                "profile": profile,
                "server": routes[tool["name"]].server,
                "name": tool["name"],
                "definition": tool,
            }
            for tool in answer.get("result", {}).get("tools", ())
            if tool["name"] in routes
        ]
    return found


async def _profile_with(
    database: ConnectionPool, gateway: Gateway, tool: str, given: str | None, default: str
) -> str:
    """Return the profile to call a tool in: the given or the default one, or the only one that has it."""

    def showing(names: list[str]) -> list[str]:
        views = {name: gateway.registry.view(name) for name in names}
        return [name for name, view in views.items() if tool in view.routes[CatalogKind.TOOLS]]

    names = [profile.name for profile in await queries.list_profiles(database)]
    if given is None and len(names) > 1 and default not in showing(names):
        await list_tools(database, gateway, {})  # a server may not have been asked yet
        found = showing(names)
        if default not in found and len(found) > 1:
            raise UsageProblem(
                f"Several profiles have the tool {tool!r}: {', '.join(found)}.",
                hint="Give one with --profile.",
            )
        if default not in found and found:
            return found[0]
    return await _required_profile(database, given, default)


async def _required_profile(database: ConnectionPool, wanted: str | None, default: str) -> str:
    """Return the given profile, else the default one, else the only one."""
    names = [profile.name for profile in await queries.list_profiles(database)]
    if wanted is None:
        wanted = names[0] if len(names) == 1 else default
    if wanted not in names:
        raise queries.unknown_profile(wanted, names)
    return wanted


async def _post(app: Any, path: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Send one JSON-RPC request to an ASGI application in this process, without a socket."""
    from local_mcp_gateway.gateway import OWN

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
        OWN: True,
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
