"""Print results on a terminal: JSON, tables, sentences, confirmations and progress bars."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from local_mcp_gateway.cli.streams import draw, printable
from local_mcp_gateway.errors import NotConfirmed
from local_mcp_gateway.log import WIDTH, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headers, columns as wide as their widest cell; None is shown as a dash."""
    cells = [["–" if cell is None else one_line(str(cell)) for cell in row] for row in rows]
    widths = [
        max(len(line[column]) for line in [list(headers), *cells]) for column in range(len(headers))
    ]
    click.secho(
        "  ".join(name.ljust(width) for name, width in zip(headers, widths, strict=True)).rstrip(),
        bold=True,
    )
    for row in cells:
        click.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def one_line(text: str) -> str:
    """Return a text on one line, with hidden characters escaped."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def sentence(text: str, *, mark: str = "", indent: str = "", err: bool = False) -> str:
    """Wrap a sentence to the terminal, at most 100 columns; elsewhere it stays on one line, for grep."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return f"{indent}{mark}{text}"
    width = min(WIDTH, shutil.get_terminal_size().columns) - len(indent)
    return textwrap.indent(folded(mark + text, width, later=" " * len(mark)), indent)


def confirm_by_name(name: str, hazards: Sequence[str], *, yes: bool) -> None:
    """Show what will be lost and require the typed name; raises NotConfirmed otherwise.

    The name is read from stdin, terminal or not; end of input means no. With `yes` the hazards are still
    shown.
    """
    for hazard in hazards:
        click.secho(hazard, fg="yellow", err=True)
    if yes:
        return
    try:
        typed = click.prompt(
            f"Type {name} to go on", default="", show_default=False, prompt_suffix=": ", err=True
        )
    except click.Abort:
        typed = ""
        click.echo(err=True)
    if typed.strip() != name:
        raise NotConfirmed(
            "Nothing was done: it was not confirmed.",
            hint=f"Run it again and type {name}, or give --yes.",
        )


class progress_bar:  # noqa: N801  reads as a verb where it is used
    """A progress bar for long phases on a terminal; nothing elsewhere."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self.shown = ""
        self.wide = sys.stderr.isatty()
        return self.update

    def update(self, phase: str, done: int, total: int) -> None:
        """Draw the bar again if the percentage changed."""
        if not self.wide or total <= 0:
            return
        percent = 100 * done // total
        line = f"[{'#' * (percent // 4):<25}] {percent:3d} %  {one_line(phase[:60])}"
        if line != self.shown:
            draw("\r" + line.ljust(len(self.shown)))
            self.shown = line

    def __exit__(self, *_: object) -> None:
        if self.shown:
            draw("\r" + " " * len(self.shown) + "\r")
