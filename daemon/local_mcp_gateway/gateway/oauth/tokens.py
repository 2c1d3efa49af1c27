"""The token of one server: sent with each request, and refreshed before it expires, once for all callers.

A request waits while a refresh is under way; nothing else does. The new tokens are durable before they are
used, since a server that rotates refresh tokens takes each one only once. If the process is killed between
the server's answer and the write, the old one is tried once more after the next start. A refresh that fails
because something is down is tried again after a pause, and the old token serves as long as it is valid; one
that is refused leaves nothing to try, and a person has to sign in again.

No lock against other processes: only one has the database (its lock), and with it the tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from local_mcp_gateway.database import Error
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.gateway.oauth.discovery import parameters_of, union_of
from local_mcp_gateway.gateway.oauth.login import renew
from local_mcp_gateway.gateway.oauth.web import OAuthProblem, shown
from local_mcp_gateway.gateway.upstreams import HttpRefusal, SignInNeeded, UpstreamDisconnected
from local_mcp_gateway.log import Emit, learn
from local_mcp_gateway.store import ClientKind, Grant, ServerDefinition, SignIn

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse

    from local_mcp_gateway.gateway.tasks import TaskScope

AHEAD_MS: Final = 60_000
"""How long before its end a token is refreshed; a short-lived one in the last tenth of its life."""
FIRST_PAUSE_MS: Final = 2_000
MOST_PAUSE_MS: Final = 60_000
REFUSED_MS: Final = 60_000
"""How long a new token that a server has refused is not sent again."""
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
FINAL: Final = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})
"""Errors of a refresh after which it makes no sense to try the same again."""


class SignInStore(Protocol):
    """Where sign-ins are kept, in plain for who uses them."""

    async def load(self, server: ServerDefinition) -> SignIn | None:
        """Return what is stored for a server."""

    async def save(self, sign_in: SignIn, *, since: int | None = None) -> bool:
        """Store it, durable on return; with `since`, only over tokens of that `updated_at`."""


class TokenSource:
    """The tokens of one server, for all connections to it; an aiohttp middleware."""

    def __init__(
        self, server: ServerDefinition, store: SignInStore, emit: Emit, scope: TaskScope
    ) -> None:
        self._server = server
        self._store = store
        self._emit = emit
        self._scope = scope
        self._kept: SignIn | None = None
        self._renewing: asyncio.Future[None] | None = None
        self._outcome: list[Exception] = []
        self._refused = ""
        """The access token that the server does not take although it is new."""
        self._refused_at = 0
        self._failures = 0
        self._wait_until = 0
        self._problem = ""

    async def load(self) -> bool:
        """Read the database again; return whether there is, or can be, a token."""
        kept = await self._store.load(self._server)
        if kept is None or self._kept is None or kept.access_token != self._kept.access_token:
            self._refused, self._failures, self._wait_until = "", 0, 0
        self._kept = kept
        if kept is not None:
            learn({value.value for value in kept.values})
        return kept is not None and bool(kept.access_token or kept.client.token_endpoint)

    def forget(self) -> None:
        """Read the database again before the next request."""
        self._kept = None

    async def close(self) -> None:
        """Wait for a refresh that is under way: its tokens must not be lost."""
        if self._renewing is not None:
            with suppress(Exception):
                await self._renewing

    async def __call__(
        self,
        request: ClientRequest,
        handler: Callable[[ClientRequest], Awaitable[ClientResponse]],
    ) -> ClientResponse:
        """Send a request with the token; once more with a new one if the server refuses it."""
        token = await self.token()
        request.headers["Authorization"] = f"Bearer {token}"
        reply = await handler(request)
        if reply.status == UNAUTHORIZED:
            reply.release()
            token = await self.token(instead_of=token)
            request.headers["Authorization"] = f"Bearer {token}"
            reply = await handler(request)
            if reply.status == UNAUTHORIZED:
                reply.release()
                self._refused, self._refused_at = token, now_ms()
                raise self._needed("it refuses a new token")
        if reply.status == FORBIDDEN:
            challenge = parameters_of(tuple(reply.headers.getall("WWW-Authenticate", ())))
            if challenge.get("error") == "insufficient_scope":
                reply.release()
                return await self._stepped_up(request, handler, challenge.get("scope", ""))
        return reply

    async def token(self, *, instead_of: str = "") -> str:
        """Return a valid token, which may take a refresh; another one than the given one.

        Raises SignInNeeded, or UpstreamDisconnected if there is none at the moment.
        """
        kept = self._kept
        if self._refused and now_ms() - self._refused_at > REFUSED_MS:
            self._refused = ""
        if kept is None or kept.access_token == instead_of or self._is_due(kept):
            await self._renewed(instead_of)
            kept = self._kept
        if kept is None or kept.access_token is None or kept.access_token == self._refused:
            raise self._needed("it wants you to sign in")
        return kept.access_token

    def _is_due(self, kept: SignIn) -> bool:
        if kept.access_token is None or kept.expires_at is None:
            return kept.access_token is None
        ahead = min(AHEAD_MS, max(0, kept.expires_at - kept.updated_at) // 10)
        return now_ms() >= kept.expires_at - ahead

    async def _renewed(self, refused: str) -> None:
        """Wait for the refresh that is under way, or begin one; a caller that leaves does not end it."""
        if self._renewing is None:
            self._outcome = []
            self._renewing = self._scope.start(self._try_to_renew, refused, self._outcome)
            self._renewing.add_done_callback(self._has_renewed)
        outcome = self._outcome
        await asyncio.shield(self._renewing)
        if outcome:
            raise outcome[0]

    def _has_renewed(self, _: asyncio.Future[None]) -> None:
        self._renewing = None

    async def _try_to_renew(self, refused: str, outcome: list[Exception]) -> None:
        try:
            await self._renew(refused)
        except Exception as error:  # noqa: BLE001  each caller that waits raises it
            outcome.append(error)

    async def _renew(self, refused: str) -> None:
        if (kept := self._kept) is None:
            await self._reload()
            if (kept := self._kept) is None or not (
                kept.access_token == refused or self._is_due(kept)
            ):
                return
        if refused and kept.access_token != refused:
            return  # another call has replaced it
        unexpired = kept.expires_at is None or kept.expires_at > now_ms()
        valid = unexpired and not refused and kept.access_token is not None
        if not self._may_renew(kept, refused, valid=valid):
            return
        try:
            new = await renew(self._server, kept)
        except OAuthProblem as problem:
            await self._failed(kept, problem, valid=valid)
        else:
            await self._take(kept, new)

    def _may_renew(self, kept: SignIn, refused: str, *, valid: bool) -> bool:
        """Return whether to ask for new tokens now; raise where there is no valid one either."""
        again = kept.refresh_token or kept.client.grant is Grant.CREDENTIALS
        # A token that was new when it was refused: another one would not be better.
        useless = bool(refused) and refused == self._refused
        if not (again and kept.client.token_endpoint) or useless:
            if refused:
                self._refused, self._refused_at = refused, now_ms()
            if not valid:
                raise self._needed("it refuses its token" if refused else "its token has expired")
            return False
        if now_ms() < self._wait_until:
            if not valid:
                raise UpstreamDisconnected(self._problem, unsent=True)
            return False
        return True

    async def _take(self, old: SignIn, new: SignIn) -> None:
        """Store new tokens, and use them."""
        self._failures = self._wait_until = 0
        self._refused = ""
        try:
            if not await self._store.save(new, since=old.updated_at or None):
                await self._reload()  # somebody has signed in or out meanwhile
                return
        except Error as error:
            self._emit("token.save_failed", server=self._server.name, message=str(error))
        self._kept = new
        self._emit("token.refreshed", server=self._server.name)

    async def _failed(self, kept: SignIn, problem: OAuthProblem, *, valid: bool) -> None:
        """Wait before the next try; after a refusal there is none, unless the token is still valid."""
        if problem.code in FINAL and not valid:
            gone = replace(kept, access_token=None, refresh_token=None)
            if kept.client.kind is ClientKind.DYNAMIC and problem.code == "invalid_client":
                gone = replace(gone, client=replace(kept.client, client_id=""))  # register again
            with suppress(*Error):
                await self._store.save(gone, since=kept.updated_at or None)
            self._kept = gone
            self._emit("token.refused", server=self._server.name, reason=problem.reason)
            raise self._needed(f"its refresh was refused: {problem.reason}") from None
        self._failures += 1
        pause_ms = min(FIRST_PAUSE_MS << min(self._failures - 1, 16), MOST_PAUSE_MS)
        if problem.code in FINAL and kept.expires_at is not None:
            pause_ms = max(
                0, kept.expires_at - now_ms()
            )  # some refuse it until the token has expired
        self._wait_until = now_ms() + pause_ms
        self._problem = f"its token cannot be refreshed now: {problem.reason}"
        self._emit("token.delayed", server=self._server.name, reason=problem.reason)
        if not valid:
            raise UpstreamDisconnected(self._problem, unsent=True) from None

    async def _reload(self) -> None:
        try:
            await self.load()
        except GatewayError as error:
            raise UpstreamDisconnected(error.message.rstrip("."), unsent=True) from None

    async def _stepped_up(
        self,
        request: ClientRequest,
        handler: Callable[[ClientRequest], Awaitable[ClientResponse]],
        scope: str,
    ) -> ClientResponse:
        """Get a token with a wider scope: at once with credentials of our own, else a person has to."""
        kept = self._kept
        assert kept is not None, "a token was sent"
        wanted = union_of(kept.client.wanted_scope, scope)
        missing = set(wanted.split()).difference((kept.scope or "").split())
        if kept.client.grant is Grant.CREDENTIALS and missing:
            self._kept = replace(kept, scope=union_of(kept.scope, wanted))
            token = await self.token(instead_of=kept.access_token or "")
            request.headers["Authorization"] = f"Bearer {token}"
            return await handler(request)
        if wanted != kept.client.wanted_scope:
            self._kept = replace(kept, client=replace(kept.client, wanted_scope=wanted))
            with suppress(*Error):
                await self._store.save(self._kept, since=kept.updated_at or None)
        what = f" ({shown(scope)})" if scope else ""
        reason = f"it wants more rights{what}: `server login {self._server.name}` asks for them"
        raise HttpRefusal(reason, FORBIDDEN)

    def _needed(self, why: str) -> SignInNeeded:
        return SignInNeeded(self._server.name, why)
