"""The options of one run of the service, what guard and gateway derive from them, and their reload.

A reload applies changed settings and pending migrations to the running service without losing a request.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from local_mcp_gateway import __version__
from local_mcp_gateway.backup.manifest import Retention
from local_mcp_gateway.database.connections import reading, table_names
from local_mcp_gateway.errors import ConfigProblem, MigrationsFolderProblem
from local_mcp_gateway.guard.context import GuardPolicy
from local_mcp_gateway.guard.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database.connections import Connection
    from local_mcp_gateway.database.pool import ConnectionPool
    from local_mcp_gateway.gateway import GatewayOptions
    from local_mcp_gateway.guard.context import Planner
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.service.process import StopEvent


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How one run differs from the settings."""

    settings: Settings
    reread: Callable[[], Settings]
    """Read the settings again, for a reload; raises ConfigProblem."""
    lock_timeout_s: float = 0.0
    dev: bool = False
    fresh: bool = False
    """An empty or missing database is meant to be new."""
    socket_fd: int | None = None
    """The listening socket that the dev supervisor holds."""
    config_files: tuple[Path, ...] = ()
    """What dev mode watches, in one folder, there or not: a save of one is a reload."""
    greet: Callable[[str, tuple[str, ...]], None] | None = None
    """Called with the URL and the profiles when everything is up: dev mode's lines to paste."""


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
    from local_mcp_gateway.migrate.sql_functions import register

    named = settings.migrations
    register(connection, named.functions, named.collations, named.extensions)


def planner(*, dev: bool) -> Planner:
    """Return the planner of a guarded run; in dev mode it first rewinds what the folder no longer contains."""
    if not dev:
        return make_plan
    from local_mcp_gateway.guard.rewind import make_plan_in_dev

    return make_plan_in_dev


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
    )


NEEDED = frozenset({"mcp_servers", "profiles", "profile_mcp_servers", "approved_tools"})


def require_gateway_tables(database: Path, migrations: Path) -> None:
    """Raise MigrationsFolderProblem unless the migrated database has the gateway's tables."""
    with reading(database) as reader:
        missing = sorted(NEEDED - table_names(reader))
    if missing:
        raise MigrationsFolderProblem(
            f"{database} cannot be used by the gateway: the migrations in {migrations} do not make the"
            f" gateway's own tables ({', '.join(missing)}).",
            hint="Leave --migrations out for the gateway; `db migrate` guards any other database.",
        )


LIVE = ("guard.", "backup.", "migrations.")
"""Settings that a reload puts in force at once. The others were handed out at the start: they are named
in `needs_restart`, since a setting that silently does nothing is worse than one that is refused."""


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
    progress: Callable[[str, int, int], None],
    stop: StopEvent,
) -> Reloaded:
    """Re-read the settings and apply what is pending; on an error everything stays as it was.

    Writers wait while the guard works, readers do not; no connection is closed.
    """
    import anyio.to_thread

    from local_mcp_gateway.guard.guard import hot_apply

    new = plan.reread()
    changed = changed_keys(old, new)
    async with database.pause_writes():
        start = time.perf_counter()
        report = await anyio.to_thread.run_sync(
            partial(
                hot_apply,
                old.database_path,
                new.migrations_folder,
                policy=guard_policy(new, dev=plan.dev),
                planner=planner(dev=plan.dev),
                emit=emit,
                progress=progress,
                stop=stop,
            )
        )
        paused_ms = round((time.perf_counter() - start) * 1000, 3)
    return Reloaded(
        settings=new,
        changed=changed,
        needs_restart=tuple(key for key in changed if not key.startswith(LIVE)),
        applied=tuple(step.tag for step in report.applied),
        paused_ms=paused_ms,
    )


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
