"""One request on its way to an upstream server, and what may come back before its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from local_mcp_gateway.gateway.protocol.envelope import Answer, edit, member

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.large import LargeAnswer, Relay

SAFE: Final = frozenset(
    {"ping", "resources/read", "prompts/get", "completion/complete", "resources/subscribe"}
)
"""Methods that change nothing, so that one which got lost may be sent again."""


class Caller(Protocol):
    """Who waits for the answer: takes what the server sends before it."""

    @property
    def capabilities(self) -> bytes:
        """Return what the client has said that it can, as JSON."""

    @property
    def log_level(self) -> str | None:
        """Return the least severe level of log messages that the client wants, or None."""

    @property
    def client(self) -> object:
        """Return what is the same for all calls of one client; None for the gateway's own."""

    def notified(self, method: str, params: bytes) -> None:
        """Take a notification that belongs to this call."""

    async def asked(self, method: str, params: bytes) -> Answer:
        """Answer a request that the server makes during this call."""

    @property
    def relay(self) -> Relay | None:
        """Return what takes an answer that is too large to be held, or None when it must be held."""


class Call(msgspec.Struct, eq=False):
    """A request to forward. `params` are bytes; the token is the client's own, as it wrote it."""

    method: str
    params: bytes
    caller: Caller
    modern: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    whole: bool = False
    """Whether the answer has to be held, because something in it is rewritten."""
    extend: Callable[[], None] = lambda: None
    token: bytes = b""
    identity: bytes = b""
    """The id under which it was sent last."""
    served_modern: bool = False
    """Whether it was sent in the stateless era."""
    begun: bool = False
    """Whether a part of the answer has reached the client, so that there is no second attempt."""

    async def relayed(self, large: LargeAnswer, relay: Relay) -> Answer:
        """Hand over an answer that is not held."""
        self.begun = True
        return Answer(b"", relayed_bytes=await relay(large))

    def prepared(self, identity: bytes) -> bytes:
        """Return the params for a request of that id, which takes the place of the progress token."""
        self.identity = identity
        if b"progressToken" not in self.params:
            return self.params
        meta = member(self.params, "_meta")
        self.token = member(meta, "progressToken") if meta else b""
        if not self.token:
            return self.params
        return edit(self.params, {"_meta": edit(meta, {"progressToken": identity})})

    def notified(self, method: str, params: bytes) -> None:
        """Hand a notification to the caller, with the caller's own progress token in it."""
        self.extend()
        if method == "notifications/progress":
            if not self.token:
                return
            params = edit(params, {"progressToken": self.token})
        self.caller.notified(method, params)
