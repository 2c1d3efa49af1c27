"""Safe standard streams: no output controls the terminal, and no failed write goes unnoticed.

Names, arguments, descriptions and histories come from files, servers and databases that anyone may have
written. The streams are the only way out, so the commands that print need no escaping of their own.
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
"""Its colours are those that this program uses. A lone surrogate is a byte that was not UTF-8."""


def printable(text: str, *, terminal: bool = False) -> str:
    """Escape, as JSON does, every character that controls a terminal.

    These are the control characters except tab and line end, and the bidirectional controls. On a terminal
    the few colours that this program uses stay.
    """
    pattern = _STEERS_A_TERMINAL if terminal else _STEERS
    return pattern.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}" if len(found[0]) == 1 else found[0]


class CheckedStream(io.TextIOWrapper):
    """A standard stream that remembers the error of its first failed write and then drops all output."""

    lost: OSError | None = None
    """The error of the first failed write."""
    as_it_is = False
    """Write texts unchanged, without escaping."""
    raises = False
    """Raise the error: ends a command with endless output that nobody reads."""

    def write(self, text: str, /) -> int:
        """Write, unless a write has failed before."""
        shown = text if self.as_it_is else printable(text, terminal=self.isatty())
        try:
            return len(text) if self.lost else super().write(shown)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Flush, unless a write has failed before."""
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
    """Reopen standard streams that were closed: the next file opened would take their descriptor.

    Printed file names may not be UTF-8: their bytes are written unchanged.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for name, errors in (("stdout", "surrogateescape"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            buffered = stream.line_buffering
            encoding = stream.encoding
            checked = CheckedStream(stream.detach(), encoding, errors, line_buffering=buffered)
            setattr(sys, name, checked)


def write_as_it_is(stream: TextIO) -> None:
    """Pass all output through unchanged: another program speaks through this one."""
    if isinstance(stream, CheckedStream):
        stream.as_it_is = True


def print_data(text: str) -> None:
    """Print data for programs on stdout: unchanged, unless stdout is a terminal."""
    if sys.stdout.isatty():
        click.echo(text)
    else:
        with _as_it_is(sys.stdout):
            click.echo(text, color=True)  # unchanged


def draw(text: str, *, err: bool = True) -> None:
    """Write terminal control sequences to stderr, or to stdout."""
    with _as_it_is(sys.stderr if err else sys.stdout):
        click.echo(text, nl=False, err=err)


@contextmanager
def _as_it_is(stream: TextIO) -> Iterator[None]:
    if not isinstance(stream, CheckedStream):
        yield
        return
    stream.as_it_is = True
    try:
        yield
    finally:
        stream.as_it_is = False


def end_when_unread(stream: TextIO) -> None:
    """End the command at the first failed write, because its output has no end."""
    if isinstance(stream, CheckedStream):
        stream.raises = True


def lost(stream: TextIO) -> OSError | None:
    """Return the error of the first failed write; None if all output arrived."""
    return stream.lost if isinstance(stream, CheckedStream) else None


def discard(stream: TextIO) -> None:
    """Drop unwritten output: otherwise the interpreter would exit with its own code."""
    with suppress(OSError, ValueError):
        stream.flush()
    if lost(stream):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
