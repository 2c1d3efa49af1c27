"""How times, counts and sizes are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from local_mcp_gateway.formats import counted, duration, iso, now_ms, second, size


def test_a_moment_is_utc_with_milliseconds_whatever_its_zone() -> None:
    east = datetime(2026, 1, 31, 14, 0, 0, 999_900, tzinfo=timezone(timedelta(hours=2)))
    assert iso(east) == "2026-01-31T12:00:00.999Z"
    assert iso(east, "seconds") == "2026-01-31T12:00:00Z"


def test_now_is_the_same_in_both_forms() -> None:
    before = now_ms()
    moment = datetime.fromisoformat(iso())
    assert moment.tzinfo == UTC
    assert before <= moment.timestamp() * 1000 <= now_ms() + 1


@pytest.mark.parametrize(("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows")])
def test_one_is_singular(number: int, said: str) -> None:
    assert counted(number, "row") == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 40, "5120.0 GiB"),
    ],
)
def test_a_size_has_the_unit_that_a_person_would_use(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0.2, "<1 ms"),
        (12.6, "13 ms"),
        (1500, "1.5 s"),
        (77_400, "1 min 17 s"),
        (7_500_000, "2 h 5 min"),
    ],
)
def test_a_duration_is_in_the_units_that_a_person_would_say(ms: float, said: str) -> None:
    assert duration(ms) == said


def test_a_moment_is_shown_without_the_part_below_a_second() -> None:
    assert second("2026-11-29T12:30:00.123Z") == "2026-11-29 12:30:00"
