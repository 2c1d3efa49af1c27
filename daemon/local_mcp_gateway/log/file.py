"""The log as a file beside the database, for `logs` where there is no journal.

JSON lines of the same form as on stderr. Full files are renamed to `.1`, the one before is dropped.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from local_mcp_gateway.log import LEVEL
from local_mcp_gateway.log.events import LEVELS, level_of
from local_mcp_gateway.log.redact import redact

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 4 * 1024 * 1024


class LogFile:
    """An Emit that appends to a file; safe from any thread, and silent when the disk refuses."""

    def __init__(self, path: Path, level: str, *, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._least = LEVELS[level]
        self._most = most_bytes
        self._lock = threading.Lock()

    def __call__(self, event: str, /, **fields: object) -> None:
        """Append one event."""
        level = str(fields.pop(LEVEL, None) or level_of(event))
        if LEVELS[level] < self._least:
            return
        now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        shown = redact(fields)
        assert isinstance(shown, dict)
        line = {"timestamp": now, "level": level, "event": event, **shown}
        with self._lock:
            self._append(json.dumps(line, default=str) + "\n")

    def _append(self, line: str) -> None:
        # Opened for each line: a process that was refused may write beside us, and rotation is a rename.
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                full = file.tell() > self._most
            if full:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        except OSError:
            return
