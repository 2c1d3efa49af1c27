"""The metrics at `/metrics`: calls, servers, replica and copies, as Prometheus reads them. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local_mcp_gateway.gateway.routing import CallLog

PREFIX: Final = "local_mcp_gateway"
"""Of the names of all metrics."""


def metrics(calls: CallLog, status: Mapping[str, Any]) -> str:
    """Return the metrics of the calls and of the gateway's status for Prometheus, format 0.0.4."""
    return "\n".join([*_lines(calls, status), ""])


def _lines(calls: CallLog, status: Mapping[str, Any]) -> Iterator[str]:
    yield from _head("calls_total", "counter", "Requests of clients that have ended.")
    for (server, method, outcome), count in sorted(calls.counts.items()):
        labels = _labels(server=server, method=method, status=outcome)
        yield f"{PREFIX}_calls_total{labels} {count}"
    yield from _head("call_seconds_total", "counter", "Time that these requests took together.")
    for (server, method), taken in sorted(calls.microseconds.items()):
        yield f"{PREFIX}_call_seconds_total{_labels(server=server, method=method)} {taken / 1e6}"
    yield from _head("upstream_ready", "gauge", "Whether the upstream server is connected.")
    for name, server in status["servers"].items():
        yield f"{PREFIX}_upstream_ready{_labels(server=name)} {int(server['state'] == 'ready')}"
    yield from _head("sessions", "gauge", "Sessions of clients with a handshake.")
    yield f"{PREFIX}_sessions {status['sessions']}"
    yield from _head("held_tools", "gauge", "Tools that wait for `server approve`.")
    for name, server in status["servers"].items():
        yield f"{PREFIX}_held_tools{_labels(server=name)} {len(server['held'])}"
    yield from _head("tasks", "gauge", "Tasks of the event loop: what grows without end, leaks.")
    yield f"{PREFIX}_tasks {status['tasks']}"
    if (replica := status["replica"]) is not None:
        yield from _gauges(
            ("replica_level", "Whether the replica has everything.", replica["state"] == "level"),
            (
                "replica_behind_seconds",
                "What was committed longer ago is in the replica.",
                replica["behind_s"],
            ),
            ("replica_behind_bytes", "What it does not have.", replica["behind_bytes"]),
            (
                "replica_oldest_timestamp_seconds",
                "Oldest moment that can come back.",
                _timestamp(replica["oldest"]),
            ),
            (
                "replica_checked_timestamp_seconds",
                "When it was last restored and compared.",
                _timestamp(replica["checked_at"]),
            ),
        )
    if (copies := status["copies"]) is not None:
        yield from _gauges(
            ("copies", "Backups that are off the machine.", copies["copied"]),
            ("copies_missing", "Backups that are not.", copies["missing"]),
            ("copies_failed", "Whether the last attempt failed.", copies["problem"] is not None),
            (
                "copies_oldest_timestamp_seconds",
                "When the oldest copy was made.",
                _timestamp(copies["oldest"]),
            ),
            (
                "copies_listed_timestamp_seconds",
                "When they were last compared with what is there.",
                _timestamp(copies["listed_at"]),
            ),
        )


def _gauges(*gauges: tuple[str, str, float | None]) -> Iterator[str]:
    """Yield those that have a value."""
    for name, text, value in gauges:
        if value is not None:
            yield from _head(name, "gauge", text)
            yield f"{PREFIX}_{name} {value + 0}"


def _timestamp(moment: str | None) -> float | None:
    return datetime.fromisoformat(moment).timestamp() if moment else None


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
