"""The checks of `doctor`: what is wrong with this machine or installation, and how to fix it.

Each check is a function from the settings to findings. None takes the database's lock, and none writes
anything but a temporary file. A check that itself fails becomes a finding.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from local_mcp_gateway import __version__
from local_mcp_gateway.backup import (
    existing_folder,
    list_backups,
    not_copied,
    read_record,
    room_needed,
)
from local_mcp_gateway.database import columns_of, examine_engine, read_holder, reading, table_names
from local_mcp_gateway.errors import GatewayError
from local_mcp_gateway.formats import counted, size
from local_mcp_gateway.guard import get_status
from local_mcp_gateway.service.http import check_certificate, is_loopback, listeners
from local_mcp_gateway.service.object_store import folder_of
from local_mcp_gateway.service.options import register_sql
from local_mcp_gateway.service.secrets import BucketKeys, check_secrets
from local_mcp_gateway.service.systemd import systemctl, units
from local_mcp_gateway.store import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from local_mcp_gateway.config import Settings

OLD_BACKUP_DAYS = 30
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "afs", "glusterfs"}
"""File systems on which SQLite's locks or WAL shared memory are unreliable."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    state: Literal["ok", "note", "problem"]
    message: str
    hint: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as `doctor --json` prints it."""
        return asdict(self)


def examine(
    settings: Settings,
    serving: GatewayError | None = None,
    servers: Mapping[str, Mapping[str, str | None]] = MappingProxyType({}),
    clients: Sequence[str] = (),
    replica: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Yield the findings of every check, in the order in which a start would meet them.

    `serving`, `servers` and `replica` are what a running gateway reports about itself, its servers and its
    replica; `clients` are the MCP clients on this machine that point to it.
    """
    if serving is not None:
        yield Finding("gateway", "problem", serving.message, serving.hint)
    for check in _CHECKS:
        name = check.__name__.strip("_")
        try:
            yield from check(settings)
        except GatewayError as error:
            yield Finding(name, "problem", error.message, error.hint)
        except OSError as error:
            yield Finding(name, "problem", f"It cannot be checked: {error}.")
    yield from _replica(settings, replica)
    yield _clients(clients)
    for server, live in servers.items():
        if reason := live["reason"]:
            failed = live["state"] in {"failed", "needs_sign_in"}
            hint = f"Try it with `server test {server}`."
            if live["state"] == "needs_sign_in":
                hint = f"Sign in with `server login {server}`."
            state: Literal["note", "problem"] = "problem" if failed else "note"
            yield Finding("server", state, f"{server}: {reason}.", hint)


def _python(_: Settings) -> Iterator[Finding]:
    yield Finding(
        "python", "ok", f"Python {sys.version.split()[0]}, Local MCP Gateway {__version__}."
    )


def _engine(_: Settings) -> Iterator[Finding]:
    engine = examine_engine()
    yield Finding("sqlite", "problem" if engine.hint else "ok", engine.message, engine.hint)


def _clock(settings: Settings) -> Iterator[Finding]:
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


def _folder(settings: Settings) -> Iterator[Finding]:
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


def _is_open(path: Path) -> bool:
    """Tell whether other users may use a file or folder."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _filesystem(settings: Settings) -> Iterator[Finding]:
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


def _room(settings: Settings) -> Iterator[Finding]:
    folder = existing_folder(settings.backup_folder)
    free, needed = shutil.disk_usage(folder).free, room_needed(settings.database_path)
    sizes = f"{size(free)} free, a guarded migration needs {size(needed)}."
    if free < needed:
        yield Finding("room", "problem", sizes, "Free disk space, or prune with `db backup prune`.")
    else:
        yield Finding("room", "ok", sizes)


def _lock(settings: Settings) -> Iterator[Finding]:
    holder = read_holder(settings.database_path)
    if holder is None:
        yield Finding("lock", "ok", "Nobody holds the database.")
    else:
        yield Finding(
            "lock", "ok", f"Held by process {holder.pid} since {holder.since}: {holder.command}."
        )


def _database(settings: Settings) -> Iterator[Finding]:
    seen = get_status(
        settings.database_path,
        settings.migrations_folder,
        backup_folder=settings.backup_folder,
        prepare=partial(register_sql, settings),
    )
    if seen.read_only:
        hint = f"Let this user write it: chmod u+w {seen.database}."
        yield Finding("database", "problem", f"{seen.database} can only be read.", hint)
    for problem in seen.problems:
        yield Finding("database", "problem", problem.message, problem.hint)
    if seen.drift:
        names = ", ".join(difference.object for difference in seen.drift[:3])
        hint = seen.drift_hint or "See `db diff`."
        yield Finding("database", "note", f"Its schema was changed by hand: {names}.", hint)
    if seen.pending:
        one = len(seen.pending) == 1
        text = "1 migration is" if one else f"{len(seen.pending)} migrations are"
        them = "it" if one else "them"
        hint = f"The next start applies {them}; `db rehearse` tries {them} now."
        yield Finding("database", "note", f"{text} pending.", hint)
    if not (seen.problems or seen.drift or seen.pending):
        yield Finding("database", "ok", f"{seen.state}, {len(seen.applied)} migrations applied.")


def _backups(settings: Settings) -> Iterator[Finding]:
    backups = list_backups(settings.database_path, settings.backup_folder)
    if not backups:
        yield Finding("backups", "note", "There is none yet.", "`db backup create` makes one.")
        return
    age = datetime.now(UTC) - datetime.fromisoformat(backups[0].created_at)
    text = f"{len(backups)}, the newest {age.days} days old."
    if age.days > OLD_BACKUP_DAYS:
        yield Finding("backups", "note", text, "`db backup create` makes one.")
    else:
        yield Finding("backups", "ok", text)


def _replica(settings: Settings, live: Mapping[str, Any] | None) -> Iterator[Finding]:
    url = settings.replica.url
    if not url:
        hint = "Set replica.url to have a copy off this machine, seconds behind."
        yield Finding(
            "replica", "note", "There is none: a lost disk takes database and backups.", hint
        )
        return
    from local_mcp_gateway.service.replica import Target

    try:
        Target.of(settings).variables()
    except GatewayError as problem:
        yield Finding("replica", "problem", problem.message, problem.hint)
        return
    if live is None:
        yield Finding("replica", "note", f"{url}: no gateway runs that replicates to it.")
    elif live["state"] in {"failed", "behind"}:
        since = "since the start" if live["behind_s"] is None else f"for {live['behind_s']:g} s"
        reason = live["problem"] or f"it has not had everything {since}."
        yield Finding("replica", "problem", f"{url}: {reason}", live["hint"] or "See `logs`.")
    else:
        back = f", back to {live['oldest']}" if live["oldest"] else ""
        behind = (
            f", {live['behind_s']:g} s and {size(live['behind_bytes'] or 0)} behind"
            if live["behind_s"]
            else ""
        )
        yield Finding("replica", "ok", f"{url}: {live['state']}{behind}{back}.")
    if live is not None and live["state"] != "failed":
        yield _last_check(url, live["checked_at"])


def _last_check(url: str, checked_at: str | None) -> Finding:
    """Tell when the replica was last restored and compared."""
    if checked_at is None:
        hint = "`replica check` restores it beside the database and compares every row."
        return Finding("replica", "note", f"{url} was never checked.", hint)
    age = datetime.now(UTC) - datetime.fromisoformat(checked_at)
    text = f"{url} was last checked {age.days} days ago."
    if age.days > OLD_BACKUP_DAYS:
        return Finding("replica", "note", text, "`replica check` does it.")
    return Finding("replica", "ok", text)


def _copies(settings: Settings) -> Iterator[Finding]:
    """Tell whether a lost machine would take the backups along; asks nothing of the network."""
    url, folder = settings.backup.copy_to.rstrip("/"), settings.backup_folder
    if not url:
        hint = "`[backup] copy_to` copies them elsewhere, encrypted."
        yield Finding("copies", "note", "Backups are on this machine alone.", hint)
        return
    place = folder_of(url, "backup.copy_to")
    if place is None:
        BucketKeys.of(settings, "backup").variables()
    backups = list_backups(settings.database_path, folder)
    record = read_record(settings.database_path, folder).at(url)
    missing = not_copied(backups, record)
    if (failure := record.failure) is not None:
        text = f"{failure.message} That was at {failure.at}; {counted(len(missing), 'backup')} not copied."
        yield Finding("copies", "problem", text, failure.hint)
    elif missing:
        text = f"{counted(len(missing), 'backup')} of {len(backups)} not copied to {url} yet."
        yield Finding(
            "copies", "note", text, "A running gateway does it; `db backup copy` does it now."
        )
    else:
        there = ""
        if times := sorted(record.copied.values()):
            there = (
                f" Copies from {times[0]} on, last compared with what is there {record.listed_at}."
            )
        text = f"{counted(len(backups), 'backup')}, all copied to {url}.{there}"
        yield Finding("copies", "ok", text)
    if place is not None and _same_disk(place, folder):
        text = f"{place} is on the same disk as the backups."
        yield Finding("copies", "note", text, "Take another disk, or s3://bucket/path.")
    key = settings.copy_key_file
    if key.exists():
        text = f"{key} opens the copies, and a lost machine takes it along."
        hint = "Keep a copy of it elsewhere; here it is needed for a restore only."
        yield Finding("copies", "note", text, hint)


def _same_disk(one: Path, other: Path) -> bool:
    return one.is_dir() and other.is_dir() and one.stat().st_dev == other.stat().st_dev


def _secrets(settings: Settings) -> Iterator[Finding]:
    yield from (Finding("secrets", *result) for result in check_secrets(settings))


def _port(settings: Settings) -> Iterator[Finding]:
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


def _tls(settings: Settings) -> Iterator[Finding]:
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


def _is_local(host: str) -> bool:
    with suppress(ValueError):
        return is_loopback(host.strip("[]"))
    return host == "localhost"


def _service(_: Settings) -> Iterator[Finding]:
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


def _clients(titles: Sequence[str]) -> Finding:
    if titles:
        verb = "points" if len(titles) == 1 else "point"
        return Finding("clients", "ok", f"{', '.join(titles)} {verb} to this gateway.")
    hint = "`connect` shows how, `connect CLIENT` does it."
    return Finding("clients", "note", "No client on this machine points to this gateway.", hint)


def _upstreams(settings: Settings) -> Iterator[Finding]:
    if not settings.database_path.exists():
        return
    with reading(settings.database_path) as reader:
        found = columns_of(reader).get("mcp_servers", set())
        known = found.issuperset(COLUMNS["mcp_servers"].split())
        rows = reader.execute("SELECT * FROM mcp_servers WHERE active = 1") if known else None
        columns = [column[0] for column in rows.description] if rows else []
        servers = [dict(zip(columns, row, strict=True)) for row in rows or ()]
    commands = [
        (str(server["name"]), str(server["command"]))
        for server in servers
        if server["kind"] == "stdio"
    ]
    for name in [str(server["name"]) for server in servers if server.get("insecure")]:
        yield Finding(
            "upstreams",
            "note",
            f"{name}: its certificate is not checked.",
            f"If you can, name its authority: `server edit {name} --secure --ca FILE`.",
        )
    boxed = [str(server["name"]) for server in servers if server.get("sandbox")]
    if commands:
        yield from _sandboxes(boxed)
    yield from _names(settings)
    missing = [(name, command) for name, command in commands if shutil.which(command) is None]
    for name, command in missing:
        hint = f"Install it, or give its full path: `server edit {name} -- PATH …`."
        yield Finding(
            "upstreams", "problem", f"{name}: the command {command!r} is not found.", hint
        )
    if not missing:
        yield Finding(
            "upstreams", "ok", f"The commands of all {len(commands)} stdio servers exist."
        )


def _sandboxes(names: Sequence[str]) -> Iterator[Finding]:
    """Tell what a sandbox on this machine cannot do; `names` are the servers that have one."""
    from local_mcp_gateway.gateway import NoSandbox, sandbox_gaps

    boxed = ", ".join(names) or "No server has one"
    try:
        gaps = sandbox_gaps()
    except NoSandbox as problem:
        hint = "A newer kernel, or `server edit NAME --no-sandbox`: they do not start without it."
        if names:
            yield Finding("sandbox", "problem", f"{boxed}: {problem}.", hint)
        else:
            yield Finding("sandbox", "note", f"{boxed}, and none can: {problem}.")
        return
    for gap in gaps:
        yield Finding("sandbox", "note", f"{boxed}: in a sandbox {gap}.", "Use a newer kernel.")
    if not gaps and names:
        yield Finding("sandbox", "ok", f"The kernel has all that the sandbox of {boxed} needs.")
    elif not gaps:
        yield Finding("sandbox", "ok", f"{boxed}; this kernel has all that it needs.")


def _names(settings: Settings) -> Iterator[Finding]:
    """Tell which tools get another name, because model APIs refuse theirs."""
    from local_mcp_gateway.gateway import fitting, remembered
    from local_mcp_gateway.store import CatalogKind

    with reading(settings.database_path) as reader:
        if "mcp_server_catalog_cache" not in table_names(reader):
            return
        lists = reader.execute(
            "SELECT s.name, c.body FROM mcp_servers s JOIN mcp_server_catalog_cache c"
            " ON c.mcp_server_id = s.id WHERE c.kind = 'tools' AND s.active = 1 ORDER BY s.name"
        ).fetchall()
    for server, body in lists:
        tools = [item.key for item in remembered(CatalogKind.TOOLS, body)]
        refused = [tool for tool in tools if fitting(tool) != tool]
        if refused:
            first = refused[0]
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            shown = (
                f"{server}: model APIs refuse the tool name {first!r}, so it is shown as"
                f" {fitting(first)!r}{more}."
            )
            hint = f"Give it another: `profile tool PROFILE {server} {first} --rename NAME`."
            yield Finding("upstreams", "note", shown, hint)


_CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python, _engine, _folder, _filesystem, _room, _lock, _database, _backups, _copies, _secrets, _clock, _port,
    _tls, _service, _upstreams,
)  # fmt: skip


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
