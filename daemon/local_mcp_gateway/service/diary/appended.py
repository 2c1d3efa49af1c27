"""The lines of a file that is appended to and rotated (renamed to `.1`): none is missed, none comes twice.

One descriptor is read from the beginning of the file on, and follows it: what is appended between the
last look and the watcher's first report is found by the next look. When another file has the name, the
old descriptor is read to its end, since a writer may just have had it open.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from local_mcp_gateway.log import ignore
from local_mcp_gateway.service.file_watcher import WatchSpec, changes_blocking

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

LOOK_MS = 500
"""The longest pause between two looks: a report of the watcher comes before it, as a rule."""


def appended(path: Path, *, follow: bool) -> Generator[str | None]:
    """Yield every line of the rotated part and of the file, then None; then, to follow, each new one."""
    with closing(_Reader(path)) as reader:
        yield from reader.lines()
        yield None
        if not follow:
            return
        ours = f"/{path.name}"
        watched = WatchSpec(
            path.parent.absolute(),
            lambda _, name: name.endswith((ours, f"{ours}.1")),
            recursive=False,
            wake_ms=LOOK_MS,
        )
        for _ in changes_blocking(watched, ignore):
            yield from reader.lines()


class _Part:
    """One file, and how much of it was read."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.number = os.fstat(self.file.fileno()).st_ino
        """What tells it from another file that has its name by now."""
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that are new; of one that is being written, the rest comes later."""
        *whole, self._rest = (self._rest + self.file.read()).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")


class _Reader:
    def __init__(self, path: Path) -> None:
        self._names = (path.with_name(f"{path.name}.1"), path)
        self._parts: list[_Part] = []

    def lines(self) -> Iterator[str]:
        """Yield what is new, over rotations."""
        for part in self._parts:
            yield from part.lines()
        for path in self._names:
            with suppress(FileNotFoundError, PermissionError):
                if path.stat().st_ino not in {part.number for part in self._parts}:
                    newer = _Part(path)
                    for part in self._parts:  # they may have grown until this one was made
                        yield from part.lines()
                    self._parts.append(newer)
                    yield from newer.lines()
        while len(self._parts) > len(self._names):
            self._parts.pop(0).file.close()

    def close(self) -> None:
        for part in self._parts:
            part.file.close()
