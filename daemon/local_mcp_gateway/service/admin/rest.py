"""The REST API for servers and profiles: `/api/servers` and `/api/profiles`, each route one admin verb.

A server is a command that the gateway runs, so whoever may write here can run anything as its user.
Other users share the machine, so being local is not enough: each request carries the bearer token from a
0600 file beside the database, created at the first start. Web pages are always refused.
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
from local_mcp_gateway.gateway import BodyTooLarge, HttpRequest
from local_mcp_gateway.service.secrets import Unusable, private_file

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from local_mcp_gateway.gateway import Application, Receive, Scope, Send

    Answer = Callable[[str, dict[str, Any]], Awaitable[object]]

PLACES: Final = ("/api/servers", "/api/profiles", "/api/audit")
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


def with_rest(app: Application, token: str, answer: Answer, pages: Application) -> Application:
    """Return an application that answers these routes and passes every other request on.

    `/` and `/studio` are for people and go to `pages`, the rest to `app`.
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
        if not _may_enter(visit.headers.get("authorization", ""), token):
            refused = UsageProblem(
                "This request needs the gateway's token.",
                hint="Send `Authorization: Bearer …` with the content of the file <database>.token.",
            )
            await _reply(visit, 401, {"error": refused.as_json()})
            return
        try:
            status, value = await _answered(visit, answer)
        except GatewayError as error:
            status, value = STATUS.get(error.exit_code, 500), {"error": error.as_json()}
        await _reply(visit, status, value)

    return serve


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
            if named and not await _is_there(answer, place, named[0]):
                problem = UsageProblem(f"There is no {place[:-1]} {named[0]!r}.")
                return 404, {"error": problem.as_json()}
            if method == "POST" and not named and "name" not in arguments:
                raise UsageProblem(f"A {place[:-1]} needs a name.", hint='{"name": "…", …}')
            return 201 if method == "POST" and not named else 200, await answer(verb, arguments)
    problem = UsageProblem(f"There is no {visit.method} {visit.path}.", hint="See docs/gateway.md.")
    return 404, {"error": problem.as_json()}


async def _is_there(answer: Answer, place: str, name: str) -> bool:
    known: Any = await answer("server.list" if place == "servers" else "profile.list", {})
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
