"""Pages of the call log: recent and failed calls with filters, and charts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.studio.http import Response, address, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.studio.visit import Page, Visit

HOUR_MS: Final = 3_600_000
SPANS: Final = {"1h": HOUR_MS, "24h": 24 * HOUR_MS, "7d": 168 * HOUR_MS, "all": None}
SLOTS: Final = 24
PAGE: Final = 50
STATUSES: Final = ("ok", "error", "timeout", "cancelled")
_COUNTED: Final = "count(*) AS calls, sum(status <> 'ok') AS failed"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart, in units of its view box; the part that failed lies on top of it."""

    x: float
    y: float
    height: float
    failed: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Slot:
    """The calls of one server in one of the SLOTS of a span of time."""

    calls: int = 0
    failed: int = 0
    median_ms: float = 0.0
    p95_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """The calls of one server in a span of time."""

    calls: int = 0
    failed: int = 0
    median_ms: float = 0.0
    p95_ms: float = 0.0
    slots: tuple[Slot, ...] = ()

    @property
    def spark(self) -> str:
        """Return the line of its calls over time as the path of an SVG of 60 by 20."""
        most = max((slot.calls for slot in self.slots), default=0) or 1
        step = 60 / max(1, len(self.slots) - 1)
        points = [
            f"{at * step:.1f} {18 - 16 * slot.calls / most:.1f}"
            for at, slot in enumerate(self.slots)
        ]
        return "M" + " ".join(points) if points else ""

    @property
    def bars(self) -> list[Bar]:
        """Return the chart of its calls, of 240 by 60."""
        return _bars([(slot.calls, slot.failed) for slot in self.slots])

    @property
    def slowest_ms(self) -> float:
        """Return what the top of the chart of its answer times stands for."""
        return max((slot.p95_ms for slot in self.slots), default=0.0)

    @property
    def median_line(self) -> str:
        """Return the path of the median answer time, of 240 by 60; it has gaps where nothing was called."""
        return self._line([slot.median_ms for slot in self.slots])

    @property
    def p95_line(self) -> str:
        """Return the path of the 95th percentile, of 240 by 60."""
        return self._line([slot.p95_ms for slot in self.slots])

    def _line(self, times_ms: Sequence[float]) -> str:
        top, parts, going = self.slowest_ms or 1.0, [], False
        for at, (slot, time_ms) in enumerate(zip(self.slots, times_ms, strict=True)):
            if slot.calls:
                y = 58 - 56 * time_ms / top
                # A slot alone is a dash: a point has no length that is seen.
                parts.append(
                    f"{'L' if going else 'M'}{at * 10 + (5 if going else 3)} {y:.1f}"
                    + ("" if going else "h4")
                )
            going = bool(slot.calls)
        return " ".join(parts)


async def _since(database: ConnectionPool, since_ms: int | None) -> tuple[int, int]:
    """Return the beginning of a span of time (None: with the oldest call) and the width of a slot."""
    now = now_ms() + 1
    if since_ms is None:
        row = await database.fetch_one("SELECT min(created_at) FROM debug_logs")
        since_ms = (row[0] if row else None) or now - HOUR_MS
    return since_ms, max(1, (now - since_ms + SLOTS - 1) // SLOTS)


async def traffic(
    database: ConnectionPool, since_ms: int | None, server: str = ""
) -> dict[str, Traffic]:
    """Return the calls of each server since a time, or of one; the gateway's own under an empty name."""
    since, width = await _since(database, since_ms)
    where = "created_at >= ?" + (" AND server = ?" if server else "")
    values: tuple[object, ...] = (since, server) if server else (since,)

    async def ranked(slot: str, *slot_values: int) -> Any:
        return await database.fetch_all(
            "SELECT server, slot, count(*), sum(status <> 'ok'),"
            " max(CASE WHEN n = (total + 1) / 2 THEN duration_us END) / 1000.0,"
            " max(CASE WHEN n = (total * 95 + 99) / 100 THEN duration_us END) / 1000.0"
            " FROM (SELECT *, row_number() OVER (PARTITION BY server, slot ORDER BY duration_us) AS n,"
            " count(*) OVER (PARTITION BY server, slot) AS total"
            f" FROM (SELECT coalesce(server, '') AS server, {slot} AS slot, status, duration_us"
            f" FROM debug_logs WHERE {where})) GROUP BY server, slot",
            (*slot_values, *values),
        )

    slots: dict[str, list[Slot]] = {}
    for name, at, *numbers in await ranked(f"min((created_at - ?) / ?, {SLOTS - 1})", since, width):
        slots.setdefault(name, [Slot()] * SLOTS)[at] = Slot(*numbers)
    return {
        name: Traffic(calls, failed, median, p95, tuple(slots.get(name, ())))
        for name, _, calls, failed, median, p95 in await ranked("0")
    }


async def bars(
    database: ConnectionPool, since_ms: int | None, where: str, values: Sequence[object]
) -> list[Bar]:
    """Return the chart of the calls since a time, of 240 by 60."""
    since, width = await _since(database, since_ms)
    rows = await database.fetch_all(
        f"SELECT (created_at - ?) / ?, {_COUNTED} FROM debug_logs WHERE {where} GROUP BY 1",
        (since, width, *values),
    )
    found = {min(slot, SLOTS - 1): (calls, failed) for slot, calls, failed in rows if slot >= 0}
    return _bars([found.get(slot, (0, 0)) for slot in range(SLOTS)])


def _bars(counts: Sequence[tuple[int, int]]) -> list[Bar]:
    """Return the bars of (calls, failed), slot by slot."""
    most = max((calls for calls, _ in counts), default=0) or 1
    made = []
    for slot, (calls, failed) in enumerate(counts):
        height = max(1.0, 56 * calls / most) if calls else 0.0
        part = max(1.0, 56 * failed / most) if failed else 0.0
        title = f"{calls} calls, {failed} failed"
        made.append(Bar(slot * 10 + 1, 60 - height, height, min(part, height), 8, title))
    return made


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls are asked for."""

    server: str = ""
    profile: str = ""
    status: str = ""
    text: str = ""
    span: str = "24h"

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Filter:
        """Read it from the query; what is not known counts as not given."""
        status, span = asked.get("status", ""), asked.get("span", "24h")
        return cls(
            asked.get("server", ""),
            asked.get("profile", ""),
            status if status in {*STATUSES, "failed"} else "",
            asked.get("text", ""),
            span if span in SPANS else "24h",
        )

    @property
    def since_ms(self) -> int | None:
        """Return the beginning of the span; None for all."""
        length = SPANS[self.span]
        return None if length is None else now_ms() - length

    def where(self) -> tuple[str, list[object]]:
        """Return the condition and its values."""
        terms: list[tuple[str, object]] = [("created_at >= ?", self.since_ms or 0)]
        if self.server:
            terms.append(("server = ?", self.server))
        if self.profile:
            terms.append(("profile = ?", self.profile))
        if self.status == "failed":
            terms.append(("status <> ?", "ok"))
        elif self.status:
            terms.append(("status = ?", self.status))
        if self.text:
            terms.append(("instr(lower(coalesce(target, '') || method), ?) > 0", self.text.lower()))
        return " AND ".join(term for term, _ in terms), [value for _, value in terms]


async def show_calls(visit: Visit) -> Response:
    """Show the calls that a filter selects, newest first, fifty a page."""
    database = visit.powers.pool
    assert database is not None, "calls are there with a gateway only"
    request = visit.request
    names = ("server", "profile", "status", "text", "span")
    chosen = Filter.of(
        {name: request.asked(name, "24h" if name == "span" else "") for name in names}
    )
    where, values = chosen.where()
    before = request.asked("before")
    from_id = whole_number(before)
    older = ("", []) if from_id is None else (" AND id < ?", [from_id])
    rows = await database.fetch_all(
        "SELECT id, created_at, profile, server, method, target, status, error, duration_us,"
        f" request_bytes, response_bytes FROM debug_logs WHERE {where}{older[0]}"
        " ORDER BY id DESC LIMIT ?",
        (*values, *older[1], PAGE + 1),
    )
    counted = await database.fetch_one(f"SELECT {_COUNTED} FROM debug_logs WHERE {where}", values)
    total, failed = (counted[0], counted[1] or 0) if counted else (0, 0)
    by_server = await traffic(database, chosen.since_ms)
    return await visit.page(
        "calls.html",
        chosen=chosen,
        rows=rows[:PAGE],
        more=rows[PAGE - 1]["id"] if len(rows) > PAGE else None,
        paged=bool(before),
        total=total,
        failed=failed,
        bars=await bars(database, chosen.since_ms, where, values),
        by_server=sorted(by_server.items(), key=lambda item: -item[1].calls),
        servers=[row[0] for row in await _distinct(database, "server")],
        profiles=[row[0] for row in await _distinct(database, "profile")],
        statuses=("failed", *STATUSES),
        spans=SPANS,
    )


async def _distinct(database: ConnectionPool, column: str) -> list[Any]:
    return list(
        await database.fetch_all(
            f"SELECT DISTINCT {column} FROM debug_logs WHERE {column} IS NOT NULL ORDER BY 1"
        )
    )


async def show_call(visit: Visit) -> Response:
    """Show one call, with its payloads where they are kept."""
    database = visit.powers.pool
    assert database is not None, "calls are there with a gateway only"
    number = whole_number(visit.arguments[0])
    row = await database.fetch_one("SELECT * FROM debug_logs WHERE id = ?", (number,))
    if row is None:
        return await visit.page(
            "error.html",
            status=404,
            message="This call is not kept any more.",
            hint=f"The newest calls are at {address('calls')}; log.keep_calls says how many are kept.",
        )
    return await visit.page("call.html", call=row)


ROUTES: Final[dict[tuple[str, str], Page]] = {
    ("GET", "calls"): show_calls,
    ("GET", "calls/*"): show_call,
}
