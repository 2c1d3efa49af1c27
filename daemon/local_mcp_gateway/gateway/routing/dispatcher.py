"""Take in the messages of every transport: run and cancel requests, log them, pass on notifications."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from local_mcp_gateway.gateway.protocol import Answer, Envelope, failure, jsonrpc
from local_mcp_gateway.gateway.routing.server_info import initialize_result

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients import Limiter, Session
    from local_mcp_gateway.gateway.routing.call_log import CallLog
    from local_mcp_gateway.gateway.routing.handlers import ClientRequest
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.routing.router import Router
    from local_mcp_gateway.gateway.tasks import TaskScope
    from local_mcp_gateway.gateway.upstreams import ProgressTokens
    from local_mcp_gateway.store import ClientToken


class Cancellation:
    """Cancels the task that created it; `requested` tells that from other cancellations of the task."""

    __slots__ = ("_task", "reason", "requested")

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the gateway itself has ended the request, to tell its client."""
        task = asyncio.current_task()
        assert task is not None, "a server runs each request in a task"
        self._task = task
        self.requested = False

    def ask(self) -> None:
        """Cancel the request: its client no longer wants a response."""
        self.requested = True
        self._task.cancel()

    def end(self, reason: str) -> None:
        """Cancel the request, whose client still waits for a response."""
        self.reason = reason
        self.ask()

    def take_back(self) -> None:
        """Let the task continue after the cancelled request."""
        self._task.uncancel()


class Dispatcher:
    """Dispatches each client message. `tasks` hold those that outlive a message."""

    def __init__(
        self,
        registry: Registry,
        router: Router,
        calls: CallLog,
        limiter: Limiter,
        tokens: ProgressTokens,
        tasks: TaskScope,
        introduce: Callable[[Session], None],
    ) -> None:
        self.tasks = tasks
        self._introduce = introduce
        self._registry = registry
        self._router = router
        self._calls = calls
        self._limiter = limiter
        self._tokens = tokens

    async def initialize(self, session: Session) -> Answer:
        """Respond to `initialize`, after waiting a while for servers that were never connected."""
        self._introduce(session)
        members = await self._registry.introduced(session.profile)
        self._router.connect_own(session)
        session.greeted = True
        return jsonrpc.success(initialize_result(session.version, members))

    async def answer(self, request: ClientRequest, cancellation: Cancellation) -> Answer | None:
        """Handle a request in its own task; None where its client has cancelled it.

        A client whose session has ended has cancelled nothing, and is told.
        """
        began_ns = time.perf_counter_ns()
        session = request.session
        answer: Answer | None = None
        if session is not None:
            session.running[cancellation.ask] = request.identity
        refused, limits = self._limiter.begin(request.method, request.profile, request.token_id)
        try:
            if session is None or not session.was_cancelled(request.identity):
                answer = await self._router.handle(request) if refused is None else refused
        except asyncio.CancelledError:
            if not cancellation.requested:
                raise
            cancellation.take_back()
            ended = session is not None and session.ended
            reason = "The session has ended, and this request with it" if ended else None
            if (reason := cancellation.reason or reason) is not None:
                answer = failure(jsonrpc.CANCELLED, reason)
        finally:
            self._limiter.end(limits)
            if session is not None:
                session.running.pop(cancellation.ask, None)
            self._calls.record(request, answer, began_ns)
        return answer

    def token_of(self, session: Session) -> ClientToken | None:
        """Return the token that a session belongs to."""
        return self._registry.tokens.get(session.token)

    def on_notification(
        self, profile: str, session: Session | None, message: Envelope, token: str = ""
    ) -> None:
        """Handle a client's notification, or its response to a server request.

        An unknown notification goes to the server that it names, or else to all of the profile.
        """
        params = bytes(message.params)
        if not message.method:
            if session is not None:
                session.answered(message)
        elif message.method == "notifications/cancelled":
            if session is not None:
                with suppress(*jsonrpc.MALFORMED):  # it names no request
                    session.cancel(params)
        elif message.method == "notifications/progress":
            self.tasks.start(self._tokens.forward_progress, params)
        elif message.method != "notifications/initialized":
            token = token if session is None else session.token
            method = message.method
            for upstream, known in self._router.targets_of(profile, session, token, method, params):
                self.tasks.start(upstream.notify, method, known)
