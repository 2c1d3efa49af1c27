"""The REST API for servers, profiles and tokens: `/api/servers` and so on, each route one admin verb.

A server is a command that the gateway runs, so whoever may write here can run anything as its user.
Other users share the machine, so being local is not enough: each request carries the bearer token from a
0600 file next to the database, created at the first start. Web pages are always refused.

The token of a client is known here too, but opens nothing that it has not over MCP: it may see which profiles
it reaches, and learns of everything else that it is for the owner.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

import msgspec

from local_mcp_gateway.errors import ConfigProblem, DiskProblem, Exit, GatewayError, UsageProblem
from local_mcp_gateway.gateway import BodyTooLarge, HttpRequest, TokenRefused
from local_mcp_gateway.service.secrets import Unusable, private_file
from local_mcp_gateway.store import looks_like_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from local_mcp_gateway.gateway import Application, Receive, Scope, Send
    from local_mcp_gateway.store import ClientToken

    Answer = Callable[[str, dict[str, Any]], Awaitable[object]]
    Admit = Callable[[dict[str, str]], ClientToken | None]
    Hold = Callable[[], Awaitable[list[tuple[bytes, bytes]]]]

PLACES: Final = ("/api/servers", "/api/profiles", "/api/tokens", "/api/audit")
MOST_BYTES: Final = 4 * 1024 * 1024
_NONE: Final = msgspec.UNSET
Maybe = msgspec.UnsetType


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request body; omitted fields keep their value."""


class SandboxBody(_Body):
    """What a command may do in its sandbox."""

    write: list[str] = msgspec.field(default_factory=list)
    network: bool = True


class ServerBody(_Body):
    """A server to add or to change."""

    name: str | Maybe = _NONE
    rename: str | Maybe = _NONE
    profile: str | Maybe = _NONE
    kind: Literal["stdio", "http", "sse"] | Maybe = _NONE
    command: str | Maybe = _NONE
    args: list[str] | Maybe = _NONE
    env: dict[str, str | None] | Maybe = _NONE
    cwd: str | Maybe = _NONE
    url: str | Maybe = _NONE
    headers: dict[str, str | None] | Maybe = _NONE
    active: bool | Maybe = _NONE
    share: Literal["auto", "never", "always"] | Maybe = _NONE
    max_clients: int | Maybe | None = _NONE
    idle_stop_s: int | Maybe | None = _NONE
    timeout_s: int | Maybe | None = _NONE
    proxy: str | Maybe | None = _NONE
    ca: str | Maybe | None = _NONE
    insecure: bool | Maybe = _NONE
    client_headers: list[str] | Maybe = _NONE
    trust_annotations: bool | Maybe = _NONE
    sandbox: SandboxBody | Maybe | None = _NONE


class PolicyBody(_Body):
    """What may be done in a profile."""

    allowed: list[str] | Maybe = _NONE
    denied: list[str] | Maybe = _NONE
    read_only: bool | Maybe = _NONE
    calls_per_minute: int | Maybe | None = _NONE
    calls_at_once: int | Maybe | None = _NONE


class ProfileBody(_Body):
    """A profile to add or to change."""

    name: str | Maybe = _NONE
    rename: str | Maybe = _NONE
    description: str | Maybe = _NONE
    prefix: Literal["auto", "always", "never"] | Maybe = _NONE
    servers: list[str] | Maybe = _NONE
    add: list[str] | Maybe = _NONE
    remove: list[str] | Maybe = _NONE
    enable: list[str] | Maybe = _NONE
    disable: list[str] | Maybe = _NONE
    policy: PolicyBody | Maybe = _NONE


class TokenBody(_Body):
    """The token of a client to make or to change."""

    name: str | Maybe = _NONE
    rename: str | Maybe = _NONE
    profiles: list[str] | Maybe = _NONE
    expires: str | Maybe = _NONE
    policy: PolicyBody | Maybe = _NONE


class ToolBody(_Body):
    """How a profile shows one tool."""

    enabled: bool | Maybe = _NONE
    rename: str | Maybe = _NONE
    description: str | Maybe = _NONE
    reset: bool | Maybe = _NONE


class ApproveBody(_Body):
    """The tool definitions that the caller reviewed, by name."""

    tools: dict[str, Any]


Route = tuple[str, type[_Body] | None, tuple[str, ...]]
ROUTES: Final[dict[tuple[str, str], Route]] = {
    ("GET", "servers"): ("server.list", None, ()),
    ("POST", "servers"): ("server.add", ServerBody, ()),
    ("GET", "servers/*"): ("server.show", None, ("name",)),
    ("PATCH", "servers/*"): ("server.edit", ServerBody, ("name",)),
    ("DELETE", "servers/*"): ("server.remove", None, ("name",)),
    ("POST", "servers/*/test"): ("server.test", None, ("name", "")),
    ("POST", "servers/*/approve"): ("server.approve", ApproveBody, ("name", "")),
    ("GET", "audit"): ("audit.list", None, ()),
    ("GET", "tokens"): ("token.list", None, ()),
    ("POST", "tokens"): ("token.create", TokenBody, ()),
    ("PATCH", "tokens/*"): ("token.edit", TokenBody, ("name",)),
    ("DELETE", "tokens/*"): ("token.revoke", None, ("name",)),
    ("GET", "profiles"): ("profile.list", None, ()),
    ("POST", "profiles"): ("profile.add", ProfileBody, ()),
    ("GET", "profiles/*"): ("profile.show", None, ("name",)),
    ("PATCH", "profiles/*"): ("profile.edit", ProfileBody, ("name",)),
    ("DELETE", "profiles/*"): ("profile.remove", None, ("name",)),
    ("PATCH", "profiles/*/tools/*/*"): ("profile.tool", ToolBody, ("name", "", "server", "tool")),
}
"""Method and path → verb, body, and what the parts of the path after the first one are."""
_TOKEN: Final = re.compile(rb"[!-~]{32,}")
"""A shorter token, or one with other bytes, was only partly written and protects nothing."""
OWNERS: Final = "This request needs the gateway's token"
_SEND: Final = "Send `Authorization: Bearer …` with the content of the file <database>.token."
STATUS: Final = {Exit.USAGE: 400, Exit.LOCKED: 409, Exit.CONFIG: 400}


def token_file(database: Path) -> Path:
    """Return the path of the token file that belongs to this database."""
    real = database.resolve()
    return real.with_name(real.name + ".token")


def read_token(database: Path) -> str:
    """Return the token; create one if there is none, or only part of one.

    A new token is on the disk on return. Raises ConfigProblem if other users may know the token, DiskProblem.
    """
    path = token_file(database)
    try:
        with private_file.locked(path) as target:
            found = private_file.read(target)
            if found is not None and _TOKEN.fullmatch(found.strip()):
                return found.strip().decode("ascii")
            token = secrets.token_urlsafe(32)
            private_file.replace(target, f"{token}\n".encode())
            return token
    except Unusable as unusable:
        raise ConfigProblem(
            f"The token of the REST API cannot be used: {unusable.reason}.",
            hint=f"{unusable.hint.removesuffix('.')}; or delete it, and the next start makes a new one.",
        ) from None
    except OSError as error:
        raise DiskProblem(
            f"The REST API token {path} cannot be created: {error.strerror}."
        ) from error


def _may_enter(given: str, token: str) -> bool:
    scheme, _, shown = given.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        shown.strip().encode(errors="replace"), token.encode()
    )


def with_rest(
    app: Application, token: str, answer: Answer, pages: Application, admit: Admit, hold: Hold
) -> Application:
    """Return an application that answers these routes and passes every other request on.

    `/` and `/studio` are for people and go to `pages`, the rest to `app`. `admit` knows the tokens of clients,
    and `hold` how long a refusal has to wait.
    """

    def serve(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope.get("path", "")
        if path.startswith("/mcp") or scope["type"] != "http":
            return app(scope, receive, send)
        if path.startswith(PLACES):
            return serve_ours(scope, receive, send)
        if path == "/" or path.startswith("/studio"):
            return pages(scope, receive, send)
        return app(scope, receive, send)

    async def serve_ours(scope: Scope, receive: Receive, send: Send) -> None:
        visit = HttpRequest.of(scope, receive, send)
        visit.extra = []  # refuse every request of a web page
        try:
            if _may_enter(visit.headers.get("authorization", ""), token):
                status, value = await _answered(visit, answer)
            else:
                status, value = await _shown_to(_client(visit, admit), visit, answer)
        except TokenRefused as refused:
            problem = UsageProblem(f"{refused}.", hint=_SEND)
            status, value = 401, {"error": problem.as_json()}
            visit.extra = await hold()
        except GatewayError as error:
            status, value = STATUS.get(error.exit_code, 500), {"error": error.as_json()}
        await _reply(visit, status, value)

    return serve


def _client(visit: HttpRequest, admit: Admit) -> ClientToken:
    """Return whose token a request shows, if it is a client's; raises TokenRefused for any other."""
    shown = visit.headers.get("authorization", "").partition(" ")[2].strip()
    known = admit(dict(visit.headers)) if looks_like_token(shown) else None
    if known is None:
        raise TokenRefused(OWNERS)
    return known


async def _shown_to(client: ClientToken, visit: HttpRequest, answer: Answer) -> tuple[int, object]:
    """Answer a client: the names of its profiles, nothing else. A profile out of its reach does not exist."""
    place, *named = [unquote(part) for part in visit.path.removeprefix("/api/").split("/")]
    if visit.method != "GET" or place != "profiles" or len(named) > 1:
        problem = UsageProblem(
            f"The token {client.name!r} is a client's: over REST it may only see its profiles.",
            hint=f"Everything else is the owner's. {_SEND}",
        )
        return 403, {"error": problem.as_json()}
    tokens: Any = await answer("token.list", {})
    reached: Any = next((one["profiles"] for one in tokens if one["id"] == client.id), [])
    profiles: Any = await answer("profile.list", {})
    seen = [
        {"name": one["name"], "description": one["description"]}
        for one in profiles
        if reached is None or one["name"] in reached
    ]
    if not named:
        return 200, seen
    found = next((one for one in seen if one["name"] == named[0]), None)
    if found is None:
        return 404, {"error": UsageProblem(f"There is no profile {named[0]!r}.").as_json()}
    return 200, found


async def _answered(visit: HttpRequest, answer: Answer) -> tuple[int, object]:
    parts = [unquote(part) for part in visit.path.removeprefix("/api/").split("/")]
    place, named = parts[0], parts[1:]
    for (method, pattern), (verb, body, names) in ROUTES.items():
        steps = pattern.split("/")
        if method != visit.method or len(steps) != len(parts):
            continue
        if all(step in {"*", part} for step, part in zip(steps, parts, strict=True)):
            arguments = {} if body is None else await _read(visit, body)
            arguments |= {key: part for key, part in zip(names, named, strict=True) if key}
            if named and not await _is_there(answer, place[:-1], named[0]):
                problem = UsageProblem(f"There is no {place[:-1]} {named[0]!r}.")
                return 404, {"error": problem.as_json()}
            if method == "POST" and not named and "name" not in arguments:
                raise UsageProblem(f"A {place[:-1]} needs a name.", hint='{"name": "…", …}')
            return 201 if method == "POST" and not named else 200, await answer(verb, arguments)
    problem = UsageProblem(f"There is no {visit.method} {visit.path}.", hint="See docs/gateway.md.")
    return 404, {"error": problem.as_json()}


async def _is_there(answer: Answer, kind: str, name: str) -> bool:
    known: Any = await answer(f"{kind}.list", {})
    return any(item["name"] == name for item in known)


async def _read(visit: HttpRequest, body: type[_Body]) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(await visit.body(MOST_BYTES), type=body)
    except BodyTooLarge:
        raise UsageProblem("The request is too large.", hint="Send less than 4 MiB.") from None
    except msgspec.DecodeError as error:
        raise UsageProblem(
            f"The body cannot be used: {error}.", hint="Send a JSON object."
        ) from None
    arguments: dict[str, Any] = msgspec.to_builtins(value)
    return arguments


async def _reply(visit: HttpRequest, status: int, value: object) -> None:
    await visit.reply(status, json.dumps(value, ensure_ascii=False).encode())
