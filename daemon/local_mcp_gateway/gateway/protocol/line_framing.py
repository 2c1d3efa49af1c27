"""Split a byte stream into lines with a maximum length. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
END_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class LineEnds:
    """The kept ends of a line beyond the limit. They overlap in a line that is not much longer."""

    head: bytes
    tail: bytes


class LineReader:
    """Splits chunks into lines. A line beyond the limit is dropped, except for its two ends.

    `overflowed` holds the ends of each such line that the last `feed` completed.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.overflowed: list[LineEnds] = []
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self._bytes = 0
        self._head: bytes | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that this chunk completes, without their line ends."""
        self.overflowed = []
        *complete, rest = chunk.split(b"\n")
        for part in complete:
            if not self._parts and len(part) <= self._limit:
                yield part.removesuffix(b"\r")
                continue
            self._keep(part)
            head, line = self._head, b"".join(self._parts)
            self._parts, self._bytes, self._head = [], 0, None
            if head is None:
                yield line.removesuffix(b"\r")
            else:
                self.overflowed.append(LineEnds(head, line[-END_BYTES:]))
        if rest:
            self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self._bytes += len(part)
        if self._head is not None:
            self._parts = [b"".join(self._parts)[-END_BYTES:]]
        elif self._bytes > self._limit:
            whole = b"".join(self._parts)
            self._head, self._parts = whole[:END_BYTES], [whole[-END_BYTES:]]


def printable(line: bytes) -> str:
    """Return a server's line with terminal control characters replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line.decode("utf-8", "replace"))
