"""The paths of the control socket and the log file: in systemd's folders or next to the database.

systemd passes the folders in `$RUNTIME_DIRECTORY` and `$LOGS_DIRECTORY`. A command typed in a shell has
neither and knows only the database. So there is always a path next to the database; where the real file is
elsewhere, that path is a symbolic link to it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RUNTIME = "RUNTIME_DIRECTORY"
LOGS = "LOGS_DIRECTORY"
LONGEST_ADDRESS = 100
"""Bytes of a path that `sockaddr_un` takes in any case."""


def socket_path(database: Path) -> Path:
    """Return the path at which commands find the daemon of this database."""
    return _beside(database, ".sock")


def log_path(database: Path) -> Path:
    """Return the path at which commands find the log file of this database's gateway."""
    return _beside(database, ".log.jsonl")


def wants_log() -> bool:
    """Tell whether the environment names a folder for the log."""
    return _given(LOGS, os.environ) is not None


def prepare_socket_path(database: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the free path to listen on; the caller holds the database's lock.

    Raises OSError.
    """
    found = socket_path(database)
    found.unlink(missing_ok=True)
    folder = _given(RUNTIME, environment)
    if folder is None or not _link(found, folder / found.name):
        return found
    (folder / found.name).unlink(missing_ok=True)
    return folder / found.name


def remove_socket(database: Path, placed: Path) -> None:
    """Remove the socket and the link to it."""
    for path in {placed, socket_path(database)}:
        with suppress(OSError):  # the next gateway replaces what stays
            path.unlink(missing_ok=True)


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Return an address for the path that fits into `sockaddr_un`, however long the path is."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def runtime_folder(database: Path) -> Path:
    """Return the folder for files that only matter while the gateway runs."""
    given = _given(RUNTIME, os.environ) or _given("XDG_RUNTIME_DIR", os.environ)
    return given or database.resolve().parent


def prepare_log_file(database: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the log file to append to; move a log from next to the database into a given folder."""
    found = log_path(database)
    folder = _given(LOGS, environment)
    if folder is None:
        if not found.is_symlink():
            return found
        if found.lstat().st_uid not in (os.geteuid(), 0):
            return found  # do not write through another user's link
        if not found.resolve().parent.is_dir():
            found.unlink(missing_ok=True)
        return found.resolve()
    target = folder / found.name
    if found.is_file() and not found.is_symlink():
        with suppress(OSError):
            kept = target if not target.exists() else log.rotated(target)
            shutil.move(found, kept)
    return target if _link(found, target) else found.resolve()


def _given(variable: str, environment: Mapping[str, str]) -> Path | None:
    """Return the first folder that the variable names, if it exists and is writable."""
    folder = Path(environment.get(variable, "").partition(":")[0])
    return folder if folder.is_absolute() and os.access(folder, os.W_OK | os.X_OK) else None


def _link(link: Path, target: Path) -> bool:
    """Point `link` at the target atomically; False where that is impossible."""
    with suppress(OSError):
        if link.is_symlink() and link.readlink() == target:
            return True
    if link.exists() and not link.is_symlink():
        return False
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError:
        return False
    return True


def _beside(database: Path, suffix: str) -> Path:
    real = database.resolve()
    return real.with_name(real.name + suffix)
