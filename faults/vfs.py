"""Faults inside the process: a VFS of APSW under the very SQLite that the program's `sqlite3` uses.

APSW as Debian builds it is linked to the system's libsqlite3, like Python's own module is. A VFS that
it makes the default is therefore below every connection of the unchanged program, which is the only
way to tear a write within a page at any sector, and to fail a call that strace cannot see. (The wheel
of PyPI brings a SQLite of its own, whose VFS the program would never meet.)
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import random
import re
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

CALLS = ("xWrite", "xSync", "xTruncate", "xDelete")
TORN = ("vfs-head", "vfs-tail", "vfs-some")
"""Of the sectors of one write only the first, only the last, or a few in between are on the disk."""
ERRORS = ("vfs-IOERR", "vfs-FULL")
SECTOR = 512
SYSTEM_PACKAGES = "/usr/lib/python3/dist-packages"


def unavailable() -> str | None:
    """Return why no VFS can be put under `sqlite3` here, or None."""
    try:
        apsw = load()
    except ImportError as error:
        return f"APSW cannot be loaded ({error}): install Debian's python3-apsw"
    if apsw.using_amalgamation:
        return "this APSW brings a SQLite of its own: install Debian's python3-apsw"
    below = apsw.VFS("faults-probe", "unix")
    try:
        with closing(sqlite3.connect("file:probe?mode=memory&vfs=faults-probe", uri=True)):
            return None
    except sqlite3.OperationalError:
        return "APSW and this Python are linked to different copies of SQLite"
    finally:
        below.unregister()


def load() -> Any:
    """Import APSW, also where only the system's Python of the same version has it."""
    if "apsw" not in sys.modules and importlib.util.find_spec("apsw") is None:
        spec = importlib.machinery.PathFinder.find_spec("apsw", [SYSTEM_PACKAGES])
        if spec is None or spec.loader is None:
            raise ImportError("there is none")
        module = importlib.util.module_from_spec(spec)
        sys.modules["apsw"] = module
        spec.loader.exec_module(module)
    return importlib.import_module("apsw")


class Witness:
    """Notes every call in the trace, by the system's own write and not through the VFS."""

    def __init__(self, trace: str, call: str, number: int, action: str) -> None:
        self._notes = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
        self._wanted = (call, number)
        self._made = dict.fromkeys(CALLS, 0)
        self.action = action
        self.number = number

    def met(self, call: str, size: int = 0) -> bool:
        """Note a call; tell whether it is the one, or raise the error that it is to have."""
        self._made[call] += 1
        here = self._wanted == (call, self._made[call])
        os.write(self._notes, f"{call} {size}{' INJECTED' if here else ''}\n".encode())
        if here and self.action in ERRORS:
            apsw = load()
            raise {"vfs-IOERR": apsw.IOError, "vfs-FULL": apsw.FullError}[self.action]("injected")
        return here


def install(trace: str, call: str, number: str, action: str) -> None:
    """Put the VFS under every connection of this process; at the N-th such call do what is asked."""
    witness = Witness(trace, call, int(number), action)
    apsw = load()
    any_file: Any = apsw.VFSFile
    any_disk: Any = apsw.VFS

    class File(any_file):  # type: ignore[misc]  # APSW is not there when types are checked
        def __init__(self, name: object, flags: list[int]) -> None:
            super().__init__("unix", name, flags)

        def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  APSW's name
            if witness.met("xWrite", len(data)):
                for start, end in kept(len(data), action, witness.number):
                    super().xWrite(data[start:end], offset + start)
                os.kill(os.getpid(), signal.SIGKILL)
            super().xWrite(data, offset)

        def xSync(self, flags: int) -> None:  # noqa: N802
            witness.met("xSync")
            super().xSync(flags)

        def xTruncate(self, size: int) -> None:  # noqa: N802
            witness.met("xTruncate", size)
            super().xTruncate(size)

    class Disk(any_disk):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__("faults", "unix", makedefault=True)

        def xOpen(self, name: object, flags: list[int]) -> File:  # noqa: N802
            return File(name, flags)

        def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802, FBT001
            witness.met("xDelete")
            super().xDelete(name, syncdir)

    KEPT_ALIVE.append(Disk())


KEPT_ALIVE: list[object] = []
"""A VFS is unregistered when its object goes."""


def kept(size: int, action: str, seed: int) -> Sequence[tuple[int, int]]:
    """Return the sectors of a torn write that reached the disk, as parts of its bytes. Pure."""
    sectors = [(start, min(start + SECTOR, size)) for start in range(0, size, SECTOR)]
    match action:
        case "vfs-head":
            return sectors[:1]
        case "vfs-tail":
            return sectors[-1:]
        case _:
            chance = random.Random(seed)
            return sorted(chance.sample(sectors, len(sectors) // 2))


def read_trace(trace: Path) -> tuple[dict[str, list[int]], bool]:
    """Return the sizes of the calls by name, in order, and whether one of them was hit."""
    text = trace.read_text() if trace.exists() else ""
    found = {
        name: [int(size) for size in re.findall(rf"^{name} (\d+)", text, re.MULTILINE)]
        for name in CALLS
    }
    return found, "INJECTED" in text
