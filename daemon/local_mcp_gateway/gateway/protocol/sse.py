"""Parse and write server-sent events, as MCP uses them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MOST_DIGITS: Final = 12
STEP_LINES: Final = 100
KEEPALIVE: Final = b": keep-alive\r\n\r\n"
END: Final = b"\r\n\r\n"
_MARK: Final = b"\xef\xbb\xbf"
_CARRIED: Final = re.compile(rb"[^\x00-\x1f\x7f]*")
"""An id that fits into a header, so that a client can resume with it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `data` is the joined data lines."""

    data: bytes
    event: bytes = b"message"
    id: str | None = None
    retry_ms: int | None = None


class EventTooLarge(Exception):
    """An event is larger than the limit."""


class SseParser:
    """Parses chunks of a stream into events. Lines end with LF, CR LF or CR (HTML, "9.2.6")."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = b""
        self._id: str | None = None
        self._retry: int | None = None
        self._skip_newline = False
        self._passing = False
        self._begun = False

    @property
    def begun(self) -> bytes:
        """Return the data of the current event, if its last line so far is data."""
        line = b"".join(self._rest)
        data = [*self._data, line[5:].removeprefix(b" ")]
        return b"\n".join(data) if line.startswith(b"data:") else b""

    @property
    def waiting_bytes(self) -> int:
        """Return the length of the current, unfinished line."""
        return self._rest_bytes

    def hand_over(self) -> None:
        """Forget the data that `begun` has returned: `pass_on` returns the rest."""
        self._rest, self._rest_bytes, self._passing = [], 0, True
        self._data, self._data_bytes = [], 0

    def pass_on(self, chunk: bytes) -> tuple[bytes, bool]:
        """Return the data in this chunk that belongs to the handed-over event, and whether it ends there."""
        part = b""
        if self._passing:
            ends = [at for at in (chunk.find(b"\n"), chunk.find(b"\r")) if at >= 0]
            if not ends:
                return chunk, False
            part, chunk = chunk[: min(ends)], chunk[min(ends) :]
            self._passing = False
            self._keep(b"data:")
        for event in self.feed(chunk):
            return part + event.data, True
        return part, False

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes."""
        return (event for event in self.steps(chunk) if event is not None)

    def steps(self, chunk: bytes) -> Iterator[Event | None]:
        """Yield the events that this chunk completes, and None after each hundred lines and at the end.

        A stream may hold any number of lines, above all comments, and no event at all.
        """
        if self._skip_newline and chunk:
            chunk = chunk[1:] if chunk[:1] == b"\n" else chunk
            self._skip_newline = False
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            yield None
            return
        lines = (b"".join(self._rest) + chunk).splitlines(keepends=True)
        self._rest, self._rest_bytes = [], 0
        if not lines[-1].endswith((b"\n", b"\r")):
            self._keep(lines.pop())
        elif chunk.endswith(b"\r"):
            self._skip_newline = True
        for number, line in enumerate(lines):
            if (event := self._line(line.rstrip(b"\r\n"))) is not None:
                yield event
            elif number % STEP_LINES == STEP_LINES - 1:
                yield None
        yield None

    def _keep(self, part: bytes) -> None:
        self._rest.append(part)
        self._rest_bytes += len(part)
        if self._rest_bytes > self._limit:
            raise EventTooLarge

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        if line[:1] == b":":
            self._begun = True
            return None
        field, _, value = line.partition(b":")
        if not self._begun:  # the stream may start with a byte order mark
            field, self._begun = field.removeprefix(_MARK), True
        value = value[1:] if value[:1] == b" " else value
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._limit:
                raise EventTooLarge
        elif field == b"event":
            self._event = value
        elif field == b"id" and _CARRIED.fullmatch(value):
            self._id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit() and len(value) < MOST_DIGITS:
            self._retry = int(value)
        return None

    def _dispatch(self) -> Event | None:
        data, event = self._data, self._event
        self._data, self._data_bytes, self._event = [], 0, b""
        if not data:
            retry, self._retry = self._retry, None
            return Event(b"", id=self._id, retry_ms=retry) if retry is not None else None
        retry, self._retry = self._retry, None
        return Event(b"\n".join(data), event or b"message", self._id, retry)


def render(message: bytes, *, event: bytes = b"message", identity: str | None = None) -> bytes:
    """Return a JSON message as one event; JSON with raw line ends becomes several data lines."""
    if b"\n" in message or b"\r" in message:
        message = b"\r\ndata: ".join(message.splitlines())
    return b"".join((opening(identity, event), message, END))


def opening(identity: str | None = None, event: bytes = b"message") -> bytes:
    """Return what precedes the message in its event."""
    head = b"" if identity is None else b"id: " + identity.encode() + b"\r\n"
    return b"".join((head, b"event: ", event, b"\r\ndata: "))


def continued(part: bytes) -> bytes:
    """Return part of a JSON message as event data: line ends in it begin new data lines."""
    if b"\n" in part or b"\r" in part:
        part = part.replace(b"\r", b"").replace(b"\n", b"\r\ndata: ")
    return part
