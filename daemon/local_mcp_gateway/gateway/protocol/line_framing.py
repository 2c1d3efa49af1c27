"""Cut a stream of bytes into lines, with a limit. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
END_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class LineEnds:
    """What is kept of a line beyond the limit. In a line that is not much longer they overlap."""

    head: bytes
    tail: bytes


class LineReader:
    """Turn chunks into lines. A line beyond the limit is dropped; of it only both ends are kept.

    `overflowed` holds those ends for each such line to whose end the last `feed` came.
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
    """Return a server's line as text that may be shown: what would steer a terminal is replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line.decode("utf-8", "replace"))
