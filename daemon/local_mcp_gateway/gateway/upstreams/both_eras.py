"""A stdio server that speaks both eras: a child for each era that its clients speak.

A child serves the era of its first request for as long as it runs (ADR 15, ADR 26). The one that is met
with a handshake is there always. When the first stateless client comes, the server is asked whether it
speaks that era too; if so, a second child is started for the stateless clients, and messages pass
untranslated. If not, or if it cannot run twice, the first child serves them, translated.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.gateway.protocol import eras
from local_mcp_gateway.gateway.protocol.envelope import INVALID_REQUEST, decode_target, encode
from local_mcp_gateway.gateway.upstreams.call import Call
from local_mcp_gateway.gateway.upstreams.connection import SILENT, identity_of_discover
from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost
from local_mcp_gateway.gateway.upstreams.stdio import StdioConnection

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from local_mcp_gateway.gateway.protocol.envelope import Answer
    from local_mcp_gateway.gateway.upstreams.connection import Events
    from local_mcp_gateway.gateway.upstreams.warden import Warden
    from local_mcp_gateway.store.model import ServerDefinition

LISTENING_S: Final = 5.0
"""How long it may take to say that it tells of changes; then it is used without."""
OPENING_S: Final = 30.0
"""How long the second child may take to answer."""


def _discover() -> Call:
    return Call("server/discover", eras.to_modern(b""), SILENT)


def _about(method: str, uri: str) -> Call:
    return Call(method, encode({"uri": uri}), SILENT)


class StatelessChild(StdioConnection):
    """A child that serves stateless clients only."""

    async def handshake(self) -> None:
        """Ask what it speaks. Raises UpstreamLost when that is not the stateless era."""
        identity = identity_of_discover(await self.request(_discover()))
        if identity is None:
            raise UpstreamLost("it does not speak the stateless era")
        self.be_stateless(identity)
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTENING_S):
                await self._watches.begun()


class StdioServer(StdioConnection):
    """The child that was met with a handshake, and the second one while there is one."""

    def __init__(
        self,
        definition: ServerDefinition,
        events: Events,
        warden: Warden,
        max_message_bytes: int,
    ) -> None:
        super().__init__(definition, events, warden, max_message_bytes)
        self._second: StatelessChild | None = None
        self._alone = False
        """Whether no second child could be had."""
        self._opening = asyncio.Lock()
        self._watched: set[str] = set()

    async def handshake(self) -> None:
        """Say `initialize`; what was found out about the same release before still holds."""
        await super().handshake()
        before = self._events.remembered()
        if before is not None and before.is_release_of(self.identity):
            self.identity.both = before.both

    def request(self, call: Call) -> Coroutine[None, None, Answer]:
        """Send a request to the child of its client's era."""
        both = call.modern or call.caller is SILENT or call.method.startswith("resources/")
        return self._request_of_both(call) if both else super().request(call)

    async def _request_of_both(self, call: Call) -> Answer:
        if call.modern and not self.identity.modern:
            second = await self._stateless()
            if second is not None:
                return await second.request(call)
        answer = await super().request(call)
        await self._repeat(call, answer)
        return answer

    async def _repeat(self, call: Call, answer: Answer) -> None:
        """Do at the second child what concerns both: subscriptions, and whether they are alive."""
        uri = decode_target(call.params).uri or "" if call.params else ""
        if call.method == "resources/subscribe" and not answer.failed:
            self._watched.add(uri)
        elif call.method == "resources/unsubscribe":
            self._watched.discard(uri)
        elif call.method != "ping":
            return
        if self._second is not None and self._second.lost is None:
            also = _discover() if call.method == "ping" else _about(call.method, uri)
            with suppress(UpstreamLost):
                await self._second.request(also)

    async def _stateless(self) -> StatelessChild | None:
        """Return the second child, started if need be; None when the first one serves both eras."""
        if self.identity.both is False or self._alone:
            return None
        async with self._opening:
            if self._second is not None and self._second.lost is None:
                return self._second
            if self.identity.both is None:
                answer = await super().request(_discover())
                refused = answer.failed and eras.error_code(answer) == INVALID_REQUEST
                self.identity.both = refused or identity_of_discover(answer) is not None
                self._events.learned()
            if self.identity.both:
                await self._open_second()
            return self._second

    async def _open_second(self) -> None:
        if self._second is not None:
            await self._second.close()
            self._second = None
        try:
            async with asyncio.timeout(OPENING_S):
                second = await StatelessChild.open(
                    self._definition, self._events, self._warden, max_message_bytes=self._limit
                )
        except (UpstreamLost, TimeoutError) as error:
            self._alone = True
            reason = str(error) or f"no answer within {OPENING_S:g} s"
            self._events.wrote(f"no second child for stateless clients: {reason}")
            return
        for uri in tuple(self._watched):
            await second.request(_about("resources/subscribe", uri))
        self._second = second
        self.start(self._tell_lost(second))

    async def _tell_lost(self, second: StatelessChild) -> None:
        reason = await second.wait_lost()
        self._events.wrote(f"the second child, for stateless clients, has ended: {reason}")

    def lose(self, reason: str) -> None:
        """Give both children up."""
        super().lose(reason)
        if self._second is not None:
            self._second.lose(reason)

    async def close(self) -> None:
        """End both children."""
        if self._second is not None:
            await self._second.close()
        await super().close()
