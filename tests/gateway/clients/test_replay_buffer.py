"""Messages kept for clients that come back: within a bound for all, the newest, and gaps are known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.clients.event_store import MemoryBudget, Outbox, ReplayBuffer

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
        assert budget.bytes == sum(buffer.bytes for buffer in backlogs) <= most_bytes
    for buffer, messages in zip(backlogs, sent, strict=True):
        for number in range(len(messages) + 1):
            kept = buffer.after(number)
            assert kept == list(enumerate(messages, 1))[len(messages) - len(kept) :]
            assert len(kept) <= most
            assert buffer.lost_after(number) == len(messages) - number - len(kept)
        buffer.close()
    assert budget.bytes == 0


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=9), st.integers(0, 10))
def test_a_message_that_waits_is_known(arriving: list[bytes], number: int) -> None:
    buffer = ReplayBuffer(MemoryBudget(), 5)
    for message in arriving:
        buffer.add(message)
    waiting = {body for _, body in buffer.after(number)}
    assert {message for message in (b"a", b"b", b"c") if buffer.holds(message, number)} == waiting


def test_who_keeps_the_most_gives_first() -> None:
    budget = MemoryBudget(100)
    small, large = ReplayBuffer(budget, 9), ReplayBuffer(budget, 9)
    small.add(b"x" * 10)
    for _ in range(4):
        large.add(b"x" * 40)
    assert (small.bytes, large.bytes) == (10, 80)


def test_room_for_a_large_message_is_made_of_any_number_of_small_ones() -> None:
    budget = MemoryBudget(10_000)
    buffer, other = ReplayBuffer(budget, 5000), ReplayBuffer(budget, 9)
    other.add(b"x" * 10)
    for _ in range(5000):
        buffer.add(b"x")
    buffer.add(b"x" * 9_900)
    assert (budget.bytes, buffer.bytes, other.bytes) == (10_000, 9_990, 10)


@given(st.lists(sizes), st.lists(sizes))
def test_a_closed_backlog_counts_on_and_keeps_nothing(before: list[int], after: list[int]) -> None:
    budget = MemoryBudget()
    buffer = ReplayBuffer(budget, 9)
    for size in before:
        buffer.add(b"x" * size)
    buffer.close()
    assert [buffer.add(b"x" * size) for size in after] == [
        *range(len(before) + 1, len(before) + len(after) + 1)
    ]
    assert (budget.bytes, buffer.after(0)) == (0, [])
    assert buffer.lost_after(0) == len(before) + len(after)


@given(st.lists(sizes), st.integers(0, 9))
def test_what_was_delivered_for_good_is_forgotten(arriving: list[int], number: int) -> None:
    buffer = ReplayBuffer(MemoryBudget(), 100)
    for size in arriving:
        buffer.add(b"x" * size)
    before = buffer.after(number)
    buffer.forget(number)
    assert buffer.after(0) == buffer.after(number) == before


@given(st.lists(sizes, min_size=1), st.integers(1, 100))
def test_mail_waits_whole_or_its_client_is_cut_off(arriving: list[int], most_bytes: int) -> None:
    events: list[str] = []
    legacy_outbox = Outbox(
        most_bytes, lambda: events.append("stir"), lambda: events.append("cut off")
    )
    messages = [b"x" * size for size in arriving]
    for message in messages:
        legacy_outbox.put(message)
    if "cut off" in events:
        assert sum(arriving) > most_bytes
        assert (legacy_outbox.take(), events.count("cut off")) == ([], 1)
    else:
        assert (legacy_outbox.take(), events) == (messages, ["stir"] * len(messages))
        assert legacy_outbox.take() == []
