"""Admit requests by the token that they show, and limit the calls of a token and of a profile.

What was begun with a token ends when it is no longer valid.

A request without a token is admitted where none is required: from this machine, unless the settings say
otherwise. A token of ours that is not valid is refused everywhere. Its check costs one hash, whoever it is,
and touches neither the database nor the log for each try. A valid one is hashed once, until the tokens change.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from local_mcp_gateway.formats import counted, now_ms
from local_mcp_gateway.gateway.protocol import Answer, failure
from local_mcp_gateway.store import ClientToken, hash_of_token, id_in_token, looks_like_token

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.options import GatewayOptions
    from local_mcp_gateway.store import Policy, ProfileDefinition

LOOK_S: Final = 60.0
"""How often expiry is checked at least: somebody may set the clock of the machine."""
SOONEST_S: Final = 0.01
CLOSE: Final = (b"connection", b"close")
_NOBODY: Final = ClientToken("", hash=hash_of_token(""))
_MAKE: Final = "`local-mcp-gateway token create NAME` on the gateway's machine makes one"
MISSING: Final = (
    f"This gateway wants a token. {_MAKE}; send it as the header `Authorization: Bearer TOKEN`"
)
UNKNOWN: Final = f"The token is not known here: it was revoked, or is another gateway's. {_MAKE}"
EXPIRED: Final = f"The token {{!r}} has expired. {_MAKE}"
NO_LONGER: Final = "The token was revoked or has expired, and this request has ended with it"


class TokenRefused(Exception):
    """Why a request is not admitted, in a sentence for the person who set up its client."""


class Admission:
    """The tokens that are valid, and the requests outside of sessions that run with each."""

    def __init__(self, options: GatewayOptions, ended: Callable[[], None]) -> None:
        self._options = options
        self._delay = RefusalDelay()
        self._ended = ended
        """Called after tokens were replaced or have expired: ends the sessions and streams of those."""
        self._tokens: Mapping[str, ClientToken] = {}
        self._shown: dict[str, ClientToken] = {}
        """Those that were shown, by the header: the hash was more than half of what a token costs a call."""
        self._running: dict[str, set[Callable[[str], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def replace(self, tokens: Iterable[ClientToken]) -> None:
        """Take over the stored tokens; end the requests of those that were removed."""
        self._tokens = {token.id: token for token in tokens}
        self._shown.clear()
        self._look()

    def admit(self, headers: dict[str, str]) -> ClientToken | None:
        """Return the token of a request, taken out of its headers; None for one that needs none.

        Raises TokenRefused. A credential that is not ours stays: it may be meant for a server.
        """
        given = headers.get("authorization")
        if given is None:
            if self._options.require_token:
                raise TokenRefused(MISSING)
            return None
        known = self._shown.get(given) or self._found(given)
        if known is None:
            return None
        if known is _NOBODY:
            raise TokenRefused(UNKNOWN)
        if known.expires_at is not None and known.has_expired(now_ms()):
            raise TokenRefused(EXPIRED.format(known.name))
        del headers["authorization"]
        return known

    async def hold(self) -> list[tuple[bytes, bytes]]:
        """Wait as long as a refusal has to, wherever it is; return the headers that it then gets."""
        return [] if await self._delay.wait() else [CLOSE]

    def _found(self, given: str) -> ClientToken | None:
        """Return the token of this header, and remember it as it is written mostly; None for what is not ours."""
        scheme, _, text = given.partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not looks_like_token(text):
            return _NOBODY if self._options.require_token else None
        known = self._tokens.get(id_in_token(text) or "", _NOBODY)
        if not hmac.compare_digest(hash_of_token(text), known.hash):
            return _NOBODY
        if known is not _NOBODY and given == f"Bearer {text}":
            self._shown[given] = known
        return known

    def still_admits(self, identity: str, profile_id: str) -> bool:
        """Return whether a token may still be used in a profile; "" is a client without one."""
        if not identity:
            return not self._options.require_token
        known = self._valid(identity)
        return known is not None and known.reaches(profile_id)

    def check_again(self, token: ClientToken | None) -> None:
        """Raise TokenRefused if a token has ended since its request was admitted."""
        if token is not None and self._valid(token.id) is None:
            raise TokenRefused(NO_LONGER)

    def _valid(self, identity: str) -> ClientToken | None:
        known = self._tokens.get(identity)
        if known is None or known.expires_at is None:
            return known
        return None if known.has_expired(now_ms()) else known

    def begin(self, token: ClientToken, end: Callable[[str], None]) -> None:
        """Note a running request; `end` is called with the reason when its token ends."""
        self._running.setdefault(token.id, set()).add(end)

    def finish(self, token: ClientToken, end: Callable[[str], None]) -> None:
        """Forget a request that has ended."""
        running = self._running.get(token.id)
        if running is not None:
            running.discard(end)
            if not running:
                del self._running[token.id]

    def close(self) -> None:
        """Stop looking at expiry."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """End what runs with tokens that are not valid, and look again when the next one expires."""
        now = now_ms()
        self.close()
        for identity in tuple(self._running):
            if self._valid(identity) is None:
                for end in tuple(self._running[identity]):
                    end(NO_LONGER)
        self._ended()
        ends = [token.expires_at for token in self._tokens.values() if token.expires_at is not None]
        later = min((at - now for at in ends if at > now), default=None)
        if later is not None:
            wait_s = min(max(later / 1000, SOONEST_S), LOOK_S)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)


AT_ONCE: Final = 20
"""How many refusals a second are answered at once."""
LATER_S: Final = 1.0
MOST_WAITING: Final = 1_000
"""How many refused requests are held; the connection of a further one is closed with its answer."""


class RefusalDelay:
    """Answers refused requests late while there are many: who tries tokens waits, and everybody else does not.

    An answer costs the process as much as any other, and the next try comes only after it.
    """

    def __init__(self, later_s: float = LATER_S) -> None:
        self._later_s = later_s
        self._until = 0.0
        """When all that were answered at once have had their share of a second."""
        self._waiting = 0

    async def wait(self) -> bool:
        """Wait if there were many of late; return False instead where too many wait already."""
        now = time.monotonic()
        until = max(self._until, now) + 1 / AT_ONCE
        if until <= now + 1:
            self._until = until
            return True
        if self._waiting >= MOST_WAITING:
            return False
        self._waiting += 1
        try:
            await asyncio.sleep(self._later_s)
        finally:
            self._waiting -= 1
        return True


LIMITED: Final = -32011
"""The error code of a call beyond a limit; its data says in how many seconds to try again."""
RETRY_AFTER: Final = "retryAfterS"
MINUTE_S: Final = 60.0
AGAIN_S: Final = 1
"""When to try again while too many calls run: nobody knows when one of them ends."""
FREE: Final = frozenset(
    (
        *("initialize", "ping", "server/discover", "logging/setLevel"),
        *("tools/list", "prompts/list", "resources/list", "resources/templates/list"),
        *("resources/subscribe", "resources/unsubscribe", "tasks/cancel"),
    )
)
"""Methods that count as no call: they are answered here, or end something."""


class Counter:
    """The calls of one profile or token."""

    __slots__ = ("running", "started")

    def __init__(self) -> None:
        self.running = 0
        self.started: deque[float] = deque()
        """When the calls of the last minute began; only kept under a limit."""

    def wait_s(self, policy: Policy, now: float) -> int:
        """Return after how many seconds one more call is allowed; 0 for now."""
        if policy.calls_per_minute is not None:
            while self.started and self.started[0] <= now - MINUTE_S:
                self.started.popleft()
            beyond = len(self.started) - policy.calls_per_minute
            if beyond >= 0:
                return max(math.ceil(self.started[beyond] + MINUTE_S - now), 1)
        if policy.calls_at_once is not None and self.running >= policy.calls_at_once:
            return AGAIN_S
        return 0

    def begin(self, policy: Policy, now: float) -> None:
        """Count a call that begins."""
        self.running += 1
        if policy.calls_per_minute is not None:
            self.started.append(now)


class _Limit(NamedTuple):
    whose: str
    policy: Policy
    counter: Counter


class Limiter:
    """Counts the calls where there is a limit, and refuses those beyond it."""

    def __init__(self) -> None:
        self._profiles: Mapping[str, _Limit] = {}
        """By the name of the profile."""
        self._tokens: Mapping[str, _Limit] = {}
        """By the id of the token."""
        self._counters: dict[str, Counter] = {}
        self._both: dict[tuple[str, str], Sequence[_Limit]] = {}
        """By profile and token: what applies to their calls, as far as it was asked."""

    def replace(
        self, profiles: Collection[ProfileDefinition], tokens: Collection[ClientToken]
    ) -> None:
        """Take over the stored limits; calls that were counted under the limits before still count."""
        before, self._counters, self._both = self._counters, {}, {}
        for key in (*(p.id for p in profiles), *(t.id for t in tokens)):
            self._counters[key] = before.get(key) or Counter()
        self._profiles = {
            p.name: _Limit(f"profile {p.name!r}", p.policy, self._counters[p.id])
            for p in profiles
            if p.policy.limits
        }
        self._tokens = {
            t.id: _Limit(f"token {t.name!r}", t.policy, self._counters[t.id])
            for t in tokens
            if t.policy.limits
        }

    def begin(
        self, method: str, profile: str, token_id: str
    ) -> tuple[Answer | None, Sequence[_Limit]]:
        """Return the refusal of a call that is one too many, and the limits of any other, for `end`."""
        limits = self._both.get((profile, token_id))
        if limits is None:
            both = (self._profiles.get(profile), self._tokens.get(token_id))
            limits = self._both[profile, token_id] = tuple(filter(None, both))
        if not limits or method in FREE:
            return None, ()
        now = time.monotonic()
        for whose, policy, counter in limits:
            if wait_s := counter.wait_s(policy, now):
                text = f"Too many calls for {whose}: try again in {counted(wait_s, 'second')}"
                return failure(LIMITED, text, {RETRY_AFTER: wait_s}), ()
        for _, policy, counter in limits:
            counter.begin(policy, now)
        return None, limits

    def end(self, limits: Sequence[_Limit]) -> None:
        """Count the end of a call."""
        for limit in limits:
            limit.counter.running -= 1
