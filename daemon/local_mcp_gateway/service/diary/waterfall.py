"""A start as phases with beginnings and durations, from the diary's events. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_mcp_gateway.service.diary.record import Start

_PHASES = {
    "service.starting": "process",
    "guard.waiting": "settings",
    "guard.locked": "lock",
    "guard.checked": "check",
    "migration.rewound": "rewind",
    "guard.resolved": "resolve",
    "backup.created": "backup",
    "migration.rehearsed": "rehearse",
    "guard.verified": "apply and verify",
    "guard.ready": "commit and settle",
    "gateway.listening": "gateway",
    "service.ready": "ready",
}
"""The event that ends a phase → the phase's name. `process` is the interpreter and its imports."""
BAR = 40


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a start; times in milliseconds since the process began."""

    name: str
    start_ms: float
    duration_ms: float

    def bar(self, total_ms: float) -> str:
        """Return the phase as a bar in a line of BAR characters; never wider, never invisible."""
        scale = BAR / total_ms if total_ms else 0
        offset = min(BAR - 1, int(self.start_ms * scale))
        width = max(1, min(BAR - offset, round(self.duration_ms * scale)))
        mark = "█" if self.duration_ms * scale >= 0.5 else "▏"
        return (" " * offset + mark * width).ljust(BAR)


def phases_of(start: Start) -> tuple[Phase, ...]:
    """Return the phases in order; one that never ended is missing, as it is in the diary."""
    found: list[Phase] = []
    before = 0.0
    for event in start.events:
        name = _PHASES.get(event["event"])
        if name is None or any(phase.name == name for phase in found):
            continue
        found.append(Phase(name, before, max(0.0, round(event["ms"] - before, 1))))
        before = event["ms"]
    return tuple(found)


def start_as_json(start: Start) -> dict[str, object]:
    """Return a start as `startup --json` prints it."""
    begun = start.find("service.starting")
    refused = start.find("guard.refused") or start.find("service.refused")
    return {
        "started_at": start.started_at,
        "pid": start.pid,
        "outcome": start.outcome,
        "duration_ms": start.events[-1]["ms"]
        if not start.find("service.ready")
        else start.find("service.ready")["ms"],
        "version": begun.get("version"),
        "database": begun.get("database"),
        "state": start.find("guard.ready").get("state"),
        "applied": [
            event["tag"] for event in start.events if event["event"] == "migration.applied"
        ],
        "backup": start.find("backup.created").get("path"),
        "phases": [
            {"name": phase.name, "start_ms": phase.start_ms, "duration_ms": phase.duration_ms}
            for phase in phases_of(start)
        ],
        "upstreams": [
            {"server": event.get("server"), "connected_ms": event["ms"]}
            for event in start.events
            if event["event"] == "upstream.connected"
        ],
        "refusal": {key: refused[key] for key in ("code", "message", "hint", "exit_code")}
        if refused
        else None,
    }
