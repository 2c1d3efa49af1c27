"""What every kind of upstream connection offers, and the handshake that they share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from local_mcp_gateway.gateway.protocol import eras
from local_mcp_gateway.gateway.protocol.envelope import (
    MALFORMED,
    Answer,
    decode_any,
    encode,
    failure,
    success,
)
from local_mcp_gateway.gateway.upstreams.lost import UpstreamLost

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.upstreams.call import Call
    from local_mcp_gateway.gateway.upstreams.questions import Tokens

LOST_CODES: Final = (-32601, -32022)


class Identity(msgspec.Struct, omit_defaults=True):
    """What a server says of itself, in either era: the part of its handshake that is remembered."""

    version: str = eras.NEWEST_HANDSHAKE
    capabilities: dict[str, msgspec.Raw] = {}
    name: str = ""
    instructions: str | None = None
    modern: bool = False
    release: str = ""
    """The server's own version."""
    both: bool | None = None
    """Of a server over stdio that was met with a handshake: whether it speaks the other era too, once known."""

    def is_release_of(self, other: Identity) -> bool:
        """Whether this is the same server in the same version, so that what was found out still holds."""
        mine, others = (self.name, self.release), (other.name, other.release)
        return mine == others and self.version == other.version and self.modern == other.modern


class Connection(Protocol):
    """A live way to one server. Lost for good once `lost` is set; then make another."""

    identity: Identity

    @property
    def lost(self) -> str | None:
        """Why the connection ended, or None while it lives."""

    def request(self, call: Call) -> Coroutine[None, None, Answer]:
        """Forward one request. Cancelling this cancels it at the server."""

    async def notify(self, method: str, params: bytes) -> None:
        """Send one notification."""

    async def wait_lost(self) -> str:
        """Return the reason when the connection has ended."""

    def lose(self, reason: str) -> None:
        """Give the connection up: every call that waits fails."""

    async def close(self) -> None:
        """End the connection and what it owns; may be called twice."""


@dataclass(frozen=True, slots=True)
class Events:
    """Whom a connection tells about what belongs to no call, and asks. Called on the event loop."""

    notified: Callable[[str, bytes], None]
    asked: Callable[[str, bytes], Awaitable[Answer]]
    wrote: Callable[[str], None]
    """A line of a child's stderr."""
    remembered: Callable[[], Identity | None]
    """Returns what was found out when the server was met before."""
    tokens: Tokens
    learned: Callable[[], None]
    """Something is to be remembered that its identity did not say before."""


@dataclass(slots=True)
class Silent:
    """The caller of the gateway's own requests: nobody is asked, and nothing is passed on."""

    capabilities: bytes = b"{}"
    log_level: str | None = None
    relay: None = None
    client: None = None

    def notified(self, method: str, params: bytes) -> None:
        """Let it go."""

    async def asked(self, method: str, params: bytes) -> Answer:
        """Refuse."""
        return failure(-32601, f"Nobody is there to answer {method} ({len(params)} bytes)")


async def pong(_: str, __: bytes) -> Answer:
    """Answer a server that asks whether we are there."""
    return success({})


SILENT: Final = Silent()
CLIENT_CAPABILITIES: Final = {
    "roots": {"listChanged": True},
    "sampling": {"tools": {}, "context": {}},
    "elicitation": {"form": {}, "url": {}},
}
INITIALIZE_PARAMS: Final = encode(
    {
        "protocolVersion": eras.NEWEST_HANDSHAKE,
        "capabilities": CLIENT_CAPABILITIES,
        "clientInfo": eras.GATEWAY_INFO,
    }
)


def identity_of_initialize(answer: Answer) -> Identity:
    """Read the answer to `initialize`."""
    result = _result(answer, "initialize")
    version = result.get("protocolVersion")
    if version not in eras.HANDSHAKE:
        raise UpstreamLost(f"the server speaks MCP {version!r}, which the gateway does not know")
    return _identity(result, str(version), result.get("serverInfo"), modern=False)


def identity_of_discover(answer: Answer) -> Identity | None:
    """Read the answer to `server/discover`; None when the server shares no stateless version."""
    try:
        result = _result(answer, "server/discover")
    except UpstreamLost:
        return None
    versions = result.get("supportedVersions")
    if not isinstance(versions, list) or eras.NEWEST_MODERN not in versions:
        return None
    meta = result.get("_meta")
    info = meta.get(eras.SERVER_KEY) if isinstance(meta, dict) else None
    return _identity(result, eras.NEWEST_MODERN, info, modern=True)


def _result(answer: Answer, method: str) -> dict[str, object]:
    try:
        value = decode_any(answer.body)
    except MALFORMED as error:
        raise UpstreamLost(f"the server answered {method} with junk: {error}") from None
    if answer.failed or not isinstance(value, dict):
        text = value.get("message") if isinstance(value, dict) else value
        raise UpstreamLost(f"the server refused {method}: {text}")
    return value


def _identity(result: dict[str, object], version: str, info: object, *, modern: bool) -> Identity:
    capabilities = result.get("capabilities")
    instructions = result.get("instructions")
    name = info.get("name") if isinstance(info, dict) else ""
    release = info.get("version") if isinstance(info, dict) else ""
    return Identity(
        version=version,
        capabilities={
            str(key): msgspec.Raw(encode(value))
            for key, value in (capabilities if isinstance(capabilities, dict) else {}).items()
        },
        name=name if isinstance(name, str) else "",
        instructions=instructions if isinstance(instructions, str) else None,
        modern=modern,
        release=release if isinstance(release, str) else "",
    )
