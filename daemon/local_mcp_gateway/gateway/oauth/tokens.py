"""The token of one server: sent with each request, and refreshed before it expires, once for all callers.

A request waits while a refresh is under way; nothing else does. The new tokens are durable before they are
used, since a server that rotates refresh tokens takes each one only once. If the process is killed between
the server's answer and the write, the old one is tried once more after the next start. Where the database
cannot take them (no room on the disk), they are kept here, and the write is tried again until it succeeds. A
refresh that fails because something is down is tried again after a pause, and the old token serves as long as
it is valid; one that is refused leaves nothing to try, and a person has to sign in again.

The database is read and written in one task at a time, which is also what makes it one refresh. No lock
against other processes: only one has the database (its lock), and with it the tokens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVarTuple

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

    Handler = Callable[[ClientRequest], Awaitable[ClientResponse]]

AHEAD_MS: Final = 60_000
"""How long before its end a token is refreshed; a short-lived one in the last tenth of its life."""
FIRST_PAUSE_S: Final = 2.0
MOST_PAUSE_S: Final = 60.0
SAVE_AGAIN_S: Final = 10.0
REFUSED_S: Final = 60.0
"""How long a new token that a server has refused is not sent again."""
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
Arguments = TypeVarTuple("Arguments")


class SignInStore(Protocol):
    """Where sign-ins are kept, in plain for who uses them."""

    async def load(self, server: ServerDefinition) -> SignIn | None:
        """Return what is stored for a server."""

    async def save(self, sign_in: SignIn, *, since: int | None = None) -> bool:
        """Store it, durable on return; with `since`, only over tokens of that `updated_at`."""


class TokenSource:
    """The tokens of one server, for all connections to it; an aiohttp middleware."""

    def __init__(self, store: SignInStore, emit: Emit, scope: TaskScope) -> None:
        self._server: ServerDefinition
        self._store = store
        self._emit = emit
        self._scope = scope
        self._kept: SignIn | None = None
        self._stored: int | None = None
        """The `updated_at` of the stored tokens that those kept here have yet to replace."""
        self._save_at = 0.0
        """When that is tried again, in seconds of the monotonic clock: the time of day may be set back."""
        self._renewing: asyncio.Future[None] | None = None
        self._outcome: list[Exception] = []
        self._refused = ""
        """The access token that the server does not take although it is new."""
        self._refused_at = 0.0
        self._not_renewable = ""
        """The access token whose refresh is refused as long as it is valid."""
        self._failures = 0
        self._wait_until = 0.0
        self._problem = ""

    def use(self, server: ServerDefinition) -> None:
        """Serve this definition of the server from now on."""
        self._server = server

    def forget(self) -> None:
        """Read the database again before the next request; tokens that are only here are kept."""
        if self._stored is None:
            self._kept = None

    async def store_refreshed(self) -> None:
        """Wait for a refresh that is under way, and store its tokens: they must not be lost."""
        if self._renewing is None and self._stored is not None:
            self._begin(self._save)
        if self._renewing is not None:
            await asyncio.shield(self._renewing)

    async def __call__(self, request: ClientRequest, handler: Handler) -> ClientResponse:
        """Send a request with the token; once more with a new one if the server refuses it."""
        kept, token = await self._valid()
        reply = await _sent(request, handler, token)
        if reply.status == UNAUTHORIZED:
            reply.release()
            kept, token = await self._valid(instead_of=token)
            reply = await _sent(request, handler, token)
            if reply.status == UNAUTHORIZED:
                reply.release()
                self._refused, self._refused_at = token, time.monotonic()
                raise self._needed("it refuses a new token")
        if reply.status == FORBIDDEN:
            challenge = parameters_of(tuple(reply.headers.getall("WWW-Authenticate", ())))
            if challenge.get("error") == "insufficient_scope":
                reply.release()
                scope = challenge.get("scope", "")
                return await self._stepped_up(request, handler, kept, scope)
        return reply

    async def _valid(self, *, instead_of: str = "") -> tuple[SignIn, str]:
        """Return the sign-in and its valid token, which may take a refresh; another one than the given one.

        Raises SignInNeeded, or UpstreamDisconnected if there is none at the moment.
        """
        kept = self._kept
        if self._refused and time.monotonic() - self._refused_at > REFUSED_S:
            self._refused = ""
        if (
            kept is None
            or kept.access_token == instead_of
            or self._is_due(kept)
            or self._is_to_save()
        ):
            await self._renewed(instead_of)
            kept = self._kept
        if kept is None or kept.access_token is None or kept.access_token == self._refused:
            raise self._needed("it wants you to sign in")
        return kept, kept.access_token

    def _is_to_save(self) -> bool:
        return self._stored is not None and time.monotonic() >= self._save_at

    def _is_due(self, kept: SignIn) -> bool:
        if kept.access_token is None or kept.expires_at is None:
            return kept.access_token is None
        ahead = min(AHEAD_MS, max(0, kept.expires_at - kept.updated_at) // 10)
        return now_ms() >= kept.expires_at - ahead

    async def _renewed(self, refused: str) -> None:
        """Wait for the refresh that is under way, or begin one; a caller that leaves does not end it."""
        if self._renewing is None:
            self._begin(self._renew, refused)
        outcome, renewing = self._outcome, self._renewing
        assert renewing is not None, "it has begun"
        await asyncio.shield(renewing)
        if outcome:
            raise outcome[0]

    def _begin(self, work: Callable[[*Arguments], Awaitable[None]], *arguments: *Arguments) -> None:
        """Start the one task that reads and writes."""
        self._outcome = []
        self._renewing = self._scope.start(self._try, self._outcome, work, *arguments)
        self._renewing.add_done_callback(self._has_ended)

    def _has_ended(self, _: asyncio.Future[None]) -> None:
        self._renewing = None

    async def _try(
        self,
        outcome: list[Exception],
        work: Callable[[*Arguments], Awaitable[None]],
        *arguments: *Arguments,
    ) -> None:
        try:
            await work(*arguments)
        except Exception as error:  # noqa: BLE001  each caller that waits raises it
            outcome.append(error)

    async def _renew(self, refused: str) -> None:
        if self._is_to_save():
            await self._save()
        if self._kept is None:
            await self._load()
        kept = self._kept
        if kept is None or kept.access_token != refused:
            refused = ""  # another call has replaced it
        if kept is None or not (refused or self._is_due(kept)):
            return
        unexpired = kept.expires_at is None or kept.expires_at > now_ms()
        valid = unexpired and not refused and kept.access_token is not None
        if not self._may_renew(kept, refused, valid=valid):
            return
        try:
            new = await renew(self._server, kept)
        except OAuthProblem as problem:
            await self._failed(kept, problem, valid=valid)
        else:
            self._failures, self._wait_until, self._refused = 0, 0.0, ""
            if await self._replace(kept, new):
                self._emit("token.refreshed", server=self._server.name)

    def _may_renew(self, kept: SignIn, refused: str, *, valid: bool) -> bool:
        """Return whether to ask for new tokens now; raise where there is no valid one either."""
        again = kept.refresh_token or kept.client.grant is Grant.CREDENTIALS
        # A token that was new when it was refused: another one would not be better.
        useless = bool(refused) and refused == self._refused
        if not (again and kept.client.token_endpoint) or useless:
            if refused:
                self._refused, self._refused_at = refused, time.monotonic()
            if not valid:
                raise self._needed("it refuses its token" if refused else "its token has expired")
            return False
        if valid and kept.access_token == self._not_renewable:
            return False
        if time.monotonic() < self._wait_until:
            if not valid:
                raise UpstreamDisconnected(self._problem, unsent=True)
            return False
        return True

    async def _replace(self, old: SignIn, new: SignIn) -> bool:
        """Keep these tokens, to be used once they are stored; return whether they were not outdated."""
        if self._stored is None:
            self._stored = old.updated_at
        self._save_at, self._kept = 0.0, new
        await self._save()
        return self._kept is new

    async def _save(self) -> None:
        """Store what is kept here, unless somebody has signed in or out meanwhile: then read that."""
        assert self._kept is not None, "there is something to store"
        try:
            done = await self._store.save(self._kept, since=self._stored or None)
        except Error as error:
            self._save_at = time.monotonic() + SAVE_AGAIN_S
            self._emit("token.save_failed", server=self._server.name, message=str(error))
            return
        self._stored = None
        if not done:
            await self._load()

    async def _load(self) -> None:
        """Read what is stored, and try everything again."""
        try:
            self._kept = await self._store.load(self._server)
        except GatewayError as error:
            raise UpstreamDisconnected(error.message.rstrip("."), unsent=True) from None
        self._refused, self._failures, self._wait_until = "", 0, 0.0
        if self._kept is not None:
            learn({value.value for value in self._kept.values})

    async def _failed(self, kept: SignIn, problem: OAuthProblem, *, valid: bool) -> None:
        """Wait before the next try; after a refusal there is none, unless the token is still valid."""
        if problem.is_final and not valid:
            gone = replace(kept, access_token=None, refresh_token=None)
            if kept.client.kind is ClientKind.DYNAMIC and problem.is_of_client:
                gone = replace(gone, client=replace(kept.client, client_id=""))  # register again
            if not await self._replace(kept, gone):
                return
            self._emit("token.refused", server=self._server.name, reason=problem.reason)
            raise self._needed(f"its refresh was refused: {problem.reason}") from None
        if problem.is_final:  # some refuse it until the token has expired
            self._not_renewable = kept.access_token or ""
        else:
            self._failures += 1
            pause_s = FIRST_PAUSE_S * 2 ** min(self._failures - 1, 16)
            self._wait_until = time.monotonic() + min(pause_s, MOST_PAUSE_S)
        self._problem = f"its token cannot be refreshed now: {problem.reason}"
        if problem.code:  # it was refused for another reason, which may lie in the last sign-in
            self._problem += f"; `server login {self._server.name}` signs in again"
        self._emit("token.delayed", server=self._server.name, reason=problem.reason)
        if not valid:
            raise UpstreamDisconnected(self._problem, unsent=True) from None

    async def _stepped_up(
        self,
        request: ClientRequest,
        handler: Handler,
        kept: SignIn,
        scope: str,
    ) -> ClientResponse:
        """Get a token with a wider scope: at once with credentials of our own, else a person has to."""
        wanted = union_of(kept.client.wanted_scope, scope)
        missing = set(wanted.split()).difference((kept.scope or "").split())
        if kept.client.grant is Grant.CREDENTIALS and missing:
            if self._kept is kept:
                self._kept = replace(kept, scope=union_of(kept.scope, wanted))
            _, token = await self._valid(instead_of=kept.access_token or "")
            return await _sent(request, handler, token)
        if wanted != kept.client.wanted_scope and self._kept is kept:
            self._kept = replace(kept, client=replace(kept.client, wanted_scope=wanted))
            with suppress(*Error):
                await self._store.save(self._kept, since=kept.updated_at or None)
        what = f" ({shown(scope)})" if scope else ""
        reason = f"it wants more rights{what}: `server login {self._server.name}` asks for them"
        raise HttpRefusal(reason, FORBIDDEN)

    def _needed(self, why: str) -> SignInNeeded:
        return SignInNeeded(self._server.name, why)


async def _sent(request: ClientRequest, handler: Handler, token: str) -> ClientResponse:
    """Send a request with a token; the connection may have been closed while it waited for that."""
    if request.session.closed:
        raise UpstreamDisconnected("its connection was closed", unsent=True)
    request.headers["Authorization"] = f"Bearer {token}"
    return await handler(request)
