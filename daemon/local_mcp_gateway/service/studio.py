"""Give the studio what its pages may use: the verbs of a running gateway, or one database alone.

Work that reads or copies the whole database (a rehearsal, a backup) is done by a command of its own, as
a person would run it: this process may open the file that it serves through SQLite only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.streams.text import TextReceiveStream

from local_mcp_gateway.database import PROGRESS_LINES, no_progress, read_progress, reading
from local_mcp_gateway.errors import GatewayError, UsageProblem
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.service.admin import client_entries, parse_client_file, relayed
from local_mcp_gateway.service.history import read_starts, start_as_json
from local_mcp_gateway.service.http import serving, url_of
from local_mcp_gateway.service.options import register_sql
from local_mcp_gateway.store import SEALED_COLUMNS, AuditEntry, save_audit
from local_mcp_gateway.studio import Door, Powers, Studio

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from anyio.abc import ByteReceiveStream

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database import ConnectionPool, Progress
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.service.admin import OwnAddress
    from local_mcp_gateway.studio import Ask

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "rehearse": ("db", "rehearse", "--json"),
    "backup": ("db", "backup", "create", "--json"),
    "verify": ("db", "backup", "verify", "--json"),
    "restore": ("db", "restore", "--yes", "--json"),
    "compare": ("db", "diff", "--from", "database", "--to", "schema", "--json"),
    "draft": ("db", "generate", "--dry-run", "--json"),
    "generate": ("db", "generate", "--no-renames", "--yes", "--json"),
}
TAKING_OPTIONS: Final = frozenset({"draft", "generate"})
"""Their arguments are options, each with its values; those of the others are names."""
STOP_S: Final = 1.0
PROTECTED: Final = frozenset({"audit_log"})
"""What the gateway only ever adds to."""
SECRET: Final = frozenset(
    {
        *(("mcp_servers", column) for column in (*SEALED_COLUMNS, "args", "url", "proxy")),
        ("oauth_tokens", "sealed_access_token"),
        ("oauth_tokens", "sealed_refresh_token"),
        ("oauth_client_registrations", "sealed_client_secret"),
        ("client_tokens", "hash"),
    }
)
"""What is sealed, and what may hold a secret as it was written; a server's own page shows the rest of that."""


def studio_of(
    settings: Settings,
    *,
    own: OwnAddress,
    pool: ConnectionPool,
    ask: Ask,
    default_profile: Callable[[], str],
    changed: Callable[[], Awaitable[None]],
    emit: Emit,
    options: Sequence[str],
) -> Studio:
    """Return the studio of a running gateway; `options` led the command line to its settings."""
    powers = Powers(
        database=settings.database_path,
        migrations=settings.migrations_folder,
        backups=settings.backup_folder,
        ask=partial(_asked, ask),
        pool=pool,
        work=partial(run_command, _options(settings, options)),
        look=partial(reading, locked=True),
        prepare=partial(register_sql, settings),
        record=_record,
        changed=changed,
        own=own.url,
        default_profile=default_profile,
        client_entries=client_entries,
        client_document=settings.upstream.client_metadata_url,
        writable=True,
        last_start=partial(_last_start, settings.database_path),
        emit=emit,
        protected=PROTECTED,
        masked=SECRET,
    )
    hosts = (*settings.gateway.allowed_hosts, own.host.strip("[]"), *(own.names or ()))
    # Browsers send a cookie to every port of a host, so its name says whose it is.
    return Studio(powers, Door(hosts, cookie=f"studio_{own.port}", secure=own.names is not None))


async def serve_database(
    database: Path,
    listener: socket.socket,
    *,
    migrations: Path | None,
    backups: Path | None,
    writable: bool,
    emit: Emit,
    ready: Callable[[str], None],
) -> None:
    """Serve the pages of one database until a signal; `ready` is called with the link. Takes no lock."""
    with reading(database):
        pass  # what cannot be read is refused before anything is served
    url = url_of(listener)
    options: tuple[str, ...] = ("--database", str(database))
    if migrations is not None:
        options += ("--migrations", str(migrations))
    powers = Powers(
        database=database,
        migrations=migrations,
        backups=backups,
        work=partial(run_command, options) if writable and migrations is not None else None,
        own=url,
        writable=writable,
        emit=emit,
    )
    studio = Studio(powers, Door(cookie=f"studio_{url.rpartition(':')[2]}"))
    studio.prepare()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def again() -> None:
            await anext(signals)

        async with serving(
            studio, listener, emit=emit, drain_timeout_s=STOP_S, second_signal=again
        ):
            ready(url + studio.link())
            await anext(signals)


async def _record(writer: ConnectionPool, action: str, table: str, detail: str | None) -> None:
    """Put a change of rows into the audit, in its transaction."""
    await save_audit(writer, [AuditEntry(now_ms(), "pages", None, action, table, "ok", detail)])


async def _asked(
    ask: Ask, verb: str, arguments: dict[str, Any], progress: Progress = no_progress
) -> Any:
    """Run one verb, as a command does: a client's file is read before it is sent on."""
    if verb == "server.import":
        arguments["document"] = _document(arguments["document"])
    return await ask(verb, arguments, progress)


def _document(text: str) -> object:
    try:
        return parse_client_file(text.encode())
    except ValueError as error:
        raise UsageProblem(
            f"The text cannot be read: {error}.",
            hint="Paste the whole file, JSON or JSON with comments.",
        ) from None


def _options(settings: Settings, given: Sequence[str]) -> tuple[str, ...]:
    """Return the global options that lead a command to this database and this folder."""
    return (
        *given,
        *("--database", str(settings.database_path)),
        *("--migrations", str(settings.migrations_folder)),
    )


def _last_start(database: Path) -> Mapping[str, Any] | None:
    starts = read_starts(database, last=1)
    return start_as_json(starts[0]) if starts else None


async def _run(command: Sequence[str], progress: Progress) -> tuple[int, bytes, list[str]]:
    """Run a command; return its exit code, its output, and what it says on stderr besides its progress."""
    output, said = bytearray(), []

    async def keep(stream: ByteReceiveStream) -> None:
        async for chunk in stream:
            output.extend(chunk)

    async with (
        await anyio.open_process(command, env={**os.environ, PROGRESS_LINES: "1"}) as process,
        anyio.create_task_group() as tasks,
    ):
        assert process.stdout, "it is a pipe"
        assert process.stderr, "it is a pipe"
        tasks.start_soon(keep, process.stdout)
        left = ""
        async for text in TextReceiveStream(process.stderr, errors="replace"):
            *lines, left = (left + text).split("\n")
            for line in lines:
                if (report := read_progress(line)) is not None:
                    progress(*report)
                else:
                    said.append(line)
        said.append(left)
    assert process.returncode is not None, "it was waited for"
    return process.returncode, bytes(output), [line for line in said if line.strip()]


async def run_command(
    options: Sequence[str],
    verb: str,
    arguments: Mapping[str, Any],
    progress: Progress = no_progress,
) -> Any:
    """Run a command of the guard to its end and return what it prints; raises what it reports."""
    if verb in TAKING_OPTIONS:
        named = [f"--{key}={value}" for key, given in arguments.items() for value in given]
    else:
        named = [str(value) for value in arguments.values()]
        if any(name.startswith("-") for name in named):
            raise UsageProblem(
                f"{named[0]!r} is not the name of a backup.", hint="Choose one of the list."
            )
    command = [sys.executable, "-m", "local_mcp_gateway", *options, *COMMANDS[verb], *named]
    code, output, said = await _run(command, progress)
    try:
        value = parse_json(output)
    except ValueError:
        raise GatewayError(said[-1] if said else f"`{verb}` ended with {code}.") from None
    if isinstance(value, dict) and "error" in value:
        raise relayed(value["error"])
    failed = [one for one in value if not one.get("ok", True)] if isinstance(value, list) else []
    if failed:
        raise GatewayError(
            json.dumps(failed[0].get("problem")), hint="Keep it, and make a new backup."
        )
    return value
