"""What a guarded start did: a value for the log line, the command line and the tests."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.migrate.apply import Step
    from local_mcp_gateway.schema import Difference


State = Literal["created", "migrated", "current"]


@frozen
class GuardReport:
    """The end of a guarded start that succeeded: everything in it is durable."""

    database: Path
    state: State
    applied: tuple[Step, ...]
    backup: Backup | None
    fingerprint: str
    drift: tuple[Difference, ...]
    durations_ms: dict[str, float]

    def as_fields(self) -> dict[str, object]:
        """Return the keys of the canonical log line `guard.ready`."""
        return {
            "database": str(self.database),
            "state": self.state,
            "applied": len(self.applied),
            "backup": str(self.backup.path) if self.backup else None,
            "duration_ms": round(sum(self.durations_ms.values()), 3),
            **{f"{phase}_ms": round(value, 3) for phase, value in self.durations_ms.items()},
        }

    def as_json(self) -> dict[str, object]:
        """Return what `db migrate --json` prints."""
        return {
            "database": str(self.database),
            "state": self.state,
            "applied": [
                {"tag": step.tag, "statements": step.statements, "duration_ms": step.duration_ms}
                for step in self.applied
            ],
            "backup": str(self.backup.path) if self.backup else None,
            "fingerprint": self.fingerprint or None,
            "drift": [asdict(difference) for difference in self.drift],
            "durations_ms": self.durations_ms,
        }


class Phases:
    """How long each phase of a start took, in milliseconds, in the order in which they began."""

    def __init__(self) -> None:
        self.durations_ms: dict[str, float] = {}

    @contextmanager
    def measured(self, phase: str) -> Iterator[None]:
        """Add the time of the block to its phase, also when the block fails."""
        start = perf_counter()
        try:
            yield
        finally:
            spent = (perf_counter() - start) * 1000
            self.durations_ms[phase] = self.durations_ms.get(phase, 0.0) + spent

    def ms(self, phase: str) -> float:
        """Return what a phase has taken so far, in milliseconds, for its log event."""
        return round(self.durations_ms.get(phase, 0.0), 3)
