"""The options of one run of the service, what guard and gateway derive from them, and their reload.

A reload applies changed settings and pending migrations to the running service without losing a request.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway import __version__
from local_mcp_gateway.backup import Retention, list_asides, side_files, unsent_folder
from local_mcp_gateway.bundled import bundled, installed_version
from local_mcp_gateway.config import list_keys
from local_mcp_gateway.database import columns_of, reading
from local_mcp_gateway.errors import (
    ConfigProblem,
    HistoryRefused,
    MigrationsFolderProblem,
    ProgramReplaced,
)
from local_mcp_gateway.guard import GuardPolicy, make_plan
from local_mcp_gateway.log import rotated
from local_mcp_gateway.service.object_store import place_of
from local_mcp_gateway.service.runtime_paths import log_path
from local_mcp_gateway.store import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database import Connection, ConnectionPool, Progress, StopEvent
    from local_mcp_gateway.gateway import GatewayOptions
    from local_mcp_gateway.guard import GuardContext, Planner
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.migrate import Plan, Step


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How one run differs from the settings."""

    settings: Settings
    reread: Callable[[], Settings]
    """Read the settings again, for a reload; raises ConfigProblem."""
    lock_timeout_s: float = 0.0
    dev: bool = False
    supervisor: int | None = None
    """The dev supervisor's process: it starts a new worker when SIGUSR1 asks for one."""
    fresh: bool = False
    """An empty or missing database is meant to be new."""
    socket_fd: int | None = None
    """The listening socket that the dev supervisor holds."""
    config_files: tuple[Path, ...] = ()
    """What dev mode watches, in one folder, there or not: a save of one is a reload."""
    global_options: tuple[str, ...] = ()
    """The global options of the command line: commands that it runs get the same."""
    greet: Callable[[str, tuple[str, ...]], None] | None = None
    """Called with the URL and the profiles when everything is up: the lines to paste into a client."""

    @property
    def replicates(self) -> bool:
        """Tell whether this run keeps a replica."""
        wanted = self.settings.replica
        return bool(wanted.url) and (wanted.in_dev or not self.dev)


def guard_policy(
    settings: Settings,
    *,
    to: str | None = None,
    allow_out_of_order: bool = False,
    dev: bool = False,
    fresh: bool = False,
) -> GuardPolicy:
    """Return the guard's policy from the settings and one command's options."""
    return GuardPolicy(
        rehearse=settings.guard.rehearse,  # type: ignore[arg-type]  # a closed set, checked by config
        destructive=settings.guard.destructive,  # type: ignore[arg-type]
        hazards=_hazards(settings.guard.hazards),
        drift=settings.guard.drift,  # type: ignore[arg-type]
        backup_folder=settings.backup_folder,
        retention=Retention(settings.backup.keep_last, settings.backup.keep_daily_days),
        functions=settings.migrations.functions,
        collations=settings.migrations.collations,
        extensions=settings.migrations.extensions,
        quick_check_limit_s=settings.guard.quick_check_limit_s,
        full_check_limit_bytes=settings.guard.full_check_limit_bytes,
        compare_limit_values=settings.guard.compare_limit_values,
        allow_out_of_order=allow_out_of_order,
        to=to,
        fresh=fresh,
        journal_new_files=dev,
        keep_aside=settings.backup.keep_aside,
        program_version=__version__,
    )


def gateway_policy(settings: Settings, *, dev: bool, fresh: bool = False) -> GuardPolicy:
    """Return the guard's policy for the database that this process serves."""
    policy = guard_policy(settings, dev=dev, fresh=fresh)
    requires = partial(require_gateway_tables, migrations=settings.migrations_folder)
    return replace(policy, requires=requires)


def _hazards(severities: Mapping[str, str]) -> Mapping[str, str]:
    """Return the severities of `[guard.hazards]`; raises ConfigProblem for an unknown one."""
    if not severities:
        return severities
    from local_mcp_gateway.schema import HazardKind

    for kind, severity in severities.items():
        for value, known in ((kind, list(HazardKind)), (severity, ["ignore", "warn", "refuse"])):
            if value not in known:
                raise ConfigProblem(
                    f"guard.hazards has {kind} = {severity!r}, and {value!r} is unknown.",
                    hint=f"Known are {', '.join(known)}.",
                )
    return severities


def register_sql(settings: Settings, connection: Connection) -> None:
    """Register the functions, collations and extensions of the settings; raises ConfigProblem."""
    from local_mcp_gateway.migrate import register

    named = settings.migrations
    register(connection, named.functions, named.collations, named.extensions)


def planner(*, dev: bool) -> Planner:
    """Return the planner of a guarded run; in dev mode it first rewinds what the folder no longer contains."""
    return _make_plan_in_dev if dev else make_plan


def _make_plan_in_dev(context: GuardContext, *, fresh: bool) -> Plan:
    """Make the plan of a start or a save in dev mode, after a rewind if one is needed.

    A start rewinds here; a save does it separately, since its connections have to be closed first. A
    file that was applied and whose journal entry is gone, as after a stash, gets it back.
    """
    done: tuple[Step, ...] = ()
    try:
        plan = make_plan(context, fresh=fresh)
    except HistoryRefused:
        if context.serving or fresh:
            raise
        from local_mcp_gateway.guard import rewind_at_start  # most starts need none

        rewound = rewind_at_start(context)
        if rewound is None:
            raise
        done = rewound.steps
        plan = make_plan(context, fresh=fresh)
    if plan.journal_applied():
        plan = make_plan(context, fresh=fresh)
    return plan._replace(done=done)


def gateway_options(settings: Settings) -> GatewayOptions:
    """Return the gateway's options."""
    from local_mcp_gateway.gateway import GatewayOptions

    return GatewayOptions(
        default_profile=settings.gateway.default_profile,
        allowed_hosts=settings.gateway.allowed_hosts,
        allowed_origins=settings.gateway.allowed_origins,
        connect_timeout_s=settings.upstream.connect_timeout_s,
        call_timeout_s=settings.upstream.call_timeout_s,
        list_timeout_s=settings.upstream.list_timeout_s,
        idle_stop_s=settings.upstream.idle_stop_s,
        backoff_max_s=settings.upstream.backoff_max_s,
        log_payloads=settings.log.payloads,
        keep_calls=settings.log.keep_calls,
        hold_altered_tools=settings.upstream.altered_tools == "hold",
        hold_new_tools=settings.upstream.new_tools == "hold",
        max_message_bytes=settings.upstream.max_message_bytes,
        private_files=_private_files(settings),
    )


def _private_files(settings: Settings) -> tuple[str, ...]:
    """Return where the secrets of this gateway are: its keys, and the database with all that is made of it."""
    database = settings.database_path.resolve()
    log = log_path(database)
    found = [
        *(settings.secrets_key_file, settings.copy_key_file, settings.backup_folder, database),
        *(*side_files(database), *list_asides(database), unsent_folder(database)),
        *(database.with_name(database.name + ".token"), log, rotated(log), rotated(log.resolve())),
    ]
    # Problems are reported where these are used.
    with suppress(ConfigProblem):
        found += (settings.tls_files or ())[1:]
    with suppress(ConfigProblem):
        found += [key for key in (settings.replica_ssh_key, settings.copy_ssh_key) if key]
    with suppress(ConfigProblem):
        if isinstance(replica := place_of(settings.replica.url, "replica.url"), Path):
            found.append(replica)
    return tuple(map(str, found))


def require_gateway_tables(connection: Connection, migrations: Path) -> None:
    """Raise MigrationsFolderProblem unless a migrated database has the gateway's tables and columns."""
    found = columns_of(connection)
    missing = [table for table in COLUMNS if table not in found]
    missing += [
        f"{table}.{column}"
        for table, columns in COLUMNS.items()
        for column in columns.split()
        if table in found and column not in found[table]
    ]
    if missing:
        raise MigrationsFolderProblem(
            f"The gateway cannot use this database: the migrations in {migrations} do not make its own"
            f" tables as this program, {__version__}, needs them ({', '.join(missing)}).",
            hint="Leave --migrations out for the gateway; `db migrate` guards any other database.",
        )


def touches_gateway_tables(step: Step) -> bool:
    """Return whether a migration may have changed the gateway's own tables: itself, or by a trigger or an action."""
    if step.written is None:
        return True  # nobody watched
    texts = "\n".join(step.texts).lower()
    return any(table in texts or table in step.written for table in COLUMNS)


def check_gateway_tables(database: Path, migrations: Path) -> None:
    """Check the tables of a database that is not being migrated."""
    with reading(database) as reader:
        require_gateway_tables(reader, migrations)


def planner_of_reload(folder: Path, *, dev: bool) -> Planner:
    """Return the planner of a reload: it applies nothing that came with another version of the program."""
    make = planner(dev=dev)

    def plan(context: GuardContext, *, fresh: bool) -> Plan:
        made = make(context, fresh=fresh)
        installed = installed_version()
        if made.pending and installed != __version__ and folder == bundled("migrations"):
            raise ProgramReplaced(
                f"Version {installed} is installed, and {__version__} is running: it does not apply the"
                " migrations of another version."
            )
        return made

    return plan


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload."""

    settings: Settings
    changed: tuple[str, ...]
    needs_restart: tuple[str, ...]
    applied: tuple[str, ...]
    paused_ms: float

    def as_fields(self) -> dict[str, object]:
        """Return the fields of `service.reloaded` and of `reload --json`."""
        return {
            "changed": list(self.changed),
            "needs_restart": list(self.needs_restart),
            "applied": list(self.applied),
            "paused_ms": self.paused_ms,
        }


async def reload(
    plan: ServeOptions,
    old: Settings,
    database: ConnectionPool,
    emit: Emit,
    progress: Progress,
    stop: StopEvent,
    replicate: Callable[[GuardContext, str], int | None] | None = None,
) -> Reloaded:
    """Re-read the settings and apply what is pending; on an error everything stays as it was.

    Writers wait while the guard works, readers do not; no connection is closed.
    """
    import anyio.to_thread

    from local_mcp_gateway.guard import hot_apply

    new = plan.reread()
    changed = changed_keys(old, new)
    async with database.pause_writes():
        start = time.perf_counter()
        report = await anyio.to_thread.run_sync(
            partial(
                hot_apply,
                old.database_path,
                new.migrations_folder,
                policy=replace(gateway_policy(new, dev=plan.dev), replicate=replicate),
                planner=planner_of_reload(new.migrations_folder, dev=plan.dev),
                emit=emit,
                progress=progress,
                stop=stop,
            )
        )
        paused_ms = round((time.perf_counter() - start) * 1000, 3)
    return Reloaded(
        settings=new,
        changed=changed,
        needs_restart=waiting_keys(changed, dev=plan.dev),
        applied=tuple(step.tag for step in report.applied),
        paused_ms=paused_ms,
    )


async def restore(
    settings: Settings,
    database: ConnectionPool,
    name: str,
    *,
    dev: bool,
    emit: Emit,
    progress: Progress,
    stop: StopEvent,
) -> dict[str, object]:
    """Replace the database that this process serves by a backup; calls wait for it.

    On an error everything stays as it was. What the backup does not have is pending afterwards.
    """
    import anyio.to_thread

    from local_mcp_gateway.guard import GuardContext, find_to_restore, restore_held

    path = settings.database_path
    policy = gateway_policy(settings, dev=dev)
    context = GuardContext(
        path, settings.migrations_folder, policy, emit=emit, progress=progress, stop=stop
    )
    backup = await anyio.to_thread.run_sync(find_to_restore, path, name, settings.backup_folder)
    async with database.release_file():
        done = await anyio.to_thread.run_sync(restore_held, context, backup)
    return {"restored": backup.name, "replaced": None if done.aside is None else str(done.aside)}


def changed_keys(old: Settings, new: Settings) -> tuple[str, ...]:
    """Return `section.key` of every setting whose value differs."""
    before, after = asdict(old), asdict(new)
    return tuple(
        f"{section}.{key}"
        for section in before
        if section != "origins"
        for key in before[section]
        if before[section][key] != after[section][key]
    )


def waiting_keys(changed: tuple[str, ...], *, dev: bool) -> tuple[str, ...]:
    """Return the changed settings that a reload cannot apply; dev mode watches the folder of its start."""
    at_start = {key.path for key in list_keys() if key.restart}
    if dev:
        at_start.add("migrations.folder")
    return tuple(key for key in changed if key in at_start)
