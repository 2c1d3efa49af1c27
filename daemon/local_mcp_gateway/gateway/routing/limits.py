"""Limit the calls of a profile and of a token: how many in a minute, and how many at once."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.formats import counted
from local_mcp_gateway.gateway.protocol import Answer, failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from local_mcp_gateway.gateway.routing.handlers import ClientRequest
    from local_mcp_gateway.gateway.routing.registry import Registry
    from local_mcp_gateway.store import Policy

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


class Limiter:
    """Counts the calls where there is a limit, and refuses those beyond it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._counters: dict[str, Counter] = {}

    def begin(self, request: ClientRequest) -> tuple[Answer | None, Sequence[Counter]]:
        """Return the refusal of a call that is one too many, and the counters of any other, for `end`."""
        if request.method in FREE:
            return None, ()
        limits = [
            (name, self._counters.setdefault(key, Counter()), policy)
            for name, key, policy in self._limits(request)
        ]
        if not limits:
            return None, ()
        now = time.monotonic()
        for name, counter, policy in limits:
            if wait_s := counter.wait_s(policy, now):
                text = f"Too many calls for {name}: try again in {counted(wait_s, 'second')}"
                return failure(LIMITED, text, {RETRY_AFTER: wait_s}), ()
        for _, counter, policy in limits:
            counter.begin(policy, now)
        return None, [counter for _, counter, _ in limits]

    def end(self, counters: Sequence[Counter]) -> None:
        """Count the end of a call."""
        for counter in counters:
            counter.running -= 1

    def forget(self) -> None:
        """Drop the counters of profiles and tokens that are gone, while nothing of theirs runs."""
        registry = self._registry
        here = {profile.id for profile in registry.profiles.values()} | registry.tokens.keys()
        for key in [k for k, c in self._counters.items() if k not in here and not c.running]:
            del self._counters[key]

    def _limits(self, request: ClientRequest) -> Iterator[tuple[str, str, Policy]]:
        profile = self._registry.profiles.get(request.profile)
        if profile is not None and profile.policy.limits:
            yield f"profile {profile.name!r}", profile.id, profile.policy
        token = self._registry.tokens.get(request.token_id)
        if token is not None and token.policy.limits:
            yield f"token {token.name!r}", token.id, token.policy
