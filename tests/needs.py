"""What a test needs of the machine and may not get: found out by trying, and a skip with the reason."""

from __future__ import annotations

import os
import pty
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_mcp_gateway.gateway import NoSandbox, sandbox_gaps

STRANGER = os.geteuid() + 1


def attempt(absent: str, *command: str | Path) -> None:
    """Run a command that a machine may refuse; skip with what it said."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"{absent}: {error}")
    if done.returncode:
        pytest.skip(f"{absent}: {done.stderr.strip().partition(chr(10))[0]}")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of this size on a folder."""
    folder.mkdir(exist_ok=True)
    options = ("-t", "tmpfs", "-o", f"size={size}", "tmpfs")
    attempt("no small disk can be mounted here", "mount", *options, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def sandbox() -> list[str]:
    """Return what a sandbox does not stop here."""
    try:
        return sandbox_gaps()
    except NoSandbox as problem:
        pytest.skip(f"there can be no sandbox here: {problem}")


def give_away(path: Path, group: int = -1) -> None:
    """Make somebody else the owner of a file, or of a link itself."""
    try:
        os.chown(path, STRANGER, group, follow_symlinks=False)
    except PermissionError as error:
        pytest.skip(f"no file can be given away here: {error}")


def held_to_modes() -> tuple[str, ...]:
    """Return a prefix of commands under which root, too, is refused by the mode of a file."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o500)
        if not os.access(folder, os.W_OK):
            return ()
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    attempt("root's rights cannot be laid down here", *prefix, "true")
    return prefix


def open_terminal() -> tuple[int, int]:
    """Open a terminal; return the side of the person and the side of the program."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be opened here: {error}")
