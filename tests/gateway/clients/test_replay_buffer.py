"""Messages kept for clients that come back: within a bound for all, the newest, and gaps are known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.clients.event_store import MemoryBudget, ReplayBuffer
from local_mcp_gateway.gateway.clients.subscriptions import Outbox

sizes = st.integers(0, 60)


@given(st.lists(st.tuples(st.integers(0, 2), sizes)), st.integers(0, 100), st.integers(1, 5))
def test_all_backlogs_together_keep_their_newest_within_the_bounds(
    arriving: list[tuple[int, int]], most_bytes: int, most: int
) -> None:
    budget = MemoryBudget(most_bytes)
    backlogs = [ReplayBuffer(budget, most) for _ in range(3)]
    sent: list[list[bytes]] = [[], [], []]
    for to, size in arriving:
        sent[to].append(b"%d " % len(sent[to]) + b"x" * size)
        assert backlogs[to].add(sent[to][-1]) == len(sent[to])
        assert budget.bytes == sum(backlog.bytes for backlog in backlogs) <= most_bytes
    for backlog, messages in zip(backlogs, sent, strict=True):
        for number in range(len(messages) + 1):
            kept = backlog.after(number)
            assert kept == list(enumerate(messages, 1))[len(messages) - len(kept) :]
            assert len(kept) <= most
            assert backlog.lost_after(number) == len(messages) - number - len(kept)
        backlog.close()
    assert budget.bytes == 0


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=9), st.integers(0, 10))
def test_a_message_that_waits_is_known(arriving: list[bytes], number: int) -> None:
    backlog = ReplayBuffer(MemoryBudget(), 5)
    for message in arriving:
        backlog.add(message)
    waiting = {body for _, body in backlog.after(number)}
    assert {message for message in (b"a", b"b", b"c") if backlog.holds(message, number)} == waiting


def test_who_keeps_the_most_gives_first() -> None:
    budget = MemoryBudget(100)
    small, large = ReplayBuffer(budget, 9), ReplayBuffer(budget, 9)
    small.add(b"x" * 10)
    for _ in range(4):
        large.add(b"x" * 40)
    assert (small.bytes, large.bytes) == (10, 80)


def test_room_for_a_large_message_is_made_of_any_number_of_small_ones() -> None:
    budget = MemoryBudget(10_000)
    backlog, other = ReplayBuffer(budget, 5000), ReplayBuffer(budget, 9)
    other.add(b"x" * 10)
    for _ in range(5000):
        backlog.add(b"x")
    backlog.add(b"x" * 9_900)
    assert (budget.bytes, backlog.bytes, other.bytes) == (10_000, 9_990, 10)


@given(st.lists(sizes), st.lists(sizes))
def test_a_closed_backlog_counts_on_and_keeps_nothing(before: list[int], after: list[int]) -> None:
    budget = MemoryBudget()
    backlog = ReplayBuffer(budget, 9)
    for size in before:
        backlog.add(b"x" * size)
    backlog.close()
    assert [backlog.add(b"x" * size) for size in after] == [
        *range(len(before) + 1, len(before) + len(after) + 1)
    ]
    assert (budget.bytes, backlog.after(0)) == (0, [])
    assert backlog.lost_after(0) == len(before) + len(after)


@given(st.lists(sizes), st.integers(0, 9))
def test_what_was_delivered_for_good_is_forgotten(arriving: list[int], number: int) -> None:
    backlog = ReplayBuffer(MemoryBudget(), 100)
    for size in arriving:
        backlog.add(b"x" * size)
    before = backlog.after(number)
    backlog.forget(number)
    assert backlog.after(0) == backlog.after(number) == before


@given(st.lists(sizes, min_size=1), st.integers(1, 100))
def test_mail_waits_whole_or_its_client_is_cut_off(arriving: list[int], most_bytes: int) -> None:
    events: list[str] = []
    mail = Outbox(most_bytes, lambda: events.append("stir"), lambda: events.append("cut off"))
    messages = [b"x" * size for size in arriving]
    for message in messages:
        mail.put(message)
    if "cut off" in events:
        assert sum(arriving) > most_bytes
        assert (mail.take(), events.count("cut off")) == ([], 1)
    else:
        assert (mail.take(), events) == (messages, ["stir"] * len(messages))
        assert mail.take() == []
