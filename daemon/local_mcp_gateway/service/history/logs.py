"""Read logged events back: from the systemd journal, the log file and the call log.

Journal and file are read from the beginning and, on request, followed from exactly there: each event is
returned once.
"""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.database import columns_of, reading
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.log import COUNTED_APART, IDENTIFIER, LEVEL_OF, LEVELS, ignore, rotated
from local_mcp_gateway.regular_file import NotAFile, open_file
from local_mcp_gateway.service.file_watcher import WatchSpec, changes_blocking
from local_mcp_gateway.service.runtime_paths import log_path
from local_mcp_gateway.service.systemd import SERVICE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

LOOK_MS = 500
"""The longest pause between two reads of a file; the watcher usually reports a change sooner."""
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_LEVEL_OF_PRIORITY = {"7": "debug", "6": "info", "5": "info", "4": "warning", "3": "error"}
_OURS = re.compile(r"[A-Z][A-Z0-9_]*")
_JOURNAL_OWN = {"MESSAGE", "PRIORITY", "EVENT", "SYSLOG_IDENTIFIER", "SYSLOG_TIMESTAMP"}
_CALL_FIELDS = (
    *("profile", "server", "method", "target", "status", "error", "duration_us"),
    *("request_bytes", "response_bytes", "request", "response", "holder", "client"),
)


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One logged event."""

    at: datetime
    level: str
    event: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The events to select."""

    level: str = "debug"
    event: str = "*"
    since: datetime | None = None

    def matches(self, event: LoggedEvent) -> bool:
        """Tell whether an event is selected."""
        return (
            LEVELS[event.level] >= LEVELS[self.level]
            and fnmatch.fnmatchcase(event.event, self.event)
            and (self.since is None or event.at >= self.since)
        )


def parse_since(text: str, now: datetime) -> datetime:
    """Read `10m`, `2h`, `1d`, or an ISO date with or without a time (local unless it says otherwise)."""
    if found := re.fullmatch(r"(\d+)\s*(s|m|min|h|d)", text):
        return now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise UsageProblem(
            f"--since {text!r} is not a time.", hint="Write 10m, 2h, 1d or 2026-01-31T12:00."
        ) from None


def read_file(database: Path, *, follow: bool) -> Iterator[LoggedEvent | None]:
    """Yield the events of the rotated log file and the log file, then None; then each new one."""
    path = log_path(database).resolve()
    if follow and not path.parent.is_dir():
        raise UsageProblem(
            f"There is no log to follow: {path.parent} does not exist.",
            hint="Start a gateway with this database, or name another with --database.",
        )
    with closing(tail(path, follow=follow)) as lines:
        for raw in lines:
            if raw is None:
                yield None
            elif line := parse_line(raw):
                yield line


def tail(path: Path, *, follow: bool) -> Generator[str | None]:
    """Yield every line of the rotated file and the file, then None; then, to follow, each new one.

    No line is missed or repeated. A file stays open and is read through the same descriptor: the next poll
    finds what was appended before the watcher's first event. A renamed file is read to its end, because a
    writer may still have it open.
    """
    with closing(_RotatedReader(path)) as reader:
        yield from reader.lines()
        yield None
        if not follow:
            return
        ours = tuple(f"/{each.name}" for each in (path, rotated(path)))
        changed = WatchSpec(
            path.parent.absolute(),
            lambda _, name: name.endswith(ours),
            recursive=False,
            wake_ms=LOOK_MS,
        )
        for _ in changes_blocking(changed, ignore):
            yield from reader.lines()


class _OpenFile:
    """An open file, read up to its last complete line."""

    def __init__(self, path: Path) -> None:
        self.file = os.fdopen(open_file(path), "rb")
        self.number = os.fstat(self.file.fileno()).st_ino
        """Its inode: another file may have its name by now."""
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """Yield the new complete lines; the rest of an unfinished one comes later."""
        *whole, self._rest = (self._rest + self.file.read()).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")


class _RotatedReader:
    """The log file and its rotated predecessor."""

    def __init__(self, path: Path) -> None:
        self._names = (rotated(path), path)
        self._parts: list[_OpenFile] = []

    def lines(self) -> Iterator[str]:
        """Yield the lines added since the last call."""
        for part in self._parts:
            yield from part.lines()
        for path in self._names:
            with suppress(FileNotFoundError, PermissionError, NotAFile):
                if path.stat().st_ino not in {part.number for part in self._parts}:
                    newer = _OpenFile(path)
                    for part in self._parts:  # they may have grown until this one was created
                        yield from part.lines()
                    self._parts.append(newer)
                    yield from newer.lines()
        while len(self._parts) > len(self._names):
            self._parts.pop(0).file.close()

    def close(self) -> None:
        for part in self._parts:
            part.file.close()


def parse_line(raw: str) -> LoggedEvent | None:
    """Read one JSON line; None if it is truncated. An unknown level counts as info."""
    try:
        fields = parse_json(raw)
        at = datetime.fromisoformat(fields.pop("timestamp"))
        level, event = str(fields.pop("level")), str(fields.pop("event"))
        return LoggedEvent(at, level if level in LEVELS else "info", event, fields)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def read_journal(*, follow: bool) -> Iterator[LoggedEvent | None]:
    """Yield the unit's events in the journal, then None; then each that comes after the last of them."""
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
    """Tell whether the journal has entries of the unit."""
    try:
        with closing(_entries("--lines", "1")) as found:
            return any(line for _, line in found)
    except OSError:
        return False


def parse_entry(raw: str) -> tuple[str | None, LoggedEvent | None]:
    """Read one entry of `journalctl -o json` and its cursor; systemd's own lines are events too."""
    try:
        entry = parse_json(raw)
        at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1_000_000, UTC)
    except (ValueError, KeyError, TypeError):
        return None, None
    cursor = entry.get("__CURSOR")
    level = _LEVEL_OF_PRIORITY.get(str(entry.get("PRIORITY", "6")), "error")
    message = str(entry.get("MESSAGE", ""))
    if "EVENT" not in entry:
        return cursor, LoggedEvent(at, level, "systemd.logged", {"message": message})
    fields = {
        key.lower(): _value(value)
        for key, value in entry.items()
        if _OURS.fullmatch(key) and key not in _JOURNAL_OWN and not key.startswith("SYSLOG")
    }
    renamed = {"migration": "tag", "text": "message"}
    named = {renamed.get(key, key): value for key, value in fields.items()}
    event = str(entry["EVENT"])
    if event in COUNTED_APART:
        level = LEVEL_OF[event]
    # The journal does not keep the order of fields; the text of the entry does.
    order = sorted(named, key=lambda key: message.find(f" {key}=") % (len(message) + 1))
    return cursor, LoggedEvent(at, level, event, {key: named[key] for key in order})


def _entries(*options: str) -> Generator[tuple[str | None, LoggedEvent | None]]:
    """Yield the entries of this user's gateway, and those of the user's systemd about the unit."""
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
        return parse_json(text)
    except ValueError:
        return text


def read_calls(database: Path) -> Iterator[LoggedEvent]:
    """Yield every call in the database, oldest first, without taking a lock.

    Calls are written in batches, so the last second may be missing.
    """
    if not database.exists():
        return
    with reading(database) as reader:
        if not {"created_at", *_CALL_FIELDS} <= set(columns_of(reader).get("debug_logs", ())):
            raise UsageProblem(
                f"{database} holds no log of calls.", hint="`db migrate` brings it up to date."
            )
        columns = ", ".join(_CALL_FIELDS)
        for created_at, *values in reader.execute(
            f"SELECT created_at, {columns} FROM debug_logs ORDER BY id"
        ):
            pairs = zip(_CALL_FIELDS, values, strict=True)
            fields = {name: value for name, value in pairs if value is not None}
            fields["duration_ms"] = fields.pop("duration_us") / 1000
            level = "info" if fields["status"] == "ok" else "warning"
            yield LoggedEvent(
                datetime.fromtimestamp(created_at / 1000, UTC), level, "call.finished", fields
            )
