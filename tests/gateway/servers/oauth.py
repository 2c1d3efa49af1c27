"""An MCP server over HTTP that wants a token, and the server that issues it: one process, rotating.

Prints its URL. POST /control changes how it behaves, and answers with what it was asked so far.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from yarl import URL

TOOLS = [
    {"name": "whoami", "description": "Say whose token it is.", "inputSchema": {"type": "object"}}
]
SET: dict[str, Any] = {
    "expires_in": 3600,
    "rotate": True,  # "grace": the old refresh token is taken a little longer
    "token": "",  # "500", "html", "slow", "invalid_grant", "invalid_client", "big", "429"
    "register": "",  # "500", "html", "none"
    "iss": "right",  # "missing", "wrong"
    "issuer": "",  # what the metadata says instead
    "resource": "",
    "resource_metadata": "",
    "server": "",  # "401": it takes no token
    "open": (),  # methods that need no token
    "hold": "",  # a method that is answered only after "go"
    "scope": "read",
    "needs": "read",
    "documents": False,
    "base": "/as",
    "methods": ["none", "client_secret_basic", "client_secret_post"],
    "answers": {},  # path with query: what is answered there instead, as status, text and headers
    "metadata": {},  # what the issuer's metadata says differently
    "issuers": None,  # paths of the issuers, instead of "base"
    "refresh": False,  # a refresh token for client credentials too
    "client_id": None,  # what is registered
    "takes_resource": True,  # else it refuses to be told what a token is for
    "error": None,  # what the token endpoint answers, with 200
}
FIRST = dict(SET)
SEEN: dict[str, int] = {}
CODES: dict[str, dict[str, str]] = {}
ACCESS: dict[str, dict[str, str]] = {}
REFRESH: dict[str, dict[str, str]] = {}
LAST: dict[str, Any] = {}
GO = asyncio.Event()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
routes = web.RouteTableDef()


def seen(what: str) -> None:
    SEEN[what] = SEEN.get(what, 0) + 1


def origin(request: web.Request) -> str:
    return f"http://{request.host}"


@web.middleware
async def answer_instead(request: web.Request, handler: Handler) -> web.StreamResponse:
    answer = SET["answers"].get(request.rel_url.raw_path_qs)
    if answer is None:
        return await handler(request)
    seen("instead")
    if answer.get("status") == 0:  # none at all
        GO.clear()
        await GO.wait()
    return web.Response(**answer)


@routes.post("/control")
async def control(request: web.Request) -> web.Response:
    change = json.loads(await request.read())
    if change.pop("reset", False):
        SET.update(FIRST)
        SEEN.clear()
        LAST.clear()
    if change.pop("go", False):
        GO.set()
    if change.pop("revoke", False):
        ACCESS.clear()
    if change.pop("forget", False):
        ACCESS.clear()
        REFRESH.clear()
    SET.update(change)
    live = len(ACCESS) + len(REFRESH)
    return web.json_response(
        {
            "seen": SEEN,
            "last": LAST,
            "live": live,
            "rotate": SET["rotate"],
            "tokens": [*ACCESS, *REFRESH],
        }
    )


@routes.get("/.well-known/oauth-protected-resource/mcp")
async def resource(request: web.Request) -> web.Response:
    seen("resource")
    return web.json_response(
        {
            "resource": SET["resource"] or f"{origin(request)}/mcp",
            "authorization_servers": [
                origin(request) + path for path in SET["issuers"] or [SET["base"]]
            ],
            "scopes_supported": SET["scope"].split(),
        }
    )


@routes.get("/.well-known/oauth-authorization-server{base:.*}")
async def metadata(request: web.Request) -> web.Response:
    if request.match_info["base"] != SET["base"]:
        raise web.HTTPNotFound
    seen("metadata")
    here = origin(request) + SET["base"]
    found = {
        "issuer": SET["issuer"] or here,
        "authorization_endpoint": f"{here}/authorize",
        "token_endpoint": f"{here}/token",
        "revocation_endpoint": f"{here}/revoke",
        "scopes_supported": [*SET["scope"].split(), "offline_access"],
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": SET["methods"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": SET["documents"],
    }
    if SET["register"] != "none":
        found["registration_endpoint"] = f"{here}/register"
    return web.json_response(found | SET["metadata"])


@routes.post("/{base}/register")
async def register(request: web.Request) -> web.Response:
    seen("register")
    LAST["register"] = await request.json()
    if SET["register"] == "500":
        raise web.HTTPInternalServerError(text="broken")
    if SET["register"] == "html":
        return web.Response(text="<html>Hello</html>", content_type="text/html")
    identity = secrets.token_hex(8) if SET["client_id"] is None else SET["client_id"]
    return web.json_response({**LAST["register"], "client_id": identity}, status=201)


@routes.get("/{base}/authorize")
async def authorize(request: web.Request) -> web.Response:
    seen("authorize")
    query = dict(request.query)
    LAST["authorize"] = query
    if "resource" in query and not SET["takes_resource"]:
        refused = {"error": "invalid_target", "state": query["state"]}
        refused["iss"] = origin(request) + SET["base"]
        raise web.HTTPFound(URL(query["redirect_uri"]).extend_query(refused))
    code = secrets.token_hex(8)
    CODES[code] = query
    answer = {"code": code, "state": query["state"]}
    if SET["iss"] != "missing":
        answer["iss"] = origin(request) + (SET["base"] if SET["iss"] == "right" else "/other")
    raise web.HTTPFound(URL(query["redirect_uri"]).extend_query(answer))


def given(kind: str, client: str, scope: str) -> dict[str, Any]:
    access, refresh = f"access-{secrets.token_urlsafe(16)}", f"refresh-{secrets.token_urlsafe(16)}"
    if SET["token"] == "big":
        access += "a" * 65536
    ACCESS[access] = {"client": client, "scope": scope}
    answer: dict[str, Any] = {
        "access_token": access,
        "token_type": "bearer",
        "expires_in": SET["expires_in"],
        "scope": scope,
    }
    if kind != "client_credentials" or SET["refresh"]:
        REFRESH[refresh] = {"client": client, "scope": scope}
        answer["refresh_token"] = refresh
    return answer


@routes.post("/{base}/token")
async def token(request: web.Request) -> web.Response:
    form = {key: str(value) for key, value in (await request.post()).items()}
    kind = form["grant_type"]
    seen(kind)
    LAST[kind] = {key: value for key, value in form.items() if "token" not in key}
    client = form.get("client_id", "")
    if request.headers.get("Authorization", "").startswith("Basic "):
        pair = base64.b64decode(request.headers["Authorization"][6:]).decode()
        client, LAST["secret"] = (unquote(part) for part in pair.split(":"))
        LAST["by"] = "basic"
    if SET["token"] == "slow":
        GO.clear()
        await GO.wait()
    if SET["token"] == "500":
        raise web.HTTPInternalServerError(text="broken")
    if SET["token"] == "429":
        return web.json_response({"error": "slow_down"}, status=429)
    if SET["token"] == "html":
        return web.Response(text="<html>Maintenance</html>", content_type="text/html")
    told = "resource" in form and not SET["takes_resource"]
    if refusal := {"error": "invalid_target"} if told else SET["error"]:
        return web.json_response(refusal)
    if SET["token"].startswith("invalid"):
        return web.json_response({"error": SET["token"], "error_description": "No."}, status=400)
    if kind == "authorization_code":
        asked = CODES.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form["redirect_uri"]
            or asked["client_id"] != client
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(given(kind, client, asked.get("scope", "")))
    if kind == "refresh_token":
        old = REFRESH.get(form["refresh_token"])
        if old is None or old["client"] != client:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if SET["rotate"] is True:
            del REFRESH[form["refresh_token"]]
        return web.json_response(given(kind, client, old["scope"]))
    return web.json_response(given(kind, client, form.get("scope", "")))


@routes.post("/{base}/revoke")
async def revoke(request: web.Request) -> web.Response:
    seen("revoke")
    REFRESH.pop(str((await request.post())["token"]), None)
    ACCESS.clear()
    return web.Response()


@routes.post("/mcp")
async def mcp(request: web.Request) -> web.Response:
    seen("mcp")
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    live = ACCESS.get(token)
    if (await request.json()).get("method") in SET["open"]:
        live = live or {"client": "", "scope": ""}
    if live is None or SET["server"] == "401":
        seen("401")
        where = SET["resource_metadata"] or (
            f"{origin(request)}/.well-known/oauth-protected-resource/mcp"
        )
        challenge = f'Bearer resource_metadata="{where}", scope="{SET["scope"]}"'
        return web.json_response({}, status=401, headers={"WWW-Authenticate": challenge})
    message = await request.json()
    method, identity = message.get("method"), message.get("id")
    if method == SET["hold"]:
        seen("held")
        GO.clear()
        await GO.wait()
    if method == "tools/call" and not set(SET["needs"].split()) <= set(live["scope"].split()):
        challenge = f'Bearer error="insufficient_scope", scope="{SET["needs"]}"'
        return web.json_response({}, status=403, headers={"WWW-Authenticate": challenge})
    if identity is None:
        return web.Response(status=202)
    if method == "initialize":
        result: Any = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "guarded", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "tools/call":
        seen("call")
        result = {"content": [{"type": "text", "text": live["client"]}]}
    elif method == "ping":
        result = {}
    else:
        error = {"code": -32601, "message": "no"}
        return web.json_response({"jsonrpc": "2.0", "id": identity, "error": error})
    return web.json_response({"jsonrpc": "2.0", "id": identity, "result": result})


async def main() -> None:
    app = web.Application(middlewares=[answer_instead])
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    print(f"http://127.0.0.1:{port}/mcp", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
