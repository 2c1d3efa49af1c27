"""Find out who issues tokens for a server, and how (RFC 9728, RFC 8414, OpenID Connect Discovery).

The server's refusal, or its well-known address, names the document that names the issuer; the issuer's own
document has the endpoints. What contradicts itself is refused: a document of another resource or issuer
would send the tokens elsewhere. A server of the revision 2025-03-26 has no document of its own: there the
issuer is its origin, with fixed endpoints if that has no document either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from yarl import URL

from local_mcp_gateway.gateway.oauth.web import OAuthProblem, Reply, Web, shown
from local_mcp_gateway.gateway.protocol import versions
from local_mcp_gateway.gateway.upstreams import initialize_params
from local_mcp_gateway.store import ServerKind

if TYPE_CHECKING:
    from local_mcp_gateway.store import ServerDefinition

DISCOVER: Final = "server/discover"
UNAUTHORIZED: Final = 401
OFFLINE: Final = "offline_access"
"""The scope that asks for a refresh token (OpenID Connect)."""
BASIC: Final = "client_secret_basic"
POST: Final = "client_secret_post"
MOST_ISSUERS: Final = 4
"""How many issuers are asked, of those that a server names."""
Document = TypeVar("Document")
_BEARER: Final = re.compile(r"(?:^|,)\s*bearer(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER: Final = re.compile(r'([a-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)


class ResourceMetadata(msgspec.Struct):
    """What a server says about itself (RFC 9728)."""

    resource: str
    authorization_servers: list[str] | None = None
    scopes_supported: list[str] | None = None


class IssuerMetadata(msgspec.Struct):
    """What an issuer says about itself (RFC 8414), and what its document stands for where there is none."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    registration_endpoint: str | None = None
    revocation_endpoint: str | None = None
    scopes_supported: list[str] | None = None
    token_endpoint_auth_methods_supported: list[str] | None = None
    code_challenge_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool | None = None
    client_id_metadata_document_supported: bool | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What discovery has found out: the issuer, and what to ask it for."""

    issuer: IssuerMetadata
    resource: str = ""
    """What the tokens are to be for; "" where the server does not say it."""
    scope: str | None = None

    def auth_method(self, *, secret: bool) -> str:
        """Return how the client identifies itself at the token endpoint."""
        known = self.issuer.token_endpoint_auth_methods_supported
        if not secret:
            return "none"
        return POST if known and BASIC not in known and POST in known else BASIC


def parameters_of(challenges: tuple[str, ...]) -> dict[str, str]:
    """Return the parameters of the Bearer challenges in these WWW-Authenticate headers; the first counts."""
    read: dict[str, str] = {}
    for challenge in reversed(challenges):
        scheme = _BEARER.search(challenge)
        if scheme is not None:
            found = _PARAMETER.findall(challenge, scheme.end())
            read |= {name.lower(): quoted or plain for name, quoted, plain in reversed(found)}
    return read


async def discover(web: Web, server: ServerDefinition, preferred: str = "") -> Found:
    """Ask the server and whom it names: of several issuers the `preferred`. Raises OAuthProblem."""
    url = URL(server.url or "").with_fragment(None)
    probed = await _probe(web, server)
    challenge = parameters_of(probed.challenges) if probed.status == UNAUTHORIZED else {}
    about = await _resource(web, url, challenge.get("resource_metadata"))
    if about is None:
        if probed.status != UNAUTHORIZED:
            raise OAuthProblem(f"it does not ask for a sign-in: it answered HTTP {probed.status}")
        return Found(await _issuer_at_origin(web, url), scope=challenge.get("scope"))
    if not about.authorization_servers:
        raise OAuthProblem("it does not say who issues its tokens (authorization_servers is empty)")
    issuer = await _issuer(web, about.authorization_servers, preferred)
    scope = challenge.get("scope")
    if scope is None and about.scopes_supported:
        scope = " ".join(about.scopes_supported)
    if scope is not None and OFFLINE in (issuer.scopes_supported or ()):
        scope = union_of(scope, OFFLINE)
    return Found(issuer, about.resource, scope)


def union_of(first: str | None, second: str | None) -> str:
    """Return the scopes of both, in order, each once."""
    return " ".join(dict.fromkeys(f"{first or ''} {second or ''}".split()))


async def _probe(web: Web, server: ServerDefinition) -> Reply:
    """Ask the server for something without a token: its refusal says where to go on."""
    if server.kind is ServerKind.SSE:
        return await web.get(server.url or "")
    modern = {"MCP-Protocol-Version": versions.NEWEST_MODERN, "Mcp-Method": DISCOVER}
    hellos: tuple[tuple[str, bytes, dict[str, str]], ...] = (
        ("initialize", initialize_params({}), {}),
        (DISCOVER, versions.to_modern(b""), modern),
    )
    for method, params, headers in hellos:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": msgspec.Raw(params)}
        headers["Accept"] = "application/json, text/event-stream"
        reply = await web.post_json(server.url or "", body, headers)
        if reply.status == UNAUTHORIZED:
            break
    return reply


async def _resource(web: Web, url: URL, named: str | None) -> ResourceMetadata | None:
    """Return the server's own document, None where there is none."""

    def read(reply: Reply) -> ResourceMetadata:
        about = reply.read(ResourceMetadata)
        if not _covers(about.resource, url):
            raise OAuthProblem(
                f"{reply.where} is about {shown(about.resource)}, which is another server"
            )
        return about

    root = f"{_origin(url)}/.well-known/oauth-protected-resource"
    path, query = url.raw_path.rstrip("/"), url.raw_query_string
    places = (named, query and f"{root}{path}?{query}", root + path, root)
    return await _first(web, places, read)


async def _first(
    web: Web, places: Iterable[str | None], read: Callable[[Reply], Document]
) -> Document | None:
    """Return the first document that can be used; None where there is none. Raises OAuthProblem."""
    refused: OAuthProblem | None = None
    for place in dict.fromkeys(filter(None, places)):
        reply = await web.get(place, anywhere=True)
        if reply.status >= 500:
            raise reply.problem("the request for its metadata")
        if reply.status == 200 and not reply.is_page:
            try:
                return read(reply)
            except OAuthProblem as problem:
                refused = refused or problem
    if refused is not None:
        raise refused
    return None


def _covers(resource: str, url: URL) -> bool:
    """Return whether tokens for a resource are for this URL: the same, or above it at its origin."""
    try:
        found = URL(resource)
        if found.origin() != url.origin():
            return False
    except ValueError:
        return False
    if found.raw_query_string not in {"", url.raw_query_string}:
        return False
    return f"{url.raw_path.rstrip('/')}/".startswith(f"{found.raw_path.rstrip('/')}/")


async def _issuer(web: Web, named: list[str], preferred: str) -> IssuerMetadata:
    """Return the document of the issuer of last time, or of the first that has one."""
    refused: OAuthProblem | None = None
    # `sorted` keeps the order of the others.
    for issuer in sorted(named, key=lambda each: each != preferred)[:MOST_ISSUERS]:
        try:
            read = partial(_valid, web, expected=issuer)
            found = await _first(web, _places_of(web.checked(issuer)), read)
        except OAuthProblem as problem:
            if problem.passes:
                raise
            refused = refused or problem
        else:
            if found is not None:
                return found
    raise refused or OAuthProblem(f"{shown(named[0])}, which issues its tokens, has no metadata")


def _places_of(issuer: URL) -> Iterator[str]:
    """Yield where the document of an issuer may be: RFC 8414, the same for OpenID, and OpenID's own."""
    root, path = _origin(issuer), issuer.raw_path.rstrip("/")
    for name in ("oauth-authorization-server", "openid-configuration"):
        yield f"{root}/.well-known/{name}{path}"
    if path:
        yield f"{root}{path}/.well-known/openid-configuration"


async def _issuer_at_origin(web: Web, url: URL) -> IssuerMetadata:
    origin = _origin(url)
    place = f"{origin}/.well-known/oauth-authorization-server"
    found = await _first(web, (place,), partial(_valid, web, expected=None))
    return found or IssuerMetadata(
        issuer=origin,
        token_endpoint=f"{origin}/token",
        authorization_endpoint=f"{origin}/authorize",
        registration_endpoint=f"{origin}/register",
        code_challenge_methods_supported=["S256"],
    )


def _origin(url: URL) -> str:
    return str(url.origin()).rstrip("/")


def _valid(web: Web, reply: Reply, expected: str | None) -> IssuerMetadata:
    """Return the document if it is that of the issuer, and its addresses may be used."""
    found = reply.read(IssuerMetadata)
    if expected is not None and not _same_issuer(found.issuer, expected):
        raise OAuthProblem(
            f"the metadata of {shown(expected)} is that of another issuer: {shown(found.issuer)}"
        )
    for address in (
        found.token_endpoint,
        found.authorization_endpoint,
        found.registration_endpoint,
        found.revocation_endpoint,
    ):
        if address:
            web.checked(address)
    return found


def _same_issuer(one: str, other: str) -> bool:
    """Compare as texts (RFC 8414, 3.3); only the slash after a bare host may be missing."""
    shorter, longer = sorted((one, other), key=len)
    return one == other or (longer == f"{shorter}/" and shorter.count("/") == 2)
