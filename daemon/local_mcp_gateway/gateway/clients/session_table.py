"""Evict sessions fairly when there are too many, so that no client can flood out another.

Each session beyond the limit evicts the oldest idle one of the client with the most sessions, so a
client that opens session after session loses its own. Sessions that were opened and never used have a
separate part of the table, so that they cannot evict used ones, whatever names their clients give
themselves. Every operation takes constant time: nothing here iterates over the sessions.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.clients.sessions import Session

MOST_SESSIONS: Final = 10_000
MOST_UNUSED: Final = 1_000
"""Maximum sessions that were opened but never used."""
MOST_BUSY: Final = 8
"""How many busy sessions of a client are skipped before the table grows instead."""


class SessionTable:
    """The sessions of all clients, used or not."""

    def __init__(self, most: int = MOST_SESSIONS, most_unused: int = MOST_UNUSED) -> None:
        self._most, self._most_unused = most, most_unused
        self._unused = _ByClient()
        self._used = _ByClient()

    def add(self, session: Session) -> Session | None:
        """Add a new session; return the idle one that is evicted for it."""
        too_many = len(self._unused) >= self._most_unused
        full = len(self._unused) + len(self._used) >= self._most
        leaving = self._unused.oldest() if too_many else self._used.oldest() if full else None
        self._unused.add(session)
        return leaving

    def used(self, session: Session) -> None:
        """Record a request in this session."""
        if self._unused.discard(session):
            self._used.add(session)
        else:
            self._used.touch(session)

    def discard(self, session: Session) -> None:
        """Remove a session that has ended."""
        if not self._unused.discard(session):
            self._used.discard(session)


class _ByClient:
    """Sessions by client, least recently used first; and the client with the most of them."""

    def __init__(self) -> None:
        self._sessions: dict[str, OrderedDict[str, Session]] = {}
        self._clients: dict[int, dict[str, None]] = {}
        """Number of sessions → the clients that have that many."""
        self._most = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, session: Session) -> None:
        sessions = self._sessions.setdefault(session.client, OrderedDict())
        sessions[session.id] = session
        self._counted(session.client, len(sessions) - 1, len(sessions))
        self._count += 1

    def touch(self, session: Session) -> None:
        self._sessions[session.client].move_to_end(session.id)

    def discard(self, session: Session) -> bool:
        """Remove a session; return whether it was there."""
        sessions = self._sessions.get(session.client)
        if sessions is None or sessions.pop(session.id, None) is None:
            return False
        if not sessions:
            del self._sessions[session.client]
        self._counted(session.client, len(sessions) + 1, len(sessions))
        self._count -= 1
        return True

    def oldest(self) -> Session | None:
        """Return the oldest idle session of the client with the most; None while all are busy."""
        if not self._most:
            return None
        sessions = self._sessions[next(iter(self._clients[self._most]))]
        for _ in range(min(MOST_BUSY, len(sessions))):
            session = next(iter(sessions.values()))
            if not session.busy:
                return session
            sessions.move_to_end(session.id)
        return None

    def _counted(self, client: str, before: int, after: int) -> None:
        if before:
            del self._clients[before][client]
            if not self._clients[before]:
                del self._clients[before]
        if after:
            self._clients.setdefault(after, {})[client] = None
        if after > self._most or self._most not in self._clients:
            self._most = after  # the count changed by one, so this client has the most
