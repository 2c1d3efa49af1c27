"""Print results on a terminal: JSON, tables, sentences, confirmations and progress bars."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, ValuesView
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain
from types import NoneType
from typing import Any, Final

import click

from local_mcp_gateway import formats
from local_mcp_gateway.cli.streams import draw, lost, printable
from local_mcp_gateway.database import PROGRESS_LINES, describe_progress, progress_line
from local_mcp_gateway.errors import Exit, NotConfirmed, UsageProblem
from local_mcp_gateway.formats import folded, line_width, terminal_width

NARROWEST_CELL = 12


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(indented_json(value))


def indented_json(value: object, margin: str = "\n") -> str:
    """Return what `json.dumps` returns with an indent of 2, but faster; keys are texts.

    With an indent it encodes item by item in Python. Here what holds only plain values is encoded in C.
    """
    inner = margin + "  "
    held = value.values() if isinstance(value, dict) else value
    if not isinstance(held, list | tuple | ValuesView) or not held:
        return _encoder("").encode(value)
    if _are_plain(held):
        text = _encoder(inner).encode(value)
        return f"{text[0]}{inner}{text[1:-1]}{margin}{text[-1]}"
    if isinstance(value, dict):
        items = [f"{_encoder('').encode(k)}: {indented_json(v, inner)}" for k, v in value.items()]
        return f"{{{inner}{f',{inner}'.join(items)}{margin}}}"
    if set(map(type, held)) == {dict} and all(held) and _are_plain(chain(*map(dict.values, held))):
        # All rows at once. No text has a line break of its own here, so what is found is between rows.
        deeper = inner + "  "
        rows = _encoder(deeper).encode(value)[2:-2]
        rows = rows.replace(f"}},{deeper}{{", f"{inner}}},{inner}{{{deeper}")
        return f"[{inner}{{{deeper}{rows}{inner}}}{margin}]"
    return f"[{inner}{f',{inner}'.join(indented_json(item, inner) for item in held)}{margin}]"


_PLAIN: Final = {str, int, float, bool, NoneType}


def _are_plain(values: Iterable[object]) -> bool:
    return set(map(type, values)) <= _PLAIN


@cache
def _encoder(separator: str) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, separators=(f",{separator}", ": "))


def print_result(value: object, sentences: str, *, as_json: bool) -> int:
    """Print what a command has done, as JSON or in words, a line for each; return its exit code."""
    if as_json:
        print_json(value)
    else:
        print_sentences(sentences.split("\n"))
    return Exit.OK


def tell(
    text: object, *, mark: str = "", indent: str = "", err: bool = False, **style: Any
) -> None:
    """Print a sentence for a person, wrapped to the terminal; `style` is that of `click.style`."""
    click.secho(sentence(str(text), mark=mark, indent=indent, err=err), err=err, **style)


def print_sentences(sentences: Iterable[str]) -> None:
    """Print sentences, each wrapped to the terminal."""
    for text in sentences:
        tell(text)


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, whole: int | None = None
) -> None:
    """Print rows under headers, columns as wide as their widest cell; None is shown as a dash.

    On a terminal that is too narrow the widest columns are cut, since wrapped rows cannot be read; never
    the one with the index `whole`.
    """
    cells = [["–" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    widths = [
        max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))
    ]
    if sys.stdout.isatty():
        widths = _fitting(widths, terminal_width(sys.stdout), whole)
    cells = [[cut(cell, width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    click.secho(
        "  ".join(name.ljust(width) for name, width in zip(headers, widths, strict=True)).rstrip(),
        bold=True,
    )
    for row in cells:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def print_list(
    items: Sequence[Any],
    headers: Sequence[str],
    row: Callable[[Any], Sequence[object]],
    *,
    none: str,
    as_json: bool,
) -> int:
    """Print items as JSON or as the rows of a table, and say `none` where there are none; exit with 0."""
    if as_json:
        print_json(items)
    elif items:
        print_table(headers, [row(item) for item in items])
    else:
        tell(none)
    return Exit.OK


def _fitting(widths: Sequence[int], columns: int, whole: int | None) -> list[int]:
    """Narrow the widest columns until a row fits; `whole` stays, even if the others get very narrow."""
    fitting = list(widths)
    at = [number for number in range(len(widths)) if number != whole]
    least = NARROWEST_CELL if whole is None else NARROWEST_CELL // 2
    while at and sum(fitting) + 2 * (len(fitting) - 1) > columns:
        widest = max(at, key=fitting.__getitem__)
        if fitting[widest] <= least:
            break
        fitting[widest] -= 1
    return fitting


def cut(text: str, width: int) -> str:
    """Return the text, or its beginning and an ellipsis."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def one_line(text: str) -> str:
    """Return a text on one line, with hidden characters escaped."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def command_or_url(server: dict[str, Any]) -> str:
    """Return where a server is: its command line, or its URL."""
    return one_line(server["url"] or shlex.join([server["command"] or "", *server["args"]]))


def sentence(text: str, *, mark: str = "", indent: str = "", err: bool = False) -> str:
    """Wrap a sentence to the terminal, at most 120 columns; elsewhere it stays on one line, for grep."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return f"{indent}{mark}{text}"
    import textwrap

    width = line_width(stream) - len(indent)
    return textwrap.indent(folded(text, width, mark=mark), indent)


def confirm_by_name(name: str, hazards: Sequence[str], *, yes: bool) -> None:
    """Show what will be lost and require the typed name; raises NotConfirmed otherwise.

    The name is read from stdin, terminal or not; end of input means no. With `yes` the hazards are still
    shown.
    """
    for hazard in hazards:
        tell(hazard, fg="yellow", err=True)
    if yes:
        return
    typed = _answer(f"Type {name} to go on: ")
    if typed.strip() != name:
        raise NotConfirmed(
            "Nothing was done: it was not confirmed.",
            hint=f"Run it again and type {name}, or give --yes.",
        )


def _answer(question: str) -> str:
    """Return the line that answers a question; empty at the end of the input.

    Ctrl+C and SIGTERM end it too, also where they would only ask running work to stop. A signal that comes
    just before a read begins does not interrupt it, so the wait is for the terminal and for signals.
    """
    try:
        with _woken_by_signals() as woken:
            click.echo(question, nl=False, err=True)
            asked = [sys.stdin, woken] if sys.stdin.isatty() else []
            ended = bool(asked) and woken in select.select(asked, [], [])[0]
            line = "" if ended else sys.stdin.readline()
    except KeyboardInterrupt:
        line = ""
    if not line:
        click.echo(err=True)
    return line


@contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Yield a descriptor that can be read once SIGINT or SIGTERM has come; both raise KeyboardInterrupt."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    before = signal.set_wakeup_fd(wakes)
    try:
        yield woken
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(wakes)
        for number, handler in previous.items():
            signal.signal(number, handler)


WATCH_EVERY_S = 2.0
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
watch_option = click.option(
    "--watch", is_flag=True, help="Show it again every two seconds, until Ctrl+C."
)


def shown_until_stopped(show: Callable[[], int]) -> int:
    """Clear the terminal and show something, again and again until Ctrl+C; returns its last exit code."""
    if not sys.stdout.isatty():
        raise UsageProblem(
            "--watch redraws a terminal, and the output does not go to one.",
            hint="Leave --watch out, and run the command again when needed.",
        )
    from local_mcp_gateway.cli.context import stop_on_signals  # it imports this module

    code = int(Exit.OK)
    with stop_on_signals() as stop:  # a picture is drawn whole: its event loop must not be cut off
        while not lost(sys.stdout) and not stop.is_set():
            draw(_CLEAR, err=False)
            code = show()
            sys.stdout.flush()
            stop.wait(WATCH_EVERY_S)
    return code


DRAWN_EVERY_S = 0.4
_BAR = 25


class progress_bar:  # noqa: N801  reads as a verb where it is used
    """Shows on a terminal what long work is doing, or tells the program that asked for it in lines.

    A thread draws it, so that the time goes on where a phase does not know how far it is.
    """

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._shown = ""
        self._now: tuple[str, int, int] | None = None
        self._phase, self._since = "", time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)
        if os.environ.get(PROGRESS_LINES):
            return self._print
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            with suppress(RuntimeError):  # the work needs no picture
                self._thread.start()
        return self.update

    def update(self, phase: str, done: int, total: int) -> None:
        """Take what is to be drawn next; may be called from any thread, and often."""
        self._now = phase, done, total

    def _print(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase or now - self._since >= DRAWN_EVERY_S:
            self._phase, self._since = phase, now
            draw(progress_line(phase, done, total))

    def _draw(self) -> None:
        steps = 0
        while not self._ended.wait(DRAWN_EVERY_S):
            steps += 1
            if self._now is not None:
                line = cut(self._line(*self._now, steps), terminal_width(sys.stderr) - 1)
                draw("\r" + line.ljust(len(self._shown)))
                self._shown = line

    def _line(self, phase: str, done: int, total: int, steps: int) -> str:
        words, percent = describe_progress(phase, done, total)
        if phase != self._phase:
            self._phase, self._since = phase, time.monotonic()
        filled = steps % _BAR if percent is None else percent * _BAR // 100
        bar = " " * filled + "#" if percent is None else "#" * filled
        share = "" if percent is None else f" {percent} %,"
        took = formats.duration((time.monotonic() - self._since) * 1000)
        return f"[{bar:<{_BAR}}]{share} {one_line(words)}, {took}"

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._shown:
            draw("\r" + " " * len(self._shown) + "\r")
