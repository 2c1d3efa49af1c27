"""What happens thousands of times is logged once, with how often it was repeated."""

from __future__ import annotations

from local_mcp_gateway.log.throttle import MOST_KINDS, QUIET_S, Throttle


def test_one_of_a_kind_is_let_through_at_a_time_and_the_next_says_how_many_were_not() -> None:
    throttle = Throttle()
    moments = [0.0, 0.0, QUIET_S - 1, QUIET_S, QUIET_S + 1, 3 * QUIET_S, 9 * QUIET_S]
    assert [throttle.repeated("x", now) for now in moments] == [0, None, None, 2, None, 1, 0]


def test_kinds_do_not_hold_back_each_other() -> None:
    throttle = Throttle()
    assert [throttle.repeated(kind, 0.0) for kind in ("x", "y", "x", "y")] == [0, 0, None, None]


def test_any_number_of_kinds_takes_no_more_memory() -> None:
    throttle = Throttle()
    assert {throttle.repeated(kind, 0.0) for kind in range(10 * MOST_KINDS)} == {0}
    assert len(throttle._last) <= MOST_KINDS
