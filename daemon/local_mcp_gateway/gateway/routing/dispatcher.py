"""Dispatch client messages of every transport: run and cancel requests, forward notifications."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from local_mcp_gateway.gateway.protocol import jsonrpc
from local_mcp_gateway.gateway.routing.server_info import initialize_result

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.sessions import Session
    from local_mcp_gateway.gateway.protocol.jsonrpc import Answer, Envelope
    from local_mcp_gateway.gateway.routing.call_log import CallLog
    from local_mcp_gateway.gateway.routing.handlers import ClientRequest
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.gateway.routing.router import Router
    from local_mcp_gateway.gateway.tasks import TaskScope
    from local_mcp_gateway.gateway.upstreams.server_requests import ProgressTokens


class Cancellation:
    """Cancels the task that created it; `requested` tells that from other cancellations of the task."""

    __slots__ = ("_task", "requested")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a server runs each request in a task"
        self._task = task
        self.requested = False

    def ask(self) -> None:
        """Cancel the request: its client no longer wants a response."""
        self.requested = True
        self._task.cancel()

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
        tokens: ProgressTokens,
        tasks: TaskScope,
    ) -> None:
        self.tasks = tasks
        self._registry = registry
        self._router = router
        self._calls = calls
        self._tokens = tokens

    def initialize(self, session: Session) -> Answer:
        """Respond to `initialize`."""
        members = self._registry.members(session.profile)
        for upstream in members:
            upstream.request_connection()
        return jsonrpc.success(initialize_result(session.version, members))

    async def answer(self, request: ClientRequest, cancellation: Cancellation) -> Answer | None:
        """Handle a request in its own task; None where its client has cancelled it."""
        began_ns = time.perf_counter_ns()
        session, identity = request.session, request.identity
        answer: Answer | None = None
        if session is not None:
            session.running[identity] = cancellation.ask
        try:
            answer = await self._router.handle(request)
        except asyncio.CancelledError:
            if not cancellation.requested:
                raise
            cancellation.take_back()
        finally:
            if session is not None:
                session.running.pop(identity, None)
            self._calls.record(request, answer, began_ns)
        return answer

    def on_notification(self, profile: str, session: Session | None, message: Envelope) -> None:
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
            for upstream, known in self._router.whom(profile, params):
                self.tasks.start(upstream.notify, message.method, known)
