"""The checks of `doctor`: what is wrong with this installation, and how to fix it.

Each check is a function from the settings to findings. None takes the database's lock, and none writes
anything but a temporary file. A check that itself fails becomes a finding.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from local_mcp_gateway.backup import StoreError, list_backups, not_copied, read_record
from local_mcp_gateway.database import columns_of, read_holder, reading, table_names
from local_mcp_gateway.errors import CopyFailed, GatewayError
from local_mcp_gateway.formats import counted, size
from local_mcp_gateway.guard import get_status
from local_mcp_gateway.service.doctor import machine
from local_mcp_gateway.service.doctor.finding import Finding
from local_mcp_gateway.service.object_store import (
    Access,
    Bucket,
    SshFolder,
    place_of,
    require_folder,
    require_keys,
)
from local_mcp_gateway.service.options import register_sql
from local_mcp_gateway.service.secrets import BucketKeys, check_secrets
from local_mcp_gateway.store import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from local_mcp_gateway.config import Settings

OLD_BACKUP_DAYS = 30


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
        name = check.__name__
        try:
            yield from check(settings)
        except GatewayError as error:
            yield Finding(name, "problem", error.message, error.hint)
        except OSError as error:
            yield Finding(name, "problem", f"It cannot be checked: {error}.")
    yield from replica_state(settings, replica)
    yield clients_here(clients)
    yield from running(servers)


def lock(settings: Settings) -> Iterator[Finding]:
    """Tell who holds the database."""
    holder = read_holder(settings.database_path)
    if holder is None:
        yield Finding("lock", "ok", "Nobody holds the database.")
    else:
        yield Finding(
            "lock", "ok", f"Held by process {holder.pid} since {holder.since}: {holder.command}."
        )


def database(settings: Settings) -> Iterator[Finding]:
    """Tell what a start would meet: its history, its schema, what is pending."""
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
        yield Finding(
            "database", "ok", f"{seen.state}, {counted(len(seen.applied), 'migration')} applied."
        )


def backups(settings: Settings) -> Iterator[Finding]:
    """Tell how old the newest backup is."""
    backups = list_backups(settings.database_path, settings.backup_folder)
    if not backups and not settings.database_path.exists():
        yield Finding("backups", "ok", "There is nothing to back up yet.")
        return
    if not backups:
        yield Finding("backups", "note", "There is none yet.", "`db backup create` makes one.")
        return
    age = datetime.now(UTC) - datetime.fromisoformat(backups[0].created_at)
    newest = f"{counted(age.days, 'day')} old" if age.days else "of the last 24 hours"
    text = f"{len(backups)}, the newest {newest}."
    if age.days > OLD_BACKUP_DAYS:
        yield Finding("backups", "note", text, "`db backup create` makes one.")
    else:
        yield Finding("backups", "ok", text)


def copies(settings: Settings) -> Iterator[Finding]:
    """Tell whether a lost machine would take the backups along; asks nothing of the network."""
    url, folder = settings.backup.copy_to.rstrip("/"), settings.backup_folder
    if not url:
        hint = "`[backup] copy_to` copies them elsewhere, encrypted."
        yield Finding("copies", "note", "Backups are on this machine alone.", hint)
        return
    place = place_of(url, "backup.copy_to")
    Access.of(settings, "backup").require_usable(place)
    if isinstance(place, Bucket):
        BucketKeys.of(settings, "backup").variables()
    if (finding := _without_keys("copies", place, Access.of(settings, "backup"))) is not None:
        yield finding
        return
    backups = list_backups(settings.database_path, folder)
    record = read_record(settings.database_path, folder).at(url)
    missing = not_copied(backups, record)
    if (failure := record.failure) is None and isinstance(place, Path):
        require_folder(place, CopyFailed)
    if failure is not None:
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
    if isinstance(place, Path) and _same_disk(place, folder):
        text = f"{place} is on the same disk as the backups."
        yield Finding("copies", "note", text, "Take another disk, an S3 bucket or an SFTP server.")
    key = settings.copy_key_file
    if key.exists():
        text = f"{key} opens the copies, and a lost machine takes it along."
        hint = "Keep a copy of it elsewhere; here it is needed for a restore only."
        yield Finding("copies", "note", text, hint)


def secrets(settings: Settings) -> Iterator[Finding]:
    """Tell whether the keys open every sealed value."""
    yield from (Finding("secrets", *result) for result in check_secrets(settings))


def replica_state(settings: Settings, live: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Tell how the replica is; `live` is what a running gateway reports of it."""
    url = settings.replica.url
    if not url:
        hint = "Set replica.url to have a copy off this machine, seconds behind."
        yield Finding(
            "replica", "note", "There is none: a lost disk takes database and backups.", hint
        )
        return
    from local_mcp_gateway.service.replica import Target

    try:
        target = Target.of(settings)
        target.variables()
    except GatewayError as problem:
        yield Finding("replica", "problem", problem.message, problem.hint)
        return
    if (finding := _without_keys("replica", target.place, target.access)) is not None:
        yield finding
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


def _without_keys(check: str, place: Path | Bucket | SshFolder, access: Access) -> Finding | None:
    """Return what keeps this machine from logging in to an SFTP server, if anything here does."""
    try:
        require_keys(place, access)
    except StoreError as error:
        text = f"{error.reason[:1].upper()}{error.reason[1:]}"
        return Finding(check, "problem", text, error.hint or "")
    except ImportError as error:
        hint = f"`pip install 'local-mcp-gateway[{check}]'`"
        return Finding(check, "problem", f"SFTP needs {error.name}, which is not installed.", hint)
    return None


def _last_check(url: str, checked_at: str | None) -> Finding:
    """Tell when the replica was last restored and compared."""
    if checked_at is None:
        hint = "`replica check` restores it next to the database and compares every row."
        return Finding("replica", "note", f"{url} was never checked.", hint)
    age = datetime.now(UTC) - datetime.fromisoformat(checked_at)
    text = f"{url} was checked in the last 24 hours."
    if age.days:
        text = f"{url} was last checked {counted(age.days, 'day')} ago."
    if age.days > OLD_BACKUP_DAYS:
        return Finding("replica", "note", text, "`replica check` does it.")
    return Finding("replica", "ok", text)


def _same_disk(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.stat().st_dev == other.stat().st_dev
    return False


def upstreams(settings: Settings) -> Iterator[Finding]:
    """Tell whether the commands of the stdio servers exist, and what else is odd about the servers."""
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
    if not commands:
        yield Finding("upstreams", "ok", "No server is a command of this machine.")
    elif not missing:
        count = counted(len(commands), "stdio server")
        yield Finding("upstreams", "ok", f"{count}: every command exists.")


def running(servers: Mapping[str, Mapping[str, str | None]]) -> Iterator[Finding]:
    """Tell which servers of a running gateway have a problem."""
    for server, live in servers.items():
        if reason := live["reason"]:
            failed = live["state"] in {"failed", "needs_sign_in"}
            hint = f"Try it with `server test {server}`."
            if live["state"] == "needs_sign_in":
                hint = f"Sign in with `server login {server}`."
            state: Literal["note", "problem"] = "problem" if failed else "note"
            yield Finding("server", state, f"{server}: {reason}.", hint)


def clients_here(titles: Sequence[str]) -> Finding:
    """Tell which MCP clients on this machine point to this gateway, by their titles."""
    if titles:
        verb = "points" if len(titles) == 1 else "point"
        return Finding("clients", "ok", f"{', '.join(titles)} {verb} to this gateway.")
    hint = "`connect` shows how, `connect CLIENT` does it."
    return Finding("clients", "note", "No client on this machine points to this gateway.", hint)


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
    machine.python, machine.engine, machine.folder, machine.filesystem, machine.room,
    lock, database, backups, copies, secrets,
    machine.clock, machine.port, machine.tls, machine.service,
    upstreams,
)  # fmt: skip
