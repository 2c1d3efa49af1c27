"""The calls on the pages: filtered, paged, counted, and followed live."""

from __future__ import annotations

import pytest

from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.store import CallRecord, save_calls
from local_mcp_gateway.studio.calls import Filter, bars, traffic
from tests.harness import Place
from tests.studio.conftest import Browser, Running


def call(server: str | None, ms: int, *, status: str = "ok", ago_ms: int = 0) -> CallRecord:
    at = now_ms() - ago_ms
    return CallRecord(
        at, "default", server, "tools/call", "t", status, None, ms * 1000, 1, 1, None, None
    )


async def test_traffic_counts_and_ranks_the_calls_of_each_server(shipped: Place) -> None:
    shipped.migrate()
    async with ConnectionPool.open(shipped.database) as database:
        made = [call("a", ms) for ms in range(1, 101)]
        made += [call("b", 7, status="error"), call(None, 1), call("a", 9, ago_ms=9_000_000)]
        await save_calls(database, made, keep=1000)
        found = await traffic(database, now_ms() - 3_600_000)
        assert (found["a"].calls, found["a"].median_ms, found["a"].p95_ms) == (100, 50, 95)
        assert (found["b"].calls, found["b"].failed) == (1, 1)
        assert found[""].calls == 1
        (busy,) = [slot for slot in found["a"].slots if slot.calls]
        assert (busy.calls, busy.median_ms, busy.p95_ms) == (100, 50, 95)
        assert found["a"].median_line == "M233 28.5h4"  # one slot alone is a dash
        assert found["a"].p95_line == "M233 2.0h4"
        assert [bar.failed for bar in found["b"].bars if bar.height] == [56]
        assert (await traffic(database, None, "b")).keys() == {"b"}
        assert (await traffic(database, None))["a"].calls == 101
        await save_calls(database, [call("late", 3, ago_ms=-600_000)], keep=1000)
        assert (await traffic(database, now_ms() - 3_600_000))["late"].slots[-1].calls == 1
        where, values = Filter(status="failed", span="all").where()
        drawn = await bars(database, None, where, values)
        assert [bar.failed for bar in drawn if bar.height] == [56]


async def test_there_is_nothing_to_draw_without_calls(shipped: Place) -> None:
    shipped.migrate()
    async with ConnectionPool.open(shipped.database) as database:
        assert await traffic(database, None) == {}
        assert not any(bar.height for bar in await bars(database, None, "1", []))


def test_a_filter_that_is_not_known_counts_as_not_given() -> None:
    assert Filter.of({"status": "'; DROP", "span": "9y"}) == Filter()


@pytest.mark.parametrize(
    ("query", "there"),
    [
        ("server=plain&text=echo", True),
        ("server=nobody", False),
        ("status=timeout", False),
        ("text=ECHO", True),
        ("before=1", False),
        ("before=x", True),
    ],
)
def test_the_list_shows_what_a_filter_selects(
    browser: Browser, running: Running, query: str, there: bool
) -> None:
    running.gateway.until(lambda: "echo" in browser.page("/studio/calls").words)
    page = browser.page(f"/studio/calls?{query}")
    assert ("No call matches" not in page.words and "No calls yet" not in page.words) is there
    number = page.text.partition('href="/studio/calls/')[2].partition('"')[0]
    if there:
        assert "Answered" not in browser.page(f"/studio/calls/{number}").words
