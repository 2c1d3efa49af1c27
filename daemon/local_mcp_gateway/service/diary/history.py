"""Where logged events are found again: the journal of the user unit, or the log file.

Both are read from the beginning and, if wanted, on from exactly there: an event is shown once, whenever
it came.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.log.events import LEVELS, level_of
from local_mcp_gateway.log.journal import COUNTED_APART, IDENTIFIER
from local_mcp_gateway.service.diary.appended import appended
from local_mcp_gateway.service.runtime_paths import log_path
from local_mcp_gateway.service.systemd.units import SERVICE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_LEVEL_OF_PRIORITY = {"7": "debug", "6": "info", "5": "info", "4": "warning", "3": "error"}
_OURS = re.compile(r"[A-Z][A-Z0-9_]*")
_JOURNALS_OWN = {"MESSAGE", "PRIORITY", "EVENT", "SYSLOG_IDENTIFIER", "SYSLOG_TIMESTAMP"}


@dataclass(frozen=True, slots=True)
class Line:
    """One logged event."""

    at: datetime
    level: str
    event: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are asked for."""

    level: str = "debug"
    event: str = "*"
    since: datetime | None = None

    def has(self, line: Line) -> bool:
        """Tell whether a line is one of them."""
        return (
            LEVELS.get(line.level, 20) >= LEVELS[self.level]
            and fnmatch.fnmatchcase(line.event, self.event)
            and (self.since is None or line.at >= self.since)
        )


def parse_since(text: str, now: datetime) -> datetime:
    """Read `10m`, `2h`, `1d`, or an ISO date with or without a time (local unless it says otherwise)."""
    if found := re.fullmatch(r"(\d+)\s*(s|m|min|h|d)", text):
        return now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise UsageProblem(
            f"--since {text!r} is no time.", hint="Write 10m, 2h, 1d or 2026-01-31T12:00."
        ) from None


def of_file(database: Path, *, follow: bool) -> Iterator[Line | None]:
    """Yield what the log file holds, the rotated part before it, then None; then what is appended."""
    path = log_path(database).resolve()
    if follow and not path.parent.is_dir():
        raise UsageProblem(
            f"There is no log to follow: {path.parent} does not exist.",
            hint="Start a gateway with this database, or name another with --database.",
        )
    with closing(appended(path, follow=follow)) as lines:
        for raw in lines:
            if raw is None:
                yield None
            elif line := parse_line(raw):
                yield line


def of_journal(*, follow: bool) -> Iterator[Line | None]:
    """Yield the unit's entries in the journal, then None; then what is added after the last of them."""
    after: list[str] = []
    for cursor, line in _entries("--no-tail"):
        after = ["--after-cursor", cursor] if cursor else after
        if line:
            yield line
    yield None
    if follow:
        for _, line in _entries("--follow", "--no-tail", *after):
            if line:
                yield line


def has_journal() -> bool:
    """Tell whether the journal holds anything of the unit."""
    try:
        with closing(_entries("--lines", "1")) as found:
            return any(line for _, line in found)
    except OSError:
        return False


def parse_line(raw: str) -> Line | None:
    """Read one JSON line; None for one that was cut short."""
    try:
        fields = json.loads(raw)
        at = datetime.fromisoformat(fields.pop("timestamp"))
        return Line(at, str(fields.pop("level")), str(fields.pop("event")), fields)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def parse_entry(raw: str) -> tuple[str | None, Line | None]:
    """Read one entry of `journalctl -o json`, and its cursor; systemd's own lines are events too."""
    try:
        entry = json.loads(raw)
        at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1_000_000, UTC)
    except (ValueError, KeyError, TypeError):
        return None, None
    cursor = entry.get("__CURSOR")
    level = _LEVEL_OF_PRIORITY.get(str(entry.get("PRIORITY", "6")), "error")
    said = str(entry.get("MESSAGE", ""))
    if "EVENT" not in entry:
        return cursor, Line(at, level, "systemd.said", {"message": said})
    fields = {
        key.lower(): _value(value)
        for key, value in entry.items()
        if _OURS.fullmatch(key) and key not in _JOURNALS_OWN and not key.startswith("SYSLOG")
    }
    renamed = {"migration": "tag", "text": "message"}
    named = {renamed.get(key, key): value for key, value in fields.items()}
    event = str(entry["EVENT"])
    if event in COUNTED_APART:
        level = level_of(event)
    # The journal keeps no order of fields, but the text of the entry has them as they were told.
    order = sorted(named, key=lambda key: said.find(f" {key}=") % (len(said) + 1))
    return cursor, Line(at, level, event, {key: named[key] for key in order})


def _entries(*options: str) -> Generator[tuple[str | None, Line | None]]:
    """Yield what this user's gateway said, and what the user's manager said about the unit."""
    user = f"_UID={os.getuid()}"
    # Without --all a field of more than 4,096 bytes, such as a traceback, is null.
    command = ["journalctl", "-o", "json", "--all", "--no-pager", *options]
    command += [user, f"SYSLOG_IDENTIFIER={IDENTIFIER}", "+", user, f"USER_UNIT={SERVICE}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as journal:
        assert journal.stdout is not None
        try:
            yield from map(parse_entry, journal.stdout)
        finally:
            journal.terminate()


def _value(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
