"""How long to wait before the next attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.upstreams.backoff import (
    FIRST_PAUSE_S,
    FREE,
    LEAST_S,
    MOST_S,
    SETTLE_MOST_S,
    SETTLE_S,
    ChangeDebounce,
    ReconnectBackoff,
    backoff_s,
)


def test_the_pause_is_the_servers_and_doubles_while_nothing_comes() -> None:
    pace = ReconnectBackoff()
    assert [pace.pause_s() for _ in range(3)] == [1, 2, 4]
    pace.heard(5000)
    assert [pace.pause_s(), pace.pause_s()] == [5, 10]
    pace.heard(0)
    assert pace.pause_s() == LEAST_S
    pace.heard(10**9)
    assert pace.pause_s() == MOST_S


def test_a_server_whose_lists_never_rest_is_fetched_less_and_less_often() -> None:
    debounce, now, pauses = ChangeDebounce(), 0.0, []
    for _ in range(FREE + 12):
        pauses.append(debounce.pause_s(now))
        now += pauses[-1]
    assert pauses[: FREE + 1] == [SETTLE_S] * (FREE + 1)
    assert pauses[FREE + 1] == 2 * SETTLE_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == SETTLE_MOST_S
    assert debounce.pause_s(now + 100) == SETTLE_S


@given(st.integers(1, 1000), st.floats(1, 3600))
def test_pauses_double_up_to_the_limit_and_never_come_together(failures: int, most: float) -> None:
    whole = min(FIRST_PAUSE_S * 2 ** min(failures - 1, 16), most)
    pauses = {backoff_s(failures, most) for _ in range(50)}
    assert all(whole / 2 <= pause <= whole for pause in pauses)
    assert len(pauses) > 1
