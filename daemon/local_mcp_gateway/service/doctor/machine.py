"""What is checked of the machine: SQLite, folder, disk, clock, port, certificate and service."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway import __version__
from local_mcp_gateway.backup import existing_folder, list_backups, room_needed
from local_mcp_gateway.database import examine_engine, read_holder
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.formats import size
from local_mcp_gateway.service.doctor.finding import Finding
from local_mcp_gateway.service.http import check_certificate, is_loopback, listeners
from local_mcp_gateway.service.systemd import systemctl, units

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local_mcp_gateway.config import Settings

_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "afs", "glusterfs"}
"""File systems on which SQLite's locks or WAL shared memory are unreliable."""


def python(_: Settings) -> Iterator[Finding]:
    """Tell the versions of Python and of this program."""
    yield Finding(
        "python", "ok", f"Python {sys.version.split()[0]}, Local MCP Gateway {__version__}."
    )


def engine(_: Settings) -> Iterator[Finding]:
    """Tell whether this SQLite can be used."""
    engine = examine_engine()
    yield Finding("sqlite", "problem" if engine.hint else "ok", engine.message, engine.hint)


def folder(settings: Settings) -> Iterator[Finding]:
    """Tell whether the database's folder can be used, by this user alone."""
    folder = settings.database_path.parent
    if not folder.exists():
        what = (
            "will be created at the first start" if not settings.database.path else "does not exist"
        )
        state: Literal["note", "problem"] = "note" if not settings.database.path else "problem"
        yield Finding("folder", state, f"{folder} {what}.", "" if state == "note" else "Create it.")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("folder", "problem", f"{folder} cannot be written.", f"chmod u+rwx {folder}")
        return
    open_to_others = [
        path for path in (folder, *folder.glob(settings.database_path.name + "*")) if _is_open(path)
    ]
    if open_to_others:
        names = ", ".join(str(path) for path in open_to_others[:3])
        hint = f"chmod 700 {folder}; chmod 600 {settings.database_path}*"
        yield Finding("folder", "note", f"Other users can read {names}.", hint)
    else:
        yield Finding("folder", "ok", f"{folder} can be read and written by you alone.")


def filesystem(settings: Settings) -> Iterator[Finding]:
    """Tell whether the database is on a file system with working locks."""
    folder = existing_folder(settings.database_path.parent)
    kind = _filesystem_of(folder)
    if kind in _REMOTE:
        hint = "Put the database on a local disk: --database, or DATABASE_PATH."
        yield Finding("filesystem", "problem", f"{folder} is on {kind}, over the network.", hint)
        return
    if os.access(folder, os.W_OK) and not _locks(folder):
        hint = "Put the database on a file system with locks."
        yield Finding("filesystem", "problem", f"{folder} ({kind}) has no working locks.", hint)
        return
    yield Finding("filesystem", "ok", f"{kind}, with working locks.")


def room(settings: Settings) -> Iterator[Finding]:
    """Tell whether a guarded migration has room."""
    folder = existing_folder(settings.backup_folder)
    free, needed = shutil.disk_usage(folder).free, room_needed(settings.database_path)
    sizes = f"{size(free)} free, a guarded migration needs {size(needed)}."
    if free < needed:
        yield Finding("room", "problem", sizes, "Free disk space, or prune with `db backup prune`.")
    else:
        yield Finding("room", "ok", sizes)


def clock(settings: Settings) -> Iterator[Finding]:
    """Tell whether the clock is behind the newest backup."""
    newest = max(
        (b.created_at for b in list_backups(settings.database_path, settings.backup_folder)),
        default="",
    )
    now = datetime.now(UTC)
    if newest and datetime.fromisoformat(newest) > now:
        hint = "Set the clock; new migrations would otherwise sort before old ones."
        yield Finding("clock", "problem", f"The newest backup is from the future: {newest}.", hint)
    else:
        yield Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC.")


def port(settings: Settings) -> Iterator[Finding]:
    """Tell whether the port is free, or who has it."""
    port = settings.gateway.port
    found = listeners(port) if port else {}
    holder = read_holder(settings.database_path)
    if holder is not None and holder.pid in found:
        yield Finding("port", "ok", f"{port} is served by this gateway.")
    elif set(found.values()) == {"systemd"} and systemctl.is_active(units.SOCKET):
        yield Finding("port", "ok", f"{port} is held by systemd, for the service.")
    elif found:
        who = ", ".join(f"{name} (pid {pid})" for pid, name in found.items())
        hint = "Stop that process, or choose another port: --port, or gateway.port."
        yield Finding("port", "note", f"{port} is in use by {who}.", hint)
    else:
        yield Finding("port", "ok", f"{port} is free.")


def tls(settings: Settings) -> Iterator[Finding]:
    """Tell whether clients can use the certificate, or send their tokens in clear text."""
    files, host = settings.tls_files, settings.gateway.host
    if files is None:
        if not _is_local(host):
            text = f"Without TLS, tokens for {host} can be read on their way."
            hint = "Set gateway.tls_cert and gateway.tls_key, or put a proxy with TLS in front."
            yield Finding("tls", "note", text, hint)
        return
    facts = check_certificate(*files)
    names = ", ".join(facts.names) or "no name"
    text = f"{files[0]} is for {names}, until {facts.ends_at:%Y-%m-%d %H:%M} UTC."
    if not facts.names:
        hint = "Clients refuse it: make one with a subjectAltName."
        yield Finding("tls", "problem", text, hint)
    elif facts.ends_soon:
        hint = "Put a new one there, then `local-mcp-gateway reload`."
        yield Finding("tls", "note", text, hint)
    else:
        yield Finding("tls", "ok", text)
    if _is_open(files[1]):
        hint = f"chmod 600 {files[1]}"
        yield Finding("tls", "note", f"Other users can read the key in {files[1]}.", hint)


def service(_: Settings) -> Iterator[Finding]:
    """Tell whether the systemd user service is installed, and how it is."""
    try:
        facts = systemctl.properties(units.SERVICE)
    except GatewayError:
        yield Finding("service", "note", "There is no systemd user manager here.")
        return
    path = facts.get("FragmentPath")
    if not path:
        yield Finding(
            "service", "note", "The service is not installed.", "`service install` does it."
        )
        return
    written = units.version_in(Path(path).read_text(encoding="utf-8"))
    if written not in (None, __version__):
        hint = "`service install` updates it."
        yield Finding("service", "note", f"The unit was written by version {written}.", hint)
    if failed := systemctl.set_up_failed(facts):
        yield Finding("service", "problem", failed.message, failed.hint)
    elif facts["ActiveState"] == "failed":
        yield Finding(
            "service", "problem", f"The service failed: {facts['StatusText']}", "See `startup`."
        )
    elif systemctl.lingers() is False:
        hint = "`service install --linger` lets it start at boot."
        yield Finding(
            "service", "note", f"{facts['ActiveState']}, only while you are logged in.", hint
        )
    else:
        yield Finding("service", "ok", f"{facts['ActiveState']}: {facts['StatusText']}")


def _is_open(path: Path) -> bool:
    """Tell whether other users may use a file or folder."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _filesystem_of(folder: Path) -> str:
    """Return the type of the file system that holds a folder: the longest mount point above it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    above = [
        (mount[1], mount[2])
        for mount in mounts
        if folder.resolve().is_relative_to(mount[1].replace("\\040", " "))
    ]
    return max(above, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


def _locks(folder: Path) -> bool:
    """Tell whether flock excludes a second open of one file, as the guard relies on."""
    with (
        tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as first,
        Path(first.name).open() as second,
    ):
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_local(host: str) -> bool:
    with suppress(ValueError):
        return is_loopback(host.strip("[]"))
    return host == "localhost"
