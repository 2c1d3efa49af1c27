"""The diary of starts: every event of a start as a JSON line beside the database, for `startup`.

Written as the events happen, so a start that was killed shows how far it came. Works without a
journal and whatever the log's level is. Each line is one append to a file that is not kept open: a
second start that is refused adds its own lines without disturbing anyone.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local_mcp_gateway.log.redact import redact
from local_mcp_gateway.service.diary.clock import since_process_start_ms

MOST_BYTES = 1024 * 1024
KEPT_BYTES = MOST_BYTES // 2
_AFTERWARDS = {"upstream.connected", "upstream.lost", "service.stopping", "service.stopped"}
_NO_STEPS = {"guard.progressed"}
_ENDS = {"service.ready", "guard.refused", "service.refused", "service.failed", "service.stopped"}


def record_path(database: Path) -> Path:
    """Return where the starts of this database are written down."""
    real = database.resolve()
    return real.with_name(real.name + ".starts.jsonl")


class StartRecord:
    """An Emit that writes down one start. A disk that refuses a line never stops a start."""

    def __init__(self, database: Path) -> None:
        self._path = record_path(database)
        began = time.time() - since_process_start_ms() / 1000
        self._id = (
            f"{datetime.fromtimestamp(began, UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')} {os.getpid()}"
        )
        self._over = False
        self._met: set[object] = set()
        _shorten(self._path)

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write one event down, if it belongs to the start."""
        if event in _NO_STEPS or (self._over and not self._is_news(event, fields)):
            return
        self._over = self._over or event in _ENDS
        line = {"start": self._id, "ms": since_process_start_ms(), "event": event}
        kept: Any = redact({key: value for key, value in fields.items() if key[0] != "_"})
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**kept, **line}, default=str) + "\n")
        except OSError:
            return

    def _is_news(self, event: str, fields: dict[str, object]) -> bool:
        """Tell whether an event after READY still belongs to the story: the first of each upstream."""
        key = (event, fields.get("server"))
        if event not in _AFTERWARDS or key in self._met:
            return False
        self._met.add(key)
        return True


@dataclass(slots=True)
class Start:
    """One start as it was written down."""

    id: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def started_at(self) -> str:
        """Return when the process began, ISO 8601 UTC."""
        return self.id.split()[0]

    @property
    def pid(self) -> int:
        """Return the process."""
        return int(self.id.split()[1])

    @property
    def outcome(self) -> str:
        """Return ready, refused, failed, stopped (asked to, before it was ready) or unfinished."""
        names = [event["event"] for event in self.events]
        words = {
            "service.ready": "ready",
            "guard.refused": "refused",
            "service.refused": "refused",
            "service.failed": "failed",
            "service.stopped": "stopped",
        }
        return next((words[name] for name in names if name in words), "unfinished")

    def find(self, name: str) -> dict[str, Any]:
        """Return the first event of this name, or an empty one."""
        return next((event for event in self.events if event["event"] == name), {})


def read_starts(database: Path, *, last: int) -> list[Start]:
    """Return the last starts, the newest one last; lines that a crash cut short are passed over."""
    starts: dict[str, Start] = {}
    try:
        text = record_path(database).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            event = json.loads(line)
            start = starts.setdefault(event["start"], Start(event["start"]))
        except (ValueError, KeyError, TypeError):
            continue
        start.events.append(event)
    return list(starts.values())[-last:]


def _shorten(path: Path) -> None:
    """Keep the newest half once the file is full; a start that writes meanwhile may lose a line."""
    try:
        if path.stat().st_size < MOST_BYTES:
            return
        rest = path.read_bytes()[-KEPT_BYTES:].partition(b"\n")[2]
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(rest)
        temporary.replace(path)
    except OSError:
        return
