"""The standard streams: a command does its work to the end, whoever listens.

A full disk behind `>`, or a reader that has gone, stops no command in the middle of what it does. What
could not be written is remembered, and said when the work is done.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class Told(io.TextIOWrapper):
    """A standard stream that remembers the error of its first write that failed, and writes no more."""

    lost: OSError | None = None
    raises = False
    """Raise it instead: for output without an end, which nobody reads any more."""

    def write(self, text: str, /) -> int:
        """Write, unless a write has failed already."""
        try:
            return len(text) if self.lost else super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Flush, unless a write has failed already."""
        try:
            if not self.lost:
                super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        if self.raises:
            raise error


def open_streams() -> None:
    """Give a standard stream that came closed its place: the next file to be opened would take it.

    What is printed may name a file whose name is no UTF-8: its bytes come out as they are.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for name, errors in (("stdout", "surrogateescape"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            buffered = stream.line_buffering
            encoding = stream.encoding
            told = Told(stream.detach(), encoding, errors, line_buffering=buffered)
            setattr(sys, name, told)


def end_when_unread(stream: TextIO) -> None:
    """Let a write that fails end the command: what it prints has no end of its own."""
    if isinstance(stream, Told):
        stream.raises = True


def lost(stream: TextIO) -> OSError | None:
    """Return why something that was printed did not arrive; None if it did."""
    return stream.lost if isinstance(stream, Told) else None


def let_go(stream: TextIO) -> None:
    """Drop what a stream could not take: the interpreter would end with a code of its own for it."""
    with suppress(OSError, ValueError):
        stream.flush()
    if lost(stream):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
