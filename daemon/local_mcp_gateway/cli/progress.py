"""A bar for work that takes long, drawn on stderr of a terminal and nowhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable


class progress_bar:  # noqa: N801  reads as a verb where it is used
    """A bar on a terminal for phases that take long; nothing elsewhere."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self.shown = ""
        self.wide = sys.stderr.isatty()
        return self.update

    def update(self, phase: str, done: int, total: int) -> None:
        """Draw the bar again if the percentage changed."""
        if not self.wide or total <= 0:
            return
        percent = 100 * done // total
        line = f"[{'#' * (percent // 4):<25}] {percent:3d} %  {phase[:60]}"
        if line != self.shown:
            click.echo("\r" + line.ljust(len(self.shown)), nl=False, err=True)
            self.shown = line

    def __exit__(self, *_: object) -> None:
        if self.shown:
            click.echo("\r" + " " * len(self.shown) + "\r", nl=False, err=True)
