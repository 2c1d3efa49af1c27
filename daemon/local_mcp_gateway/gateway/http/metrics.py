"""Render Prometheus metrics for /metrics. Pure: values in, text out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import Counter

PREFIX = "local_mcp_gateway"


def render(
    calls: Counter[tuple[str, str, str]],
    microseconds: Counter[tuple[str, str]],
    status: Mapping[str, Any],
) -> str:
    """Return the exposition text, version 0.0.4."""
    return "\n".join([*_lines(calls, microseconds, status), ""])


def _lines(
    calls: Counter[tuple[str, str, str]],
    microseconds: Counter[tuple[str, str]],
    status: Mapping[str, Any],
) -> Iterator[str]:
    yield from _head("calls_total", "counter", "Requests of clients that have ended.")
    for (server, method, outcome), count in sorted(calls.items()):
        labels = _labels(server=server, method=method, status=outcome)
        yield f"{PREFIX}_calls_total{labels} {count}"
    yield from _head("call_seconds_total", "counter", "Time that these requests took together.")
    for (server, method), taken in sorted(microseconds.items()):
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


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}_{name} {text}"
    yield f"# TYPE {PREFIX}_{name} {kind}"


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
