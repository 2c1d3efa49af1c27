"""However many sessions a client opens, it takes none from another, and each costs the same."""

from __future__ import annotations

import json
import sys
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local_mcp_gateway.gateway.clients.sessions import (
    MOST_SESSIONS,
    MOST_UNUSED,
    Session,
    Sessions,
    SessionTable,
)


def hello(name: str) -> bytes:
    return json.dumps({"clientInfo": {"name": name, "version": "1"}}).encode()


def opened(sessions: Sessions, name: str, *, used: bool = True) -> Session:
    session = sessions.open("default", hello(name), "127.0.0.1 curl")
    if used:
        assert sessions.find(session.id, "default") is session
    return session


def alive(sessions: Sessions, session: Session) -> bool:
    return sessions.find(session.id, "default") is not None


@pytest.mark.parametrize("used", [True, False])
def test_a_flood_takes_no_session_of_another_client(used: bool) -> None:
    left: list[Session] = []
    sessions = Sessions(left.append)
    quiet = [opened(sessions, f"quiet {number}", used=used) for number in range(20)]
    pair = [opened(sessions, "pair", used=used) for _ in range(2)]
    flood = [opened(sessions, "flood", used=used) for _ in range(MOST_SESSIONS + 500)]
    limit = MOST_SESSIONS if used else MOST_UNUSED
    assert len(sessions) == limit
    assert left == flood[: len(left)]
    assert all(alive(sessions, session) for session in (*quiet, *pair, flood[-1]))
    newcomer = opened(sessions, "newcomer")
    assert alive(sessions, newcomer)
    assert not alive(sessions, flood[len(left) - 1])


def test_sessions_under_ever_new_names_take_no_session_that_was_used() -> None:
    sessions = Sessions(lambda _: None)
    several = [opened(sessions, "editor") for _ in range(5)]
    for number in range(MOST_SESSIONS):
        opened(sessions, f"flood {number}", used=False)
    assert len(sessions) == MOST_UNUSED + 5
    assert all(alive(sessions, session) for session in several)


def test_a_session_that_is_busy_stays_and_the_next_one_goes() -> None:
    left: list[Session] = []
    sessions = Sessions(left.append)
    first, second = opened(sessions, "flood"), opened(sessions, "flood")
    first.streams = 1
    for _ in range(MOST_SESSIONS - 1):
        opened(sessions, "flood")
    assert left == [second]
    assert alive(sessions, first)


def test_a_session_more_costs_as_many_steps_however_many_there_are() -> None:
    """A full table once looked through itself for each session that was opened."""
    sessions = Sessions(lambda _: None)

    def steps() -> int:
        counted = count()

        def step(*_: Any) -> None:
            next(counted)

        sys.setprofile(step)
        try:
            opened(sessions, "flood")
        finally:
            sys.setprofile(None)
        return next(counted)

    few = [steps() for _ in range(50)]
    for _ in range(MOST_SESSIONS):
        opened(sessions, "flood")
    full = [steps() for _ in range(50)]
    assert max(full) < max(few) + 100


class Table(RuleBasedStateMachine):
    """The table against one that looks through itself."""

    most, unused = 12, 5

    def __init__(self) -> None:
        super().__init__()
        self.table = SessionTable(self.most, self.unused)
        self.fresh: list[Session] = []
        self.used: list[Session] = []
        self.numbers = count()

    def drop(self, session: Session) -> None:
        self.table.discard(session)
        (self.fresh if session in self.fresh else self.used).remove(session)

    @rule(client=st.sampled_from("abc"))
    def add(self, client: str) -> None:
        session = Session(str(next(self.numbers)), "default", client, Sessions(print)._budget)
        pool = self.fresh if len(self.fresh) >= self.unused else self.used
        full = pool is self.fresh or len(self.fresh) + len(self.used) >= self.most
        leaving = self.table.add(session)
        assert (leaving is not None) is (full and bool(pool))
        if leaving is not None:
            sizes = {c: sum(s.client == c for s in pool) for c in "abc"}
            assert sizes[leaving.client] == max(sizes.values())
            assert leaving is next(s for s in pool if s.client == leaving.client)
            self.drop(leaving)
        self.fresh.append(session)

    @precondition(lambda self: self.fresh or self.used)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.fresh + self.used))
        (self.fresh if session in self.fresh else self.used).remove(session)
        self.used.append(session)
        self.table.used(session)

    @precondition(lambda self: self.fresh or self.used)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.drop(data.draw(st.sampled_from(self.fresh + self.used)))

    @invariant()
    def counts(self) -> None:
        assert len(self.table._unused) == len(self.fresh)
        assert len(self.table._used) == len(self.used)


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
