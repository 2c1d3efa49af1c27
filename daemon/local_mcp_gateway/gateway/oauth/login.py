"""Sign in to a server: the authorization code with PKCE, or the client's own credentials.

A login has two steps, with a person in a browser between them. What the second needs from the first goes
through whoever waits for the person, so that nothing is kept, and nothing is locked, meanwhile: a login that
nobody finishes leaves nothing behind.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec
from yarl import URL

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.gateway.oauth.discovery import BASIC, POST, Found, discover, union_of
from local_mcp_gateway.gateway.oauth.web import OAuthProblem, Web, shown
from local_mcp_gateway.log import learn
from local_mcp_gateway.store import Client, ClientKind, Grant, SignIn

if TYPE_CHECKING:
    from local_mcp_gateway.store import ServerDefinition

MOST_TOKEN: Final = 32 * 1024
"""Longest token, in characters: it goes into a header of each request."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_CLIENT_ID: Final = re.compile(r"[\x20-\x7e]{1,4096}")
MOST_LIFE_S: Final = 10 * 366 * 24 * 3600


class PendingLogin(msgspec.Struct, forbid_unknown_fields=True):
    """A login that waits for a person; it has secrets."""

    url: str
    """Where the person goes."""
    state: str
    verifier: str
    client: Client
    client_secret: str | None
    """Only of a client that was registered for this login."""
    scope: str
    asks_iss: bool


class _Registered(msgspec.Struct):
    client_id: str
    client_secret: str | None = None
    token_endpoint_auth_method: str | None = None


class _Tokens(msgspec.Struct):
    access_token: str
    token_type: str | None = None
    expires_in: float | str | None = None
    refresh_token: str | None = None
    scope: str | None = None


async def begin_login(
    server: ServerDefinition,
    kept: SignIn | None,
    *,
    redirect_uri: str,
    document: str = "",
    scope: str | None = None,
    names_resource: bool | None = None,
) -> PendingLogin | SignIn:
    """Find out where to sign in; return what waits for a person, or the tokens where none is needed.

    `kept` is what was stored of the server, in plain; `document` the URL of the client's metadata document;
    `names_resource` whether the issuer is told what the tokens are for, None: as at the last login.
    Raises OAuthProblem.
    """
    async with Web.open(server) as web:
        found = await discover(web, server, kept.client.issuer if kept is not None else "")
        if kept is not None and kept.client.kind is ClientKind.OWN and kept.client.client_id:
            client, secret = _own(kept, found, redirect_uri), kept.client_secret
        elif document and found.issuer.client_id_metadata_document_supported:
            client, secret = _client(found, document, ClientKind.DOCUMENT, redirect_uri), None
        elif kept is not None and _is_usable(kept, found, redirect_uri):
            client, secret = _facts(kept.client, found), kept.client_secret
        else:
            client, secret = await _register(web, found, redirect_uri, server.name)
        omits = "" if kept is None or names_resource else kept.client.omits
        if omits or names_resource is False:
            client = replace(client, resource="", omits="resource")
        else:
            client = replace(client, omits="")
        before = kept.scope if kept is not None and kept.client.issuer == client.issuer else None
        wanted = kept.client.wanted_scope if kept is not None else ""
        if scope is None:
            asked = union_of(before, wanted) if wanted else None
            scope = union_of(asked, found.scope)
        if client.grant is Grant.CREDENTIALS:
            new = SignIn(server, client, secret, scope=scope or None)
            return await _token_request(web, new, {"grant_type": Grant.CREDENTIALS.value})
    if not found.issuer.authorization_endpoint:
        raise OAuthProblem(f"{shown(client.issuer)} has no page to sign in at")
    if "S256" not in (found.issuer.code_challenge_methods_supported or ()):
        raise OAuthProblem(f"{shown(client.issuer)} does not support PKCE with S256")
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        **({"scope": scope} if scope else {}),
        **({"resource": client.resource} if client.resource else {}),
        **({"prompt": "consent"} if "offline_access" in scope.split() else {}),
    }
    return PendingLogin(
        url=str(URL(found.issuer.authorization_endpoint).extend_query(query)),
        state=state,
        verifier=verifier,
        client=client,
        client_secret=secret if client.kind is ClientKind.DYNAMIC else None,
        scope=scope,
        asks_iss=bool(found.issuer.authorization_response_iss_parameter_supported),
    )


async def finish_login(
    server: ServerDefinition,
    kept: SignIn | None,
    pending: PendingLogin,
    answer: Mapping[str, str],
) -> SignIn:
    """Exchange what the browser was sent back with for tokens. Raises OAuthProblem.

    `answer` has the query of the redirect.
    """
    if not hmac.compare_digest(answer.get("state", "").encode(), pending.state.encode()):
        raise OAuthProblem("the answer belongs to another login")
    issuer = answer.get("iss")
    if issuer != pending.client.issuer and (issuer is not None or pending.asks_iss):
        said = "nobody" if issuer is None else shown(issuer)
        raise OAuthProblem(f"the answer is of {said}, and not of {shown(pending.client.issuer)}")
    if error := answer.get("error"):
        text = answer.get("error_description", "")
        raise OAuthProblem(f"it was refused: {shown(text or error)}", code=error)
    if not (code := answer.get("code")):
        raise OAuthProblem("the answer has no code")
    secret = pending.client_secret
    if secret is None and kept is not None and kept.client.client_id == pending.client.client_id:
        secret = kept.client_secret
    new = SignIn(server, pending.client, secret, scope=pending.scope or None)
    form = {
        "grant_type": Grant.CODE.value,
        "code": code,
        "redirect_uri": pending.client.redirect_uri,
        "code_verifier": pending.verifier,
    }
    async with Web.open(server) as web:
        return await _token_request(web, new, form)


async def renew(server: ServerDefinition, kept: SignIn) -> SignIn:
    """Return new tokens: by the refresh token, or by the client's own credentials. Raises OAuthProblem."""
    form = {"grant_type": Grant.CREDENTIALS.value}
    if kept.client.grant is Grant.CODE and kept.refresh_token is not None:
        form = {"grant_type": "refresh_token", "refresh_token": kept.refresh_token}
    async with Web.open(server) as web:
        return await _token_request(web, kept, form)


async def revoke(server: ServerDefinition, kept: SignIn) -> bool:
    """Tell the issuer that the tokens are not needed any more (RFC 7009); return whether it was done.

    Raises OAuthProblem.
    """
    token = kept.refresh_token or kept.access_token
    if not kept.client.revocation_endpoint or token is None:
        return False
    form, headers = _identified(kept, {"token": token})
    async with Web.open(server) as web:
        reply = await web.post_form(kept.client.revocation_endpoint, form, headers)
        return reply.status == 200


async def _token_request(web: Web, old: SignIn, form: dict[str, str]) -> SignIn:
    if old.scope:
        form["scope"] = old.scope
    if form["grant_type"] == Grant.CODE.value:
        form.pop("scope", None)  # it was part of the authorization
    if old.client.resource:
        form["resource"] = old.client.resource
    form, headers = _identified(old, form)
    sent_ms = now_ms()
    reply = await web.post_form(old.client.token_endpoint, form, headers)
    if reply.is_refusal:
        raise reply.problem("the request for a token")
    given = reply.read(_Tokens)
    learn({given.access_token, given.refresh_token or "", old.client_secret or ""})
    for token in (given.access_token, given.refresh_token or "-"):
        if len(token) > MOST_TOKEN:
            raise OAuthProblem(f"{reply.where} gave a token of more than {MOST_TOKEN} characters")
        if not _TOKEN.fullmatch(token):
            raise OAuthProblem(f"{reply.where} gave a token that cannot be sent in a header")
    if (given.token_type or "Bearer").lower() != "bearer":
        raise OAuthProblem(f"{reply.where} gave a token of type {shown(given.token_type or '')}")
    life_s = _seconds(given.expires_in)
    return replace(
        old,
        access_token=given.access_token,
        refresh_token=given.refresh_token or old.refresh_token,
        scope=given.scope or old.scope,
        expires_at=None if life_s is None else sent_ms + int(life_s * 1000),
        updated_at=max(now_ms(), old.updated_at + 1),
    )


def _seconds(given: float | str | None) -> float | None:
    try:
        found = None if given is None else float(given)
    except ValueError:
        return None
    # 0 is "for ever" where it is sent: a token that is of no use at once would be given to nobody.
    return None if found is None or not 0 < found <= MOST_LIFE_S else found


def _identified(of: SignIn, form: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return a form and headers that say whose they are, as the issuer wants it."""
    client, secret = of.client, of.client_secret
    if secret is not None and client.auth_method == BASIC:
        pair = f"{quote(client.client_id, safe='')}:{quote(secret, safe='')}"
        return form, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    form["client_id"] = client.client_id
    if secret is not None and client.auth_method == POST:
        form["client_secret"] = secret
    return form, {}


def _client(found: Found, client_id: str, kind: ClientKind, redirect_uri: str) -> Client:
    client = Client(client_id, found.issuer.issuer, kind, redirect_uri=redirect_uri)
    return _facts(client, found)


def _facts(client: Client, found: Found) -> Client:
    """Return the client with what discovery has found; an issuer may move its endpoints."""
    return replace(
        client,
        issuer=found.issuer.issuer,
        token_endpoint=found.issuer.token_endpoint,
        revocation_endpoint=found.issuer.revocation_endpoint or "",
        resource=found.resource,
        wanted_scope="",
    )


def _own(kept: SignIn, found: Found, redirect_uri: str) -> Client:
    """Return the client that a person has given; it goes to no other issuer than the first time."""
    client = kept.client
    if client.issuer and client.issuer != found.issuer.issuer:
        raise OAuthProblem(
            f"its tokens now come from {shown(found.issuer.issuer)} and not from {client.issuer}, "
            f"for which the client id was given: give one with `server edit {kept.server.name} --client-id`"
        )
    method = found.auth_method(secret=kept.client_secret is not None)
    back = redirect_uri if client.grant is Grant.CODE else ""
    return _facts(replace(client, redirect_uri=back, auth_method=method), found)


def _is_usable(kept: SignIn, found: Found, redirect_uri: str) -> bool:
    """Return whether a registered client fits this login."""
    client = kept.client
    return (
        client.kind is ClientKind.DYNAMIC
        and bool(client.client_id)
        and client.issuer == found.issuer.issuer
        and client.redirect_uri == redirect_uri
    )


async def _register(
    web: Web, found: Found, redirect_uri: str, name: str
) -> tuple[Client, str | None]:
    """Register the gateway as a client of the issuer (RFC 7591)."""
    endpoint = found.issuer.registration_endpoint
    if not endpoint:
        raise OAuthProblem(
            f"{shown(found.issuer.issuer)} lets no program register itself: register one there, with the "
            f"redirect URI {redirect_uri}, and give its id with `server edit {name} --client-id`"
        )
    known = found.issuer.token_endpoint_auth_methods_supported
    method = "none" if not known or "none" in known else BASIC if BASIC in known else POST
    asked = {
        "client_name": "Local MCP Gateway",
        "redirect_uris": [redirect_uri],
        "grant_types": [Grant.CODE.value, "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "application_type": "native",
        **({"scope": found.scope} if found.scope else {}),
    }
    reply = await web.post_json(endpoint, asked)
    if reply.is_refusal:
        raise reply.problem("the registration")
    given = reply.read(_Registered)
    if not _CLIENT_ID.fullmatch(given.client_id):
        raise OAuthProblem(f"{reply.where} gave a client id that cannot be sent")
    secret = given.client_secret or None
    client = _client(found, given.client_id, ClientKind.DYNAMIC, redirect_uri)
    chosen = given.token_endpoint_auth_method or (BASIC if secret and method == "none" else method)
    return replace(client, auth_method=chosen), secret
