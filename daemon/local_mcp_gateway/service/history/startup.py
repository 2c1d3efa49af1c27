"""The record of starts for `startup`: each event of a start as a JSON line next to the database.

Events are written as they happen, so a start that was killed shows how far it got. The record needs no
journal and does not depend on the log level; docs/adr/0036-starts-are-recorded-apart.md says why.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import log_to_file

MOST_BYTES = 512 * 1024
_AFTERWARDS = {"upstream.connected", "upstream.lost", "service.stopping", "service.stopped"}
_NO_STEPS = {"guard.progressed"}
_OUTCOMES = {
    "service.ready": "ready",
    "guard.refused": "refused",
    "service.refused": "refused",
    "service.failed": "failed",
    "service.stopped": "stopped",
}
"""The event that ends a start → how it ended."""
_PHASES = {
    "service.starting": "process",
    "guard.waiting": "settings",
    "guard.locked": "lock",
    "guard.checked": "check",
    "migration.rewound": "rewind",
    "guard.resolved": "plan",
    "backup.created": "backup",
    "backup.reused": "backup",
    "migration.rehearsed": "rehearse",
    "guard.verified": "apply and verify",
    "guard.ready": "commit, durable",
    "gateway.listening": "gateway",
    "service.ready": "ready",
}
"""The event that ends a phase → the phase's name. `process` is the interpreter and its imports."""
BAR = 40


def since_process_start_ms() -> float:
    """Return the age of this process, interpreter start included (10 ms resolution)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return round(time.process_time() * 1000, 1)
    started_s = ticks / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started_s) * 1000, 1)


def record_path(database: Path) -> Path:
    """Return the file that records the starts of this database."""
    real = database.resolve()
    return real.with_name(real.name + ".starts.jsonl")


class StartRecord:
    """An Emit that records one start. A failing write never stops a start."""

    def __init__(self, database: Path) -> None:
        self._log = log_to_file(record_path(database), "debug", most_bytes=MOST_BYTES)
        began = datetime.fromtimestamp(time.time() - since_process_start_ms() / 1000, UTC)
        self._id = f"{began:%Y-%m-%dT%H:%M:%S.%fZ} {os.getpid()}"
        self._over = False
        self._seen: set[object] = set()

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write an event if it belongs to the start."""
        if event in _NO_STEPS or (self._over and not self._is_news(event, fields)):
            return
        self._over = self._over or event in _OUTCOMES
        self._log(event, **{**fields, "start": self._id, "ms": since_process_start_ms()})

    def _is_news(self, event: str, fields: dict[str, object]) -> bool:
        """Tell whether an event after the end still belongs to the start: the first one of each server."""
        if event not in _AFTERWARDS or (key := (event, fields.get("server"))) in self._seen:
            return False
        self._seen.add(key)
        return True


@dataclass(slots=True)
class Start:
    """One recorded start."""

    id: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def started_at(self) -> str:
        """Return when the process began, ISO 8601 UTC."""
        return self.id.split()[0]

    @property
    def pid(self) -> int:
        """Return the process id."""
        return int(self.id.split()[1])

    @property
    def outcome(self) -> str:
        """Return ready, refused, failed, stopped (on request, before it was ready) or unfinished."""
        names = (event["event"] for event in self.events)
        return next((_OUTCOMES[name] for name in names if name in _OUTCOMES), "unfinished")

    def find(self, *names: str) -> dict[str, Any]:
        """Return the first event with one of these names, or an empty dict."""
        return next((event for event in self.events if event["event"] in names), {})

    @property
    def refusal(self) -> dict[str, Any]:
        """Return the event that says why the start was refused, or an empty dict."""
        return self.find("guard.refused", "service.refused")


def read_starts(database: Path, *, last: int) -> list[Start]:
    """Return the last starts, newest last; skip lines truncated by a crash."""
    from local_mcp_gateway.service.history.logs import tail  # a start never reads

    starts: dict[str, Start] = {}
    for line in tail(record_path(database), follow=False):
        try:
            event = parse_json(line or "")
            start = starts.setdefault(event["start"], Start(event["start"]))
        except (ValueError, KeyError, TypeError):
            continue
        start.events.append(event)
    return list(starts.values())[-last:]


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a start; times in milliseconds since the process began."""

    name: str
    start_ms: float
    duration_ms: float

    def bar(self, total_ms: float) -> str:
        """Draw the phase as a bar in a line of BAR characters, at least one character wide."""
        scale = BAR / total_ms if total_ms else 0
        offset = min(BAR - 1, int(self.start_ms * scale))
        width = max(1, min(BAR - offset, round(self.duration_ms * scale)))
        mark = "█" if self.duration_ms * scale >= 0.5 else "▏"
        return (" " * offset + mark * width).ljust(BAR)


def phases_of(start: Start) -> tuple[Phase, ...]:
    """Return the phases in order; one that never ended is missing, as in the record."""
    found: dict[str, Phase] = {}
    before = 0.0
    for event in start.events:
        name = _PHASES.get(event["event"])
        if name is None or name in found:
            continue
        found[name] = Phase(name, before, max(0.0, round(event["ms"] - before, 1)))
        before = event["ms"]
    return tuple(found.values())


def start_as_json(start: Start) -> dict[str, object]:
    """Return a start as `startup --json` prints it."""
    begun, refusal = start.find("service.starting"), start.refusal
    applied = [event for event in start.events if event["event"] == "migration.applied"]
    connected = [event for event in start.events if event["event"] == "upstream.connected"]
    return {
        "started_at": start.started_at,
        "pid": start.pid,
        "outcome": start.outcome,
        "duration_ms": (start.find("service.ready") or start.events[-1])["ms"],
        "version": begun.get("version"),
        "database": begun.get("database"),
        "state": start.find("guard.ready").get("state"),
        "applied": [event["tag"] for event in applied],
        "backup": (start.find("backup.created") or start.find("backup.reused")).get("path"),
        "phases": [
            {"name": phase.name, "start_ms": phase.start_ms, "duration_ms": phase.duration_ms}
            for phase in phases_of(start)
        ],
        "upstreams": [
            {"server": event.get("server"), "connected_ms": event["ms"]} for event in connected
        ],
        "refusal": {key: refusal[key] for key in ("code", "message", "hint", "exit_code")}
        if refusal
        else None,
    }
