"""Where logged events are found again: the journal of the user unit, or the file beside the database."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.log.events import LEVELS
from local_mcp_gateway.log.journal import IDENTIFIER
from local_mcp_gateway.service.units import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def log_path(database: Path) -> Path:
    """Return the log file of this database's gateway."""
    real = database.resolve()
    return real.with_name(real.name + ".log.jsonl")


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


def from_file(database: Path) -> Iterator[Line]:
    """Yield what the file holds, oldest first, the rotated part before it."""
    path = log_path(database)
    for part in (path.with_name(path.name + ".1"), path):
        try:
            text = part.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for raw in text.splitlines():
            if line := parse_line(raw):
                yield line


def follow_file(database: Path) -> Iterator[Line]:
    """Yield what is appended from now on, over rotations, until interrupted."""
    from watchfiles import watch

    path = log_path(database)
    read = path.stat().st_size if path.exists() else 0
    for _ in watch(path.parent, recursive=False, step=50, raise_interrupt=True):
        if not path.exists():
            read = 0
            continue
        if path.stat().st_size < read:
            read = 0
        with path.open("rb") as file:
            file.seek(read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        read += len(whole)
        for raw in whole.decode("utf-8", "replace").splitlines():
            if line := parse_line(raw):
                yield line


def parse_line(raw: str) -> Line | None:
    """Read one JSON line; None for one that was cut short."""
    try:
        fields = json.loads(raw)
        at = datetime.fromisoformat(fields.pop("timestamp"))
        return Line(at, str(fields.pop("level")), str(fields.pop("event")), fields)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def from_journal(*, follow: bool, lines: int | None) -> Iterator[Line]:
    """Yield the unit's entries in the journal; ends by itself unless it follows."""
    # What this user's gateway said, and what the user's manager said about the unit.
    user = f"_UID={os.getuid()}"
    command = ["journalctl", "-o", "json", "--no-pager"]
    command += [user, f"SYSLOG_IDENTIFIER={IDENTIFIER}", "+", user, f"USER_UNIT={SERVICE}"]
    command += ["--follow"] if follow else []
    command += ["--lines", str(lines)] if lines is not None else []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as journal:
        assert journal.stdout is not None
        try:
            for raw in journal.stdout:
                if line := parse_entry(raw):
                    yield line
        finally:
            journal.terminate()


def parse_entry(raw: str) -> Line | None:
    """Read one entry of `journalctl -o json`; systemd's own lines about the unit are events too."""
    try:
        entry = json.loads(raw)
        at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1_000_000, UTC)
    except (ValueError, KeyError, TypeError):
        return None
    level = _LEVEL_OF_PRIORITY.get(str(entry.get("PRIORITY", "6")), "error")
    if "EVENT" not in entry:
        return Line(at, level, "systemd.said", {"message": str(entry.get("MESSAGE", ""))})
    fields = {
        key.lower(): _value(value)
        for key, value in entry.items()
        if _OURS.fullmatch(key) and key not in _JOURNALS_OWN and not key.startswith("SYSLOG")
    }
    renamed = {"migration": "tag", "text": "message"}
    named = {renamed.get(key, key): value for key, value in fields.items()}
    return Line(at, level, str(entry["EVENT"]), named)


def has_journal() -> bool:
    """Tell whether the journal holds anything of the unit."""
    try:
        return next(from_journal(follow=False, lines=1), None) is not None
    except OSError:
        return False


def _value(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
