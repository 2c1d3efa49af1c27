"""The standard streams of a command: what goes out steers no terminal, and is not lost in silence.

Names, arguments, descriptions and histories come out of files, servers and databases that may be
anybody's. Not each place that prints one has to think of that: the streams are the only way out.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

import click

_STEERS: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|\r(?!\n)"
)
_STEERS_A_TERMINAL: Final = re.compile(
    rf"\x1b\[(?:[0-2]|3[1-6])m|[\ud800-\udfff]|{_STEERS.pattern}"
)
"""Its colours are those that this program uses. A lone surrogate is a byte that was no UTF-8."""


def printable(text: str, *, terminal: bool = False) -> str:
    """Return a text in which nothing steers a terminal: such characters as JSON would write them.

    These are the control characters but for tabs and line ends, and those that turn the direction in which
    a text is read. On a terminal the few colours that this program uses stay.
    """
    pattern = _STEERS_A_TERMINAL if terminal else _STEERS
    return pattern.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}" if len(found[0]) == 1 else found[0]


class Told(io.TextIOWrapper):
    """A standard stream that remembers the error of its first write that failed, and writes no more."""

    lost: OSError | None = None
    """The error of the write that failed."""
    as_it_is = False
    """Write texts unchanged: for a program, or from here."""
    raises = False
    """Raise it instead: for output without an end, which nobody reads any more."""

    def write(self, text: str, /) -> int:
        """Write, unless a write has failed already."""
        shown = text if self.as_it_is else printable(text, terminal=self.isatty())
        try:
            return len(text) if self.lost else super().write(shown)
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


def write_as_it_is(stream: TextIO) -> None:
    """Let all that is written pass unchanged: another program speaks to a program through this one."""
    if isinstance(stream, Told):
        stream.as_it_is = True


def print_data(text: str) -> None:
    """Print on stdout what a program may read: unchanged, unless a person looks at it."""
    if sys.stdout.isatty():
        click.echo(text)
    else:
        with _as_it_is(sys.stdout):
            click.echo(text, color=True)  # which means: leave it as it is


def draw(text: str) -> None:
    """Write on stderr what is meant to steer the terminal."""
    with _as_it_is(sys.stderr):
        click.echo(text, nl=False, err=True)


@contextmanager
def _as_it_is(stream: TextIO) -> Iterator[None]:
    if not isinstance(stream, Told):
        yield
        return
    stream.as_it_is = True
    try:
        yield
    finally:
        stream.as_it_is = False


def end_when_unread(stream: TextIO) -> None:
    """Let a write that fails end the command: what it prints has no end of its own."""
    if isinstance(stream, Told):
        stream.raises = True


def lost(stream: TextIO) -> OSError | None:
    """Return why something that was printed did not arrive; None if it did."""
    return stream.lost if isinstance(stream, Told) else None


def discard(stream: TextIO) -> None:
    """Drop what a stream could not take: the interpreter would end with a code of its own for it."""
    with suppress(OSError, ValueError):
        stream.flush()
    if lost(stream):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
