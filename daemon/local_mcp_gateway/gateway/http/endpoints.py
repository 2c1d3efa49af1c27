"""The endpoints of the gateway's own: health, metrics, and the refusal to register a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.gateway.protocol import INVALID_REQUEST, failure, jsonrpc
from local_mcp_gateway.gateway.routing import health

if TYPE_CHECKING:
    from local_mcp_gateway.gateway.http.request import HttpRequest
    from local_mcp_gateway.gateway.routing import CallLog

PREFIX: Final = "local_mcp_gateway"
"""Of the names of all metrics."""
BUILT_IN: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
OPEN: Final = frozenset({"/health/live", "/health/ready", "/register"})
"""Paths that answer without a token, with nothing about servers or profiles."""
REGISTER: Final = (
    "This gateway registers no clients and has no sign-in page: it wants a token."
    " `local-mcp-gateway token create NAME` on its machine makes one; send it as the header"
    " `Authorization: Bearer TOKEN`"
)
"""The answer to a client that tries to register. Of all refusals, the SDKs show a person this text alone."""
FOR_PEOPLE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Local MCP Gateway</title>'
    "<p>This is the address for MCP clients: put it into the configuration of yours. What the gateway"
    ' shows to people is at <a href="/">its first page</a>.</p>'
)
_REGISTER: Final = jsonrpc.encode(
    {"error": "invalid_client_metadata", "error_description": REGISTER}
)


async def serve_builtin(
    http_request: HttpRequest,
    calls: CallLog,
    status: Callable[[], dict[str, Any]],
    missing: str,
    *,
    admitted: bool,
) -> None:
    """Serve health, metrics and the refusal to register; `missing` is what any other path gets.

    Who is not admitted, or may not see everything, learns no name of a server or profile.
    """
    token = http_request.token
    limited = token is not None and (token.profiles is not None or token.policy.hides)
    whole = admitted and not limited
    if http_request.path in BUILT_IN and http_request.method not in {"GET", "HEAD"}:
        await http_request.not_allowed(b"GET, HEAD")
    elif http_request.path == "/health/live":
        await http_request.plain(200, jsonrpc.success({"status": "alive"}))
    elif http_request.path == "/health/ready":
        seen = status()
        known = health(seen)
        shown = known if whole else {"status": known["status"]}
        await http_request.plain(503 if seen["problem"] else 200, jsonrpc.success(shown))
    elif http_request.path == "/metrics" and whole:
        await http_request.text(metrics(calls, status()))
    elif http_request.path == "/register":
        await http_request.reply(400, _REGISTER)
    else:
        await http_request.plain(404, failure(INVALID_REQUEST, missing))


def metrics(calls: CallLog, status: Mapping[str, Any]) -> str:
    """Return the calls, and the servers, replica and copies of the status, for Prometheus, format 0.0.4."""
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
