"""`service …` installs and controls the systemd user service; `startup` shows how the last starts went."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from local_mcp_gateway import __version__, formats
from local_mcp_gateway.cli import ui
from local_mcp_gateway.cli.client import serving_status, warn_of_another_version
from local_mcp_gateway.cli.connect import address_of
from local_mcp_gateway.cli.lazy_group import LazyGroup, Target
from local_mcp_gateway.config import DEFAULT_KEY_FILE, ENVIRONMENT_PREFIX
from local_mcp_gateway.errors import Exit, GatewayError, NoServiceManager, UsageProblem
from local_mcp_gateway.service.admin import client_lines
from local_mcp_gateway.service.history import Start, phases_of, read_starts, start_as_json
from local_mcp_gateway.service.secrets import make_first_key
from local_mcp_gateway.service.systemd import systemctl, units

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.cli.context import Invocation

COMMANDS = {
    "install": Target("service:install", "Write the unit, start it, and show the start."),
    "status": Target("service:status", "Tell whether it is installed and runs, or why not."),
    "start": Target("service:start", "Start it, and show the start."),
    "stop": Target("service:stop", "Stop it; calls in flight may end first."),
    "restart": Target("service:restart", "Stop it and start it again, as after an upgrade."),
    "logs": Target("logs:logs", "The gateway's log, rendered."),
    "uninstall": Target("service:uninstall", "Stop it and remove its units; the data stays."),
}
_COLOURS = {"ready": "green", "refused": "red", "failed": "red"}


@click.group(cls=LazyGroup, table=COMMANDS)
def service() -> None:
    """Run the gateway as a systemd user service: at login, or at boot with --linger."""


@click.command()
@click.option(
    "--socket",
    "with_socket",
    is_flag=True,
    help="Let systemd hold the port: no client is ever refused. Kept by later installs.",
)
@click.option("--linger", is_flag=True, help="Start at boot, not only at login.")
@click.pass_obj
def install(invocation: Invocation, *, with_socket: bool, linger: bool) -> int:
    """Write this installation's unit, start it, and show the start.

    Running it again changes nothing unless the program, its path or its options have changed.
    """
    installation = _installation(invocation)
    folder = units.unit_folder()
    with_socket = with_socket or (folder / units.SOCKET).exists()
    invocation.prepare_folder()
    units.make_caches(Path.home())
    # The unit loads the key at its start and cannot create it: its folder is read-only there.
    if make_first_key(invocation.settings):
        key_file = invocation.settings.secrets_key_file
        ui.tell(f"{key_file}: keep a copy, apart from the backups", mark="created    ")
    done = {
        units.SERVICE: units.write_unit(units.SERVICE, units.service_text(installation), folder)
    }
    if with_socket:
        text = units.socket_text(installation)
        done[units.SOCKET] = units.write_unit(units.SOCKET, text, folder)
    for name, what in done.items():
        ui.tell(folder / name, mark=f"{what:<10} ")
    systemctl.systemctl("daemon-reload")
    if linger:
        systemctl.enable_linger()
        ui.tell("starts at boot", mark="lingering  ")
    started = _start(with_socket=with_socket, changed=set(done.values()) != {"unchanged"})
    _show_running(invocation, started=started)
    click.echo()
    for line in client_lines(address_of(invocation) + "/mcp"):
        click.echo(line)
    return Exit.OK


@click.command()
@click.pass_obj
def start(invocation: Invocation) -> int:
    """Start the installed service, and show the start."""
    return _control(invocation, "start")


@click.command()
@click.pass_obj
def restart(invocation: Invocation) -> int:
    """Stop the service and start it again, as after an upgrade, and show the start."""
    return _control(invocation, "restart")


@click.command()
def stop() -> int:
    """Stop the service until the next login, `service start` or boot; calls in flight may end first."""
    # The socket first: a client that connects meanwhile would start the service again.
    systemctl.systemctl("stop", *_installed())
    ui.tell("Stopped.")
    return Exit.OK


def _control(invocation: Invocation, verb: str) -> int:
    """Start or restart the units, and show the start or why there was none."""
    running = systemctl.is_active(units.SERVICE)
    present = _installed()
    with suppress(NoServiceManager):  # the service is not in the failed state
        systemctl.systemctl("reset-failed", units.SERVICE)
    with suppress(NoServiceManager):  # the start below reports it
        if units.SOCKET in present and not systemctl.is_active(units.SOCKET):
            # The service has the port itself, which systemd's socket takes now.
            systemctl.systemctl("stop", units.SERVICE)
            systemctl.systemctl("start", units.SOCKET)
        systemctl.systemctl(verb, units.SERVICE)
    _show_running(invocation, started=verb == "restart" or not running)
    return Exit.OK


def _installed() -> list[str]:
    """Return the installed units, the socket first; raises UsageProblem if there is no service."""
    present = units.present(units.unit_folder())
    if units.SERVICE not in present:
        systemctl.version()  # without systemd there is nothing to install either
        raise UsageProblem(
            "The service is not installed.", hint="Install it with `service install`."
        )
    return present


def _show_running(invocation: Invocation, *, started: bool) -> None:
    """Show the start and the state of the service; raises the reason if it does not run."""
    facts = systemctl.properties(units.SERVICE)
    if facts.get("ActiveState") not in ("active", "reloading"):
        raise _why(invocation, facts)
    for shown in read_starts(invocation.database, last=1) if started else ():
        _show_start(shown)
    ui.tell(f"{facts['StatusText'] or 'running'}; see `service status` and `logs`.")


@click.command()
@ui.as_json_option
@click.pass_obj
def status(invocation: Invocation, *, as_json: bool) -> int:
    """Show whether the service is installed and running, and why not; exit 3 if it does not run."""
    facts = systemctl.properties(units.SERVICE)
    path = facts.get("FragmentPath") or None
    serving = serving_status(invocation.database)
    warn_of_another_version(serving)
    failed = systemctl.set_up_failed(facts)
    stopped = facts.get("ActiveState") == "inactive"  # systemd keeps what was said last
    written_by = units.version_in(Path(path).read_text(encoding="utf-8")) if path else None
    shown = {
        "installed": bool(path),
        "unit": path,
        "written_by": written_by,
        "version": __version__,
        "running": serving["version"] if serving and "version" in serving else None,
        "enabled": facts.get("UnitFileState") == "enabled",
        "state": facts.get("ActiveState"),
        "status": None if stopped else facts.get("StatusText") or None,
        "pid": int(facts.get("MainPID") or 0) or None,
        "restarts": int(facts.get("NRestarts") or 0),
        "exit_code": int(facts.get("ExecMainStatus") or 0),
        "problem": failed.message if failed else None,
        "socket": systemctl.is_active(units.SOCKET),
        "linger": systemctl.lingers(),
        "database": str(invocation.database),
    }
    if as_json:
        ui.print_json(shown)
    else:
        _show_status(shown)
        if failed:
            ui.tell(failed.hint, mark="→ ")
    return Exit.OK if shown["state"] == "active" else Exit.DIFFERS


@click.command()
@click.pass_obj
def uninstall(invocation: Invocation) -> int:
    """Stop the service and remove its units; the database and its backups stay."""
    folder = units.unit_folder()
    present = units.present(folder)
    for name in present:
        systemctl.systemctl("disable", "--now", name)
        (folder / name).unlink()
        ui.tell(folder / name, mark="removed    ")
    if not present:
        ui.tell("The service is not installed.")
    else:
        systemctl.systemctl("daemon-reload")
        with suppress(NoServiceManager):  # the unit is not in the failed state
            systemctl.systemctl("reset-failed", *present)
    ui.tell(f"{invocation.database} and its backups", mark="kept       ")
    if (key := invocation.settings.secrets_key_file).exists():
        ui.tell(f"{key}, the key of its secrets", mark="kept       ")
    return Exit.OK


def _show_status(shown: Mapping[str, Any]) -> None:
    """Print what `service status --json` says: how it is, which program, how it starts, where things are."""
    if shown["installed"]:
        state, said = shown["state"], shown["problem"] or shown["status"]
        colour = {"active": "green", "failed": "red"}.get(state, "yellow")
        ui.tell(f"{state}: {said}" if said else state, mark="state       ", fg=colour)
        process = [
            shown["pid"] and f"pid {shown['pid']}",
            shown["exit_code"] and f"exit code {shown['exit_code']}",
            shown["restarts"]
            and f"restarted {formats.counted(shown['restarts'], 'time')} by systemd",
        ]
        if any(process):
            ui.tell(", ".join(filter(None, process)), mark="process     ")
        when = "boot" if shown["linger"] else "login"
        starts = f"at {when}" if shown["enabled"] else "not by itself: `service install`"
        ui.tell(starts, mark="starts      ")
        ui.tell("held by systemd" if shown["socket"] else "its own", mark="port        ")
        ui.tell(shown["unit"], mark="unit        ")
    else:
        ui.tell("not installed: `service install`", mark="service     ")
    ui.tell(_versions(shown), mark="version     ")
    ui.tell(shown["database"], mark="database    ")


def _versions(shown: Mapping[str, Any]) -> str:
    """Return the installed version, and the others where they differ."""
    others = {"running": shown["running"], "in the unit": shown["written_by"]}
    differing = [
        f"{found} {where}"
        for where, found in others.items()
        if found not in (None, shown["version"])
    ]
    return ", ".join([shown["version"] + (" installed" if differing else ""), *differing])


def _installation(invocation: Invocation) -> units.Installation:
    settings = invocation.settings
    options = [f"--database={invocation.database}"]
    if invocation.config_file:
        options.insert(0, f"--config={invocation.config_file.absolute()}")
    if settings.migrations.folder:
        options.append(f"--migrations={invocation.migrations}")
    host, key_file = settings.gateway.host, settings.secrets_key_file
    source = settings.origins.get("secrets.key_file", ENVIRONMENT_PREFIX)
    return units.Installation(
        command=units.this_command(),
        options=tuple(options),
        writable=(invocation.database.parent, settings.backup_folder),
        path=os.environ.get("PATH", os.defpath),
        address=f"[{host}]:{settings.gateway.port}"
        if ":" in host
        else f"{host}:{settings.gateway.port}",
        key_file=key_file,
        key_file_set=source.startswith(ENVIRONMENT_PREFIX)
        and key_file != Path(DEFAULT_KEY_FILE).expanduser(),
        systemd=systemctl.version(),
    )


def _start(*, with_socket: bool, changed: bool) -> bool:
    """Enable and start what was installed; return whether this (re)started the service."""
    before = systemctl.properties(units.SERVICE)
    running = before.get("ActiveState") == "active"
    try:
        if with_socket and running and (changed or not systemctl.is_active(units.SOCKET)):
            # The service must release the port before systemd's socket takes it.
            systemctl.systemctl("stop", units.SERVICE)
            running = False
        if with_socket:
            systemctl.systemctl("enable", "--now", units.SOCKET)
        systemctl.systemctl("enable", units.SERVICE)
        systemctl.systemctl("reset-failed", units.SERVICE)
        systemctl.systemctl("restart" if running and changed else "start", units.SERVICE)
    except NoServiceManager:
        if systemctl.properties(units.SERVICE).get("LoadState") != "loaded":
            raise
    return not running or changed


def _why(invocation: Invocation, facts: dict[str, str]) -> GatewayError:
    """Return the refusal that the daemon reported for the failed start, if it got that far."""
    if failed := systemctl.set_up_failed(facts):
        return failed
    for start in reversed(read_starts(invocation.database, last=1)):
        if start.refusal:
            from local_mcp_gateway.service.admin import relayed

            return relayed(start.refusal)
    reason = facts.get("StatusText") or facts.get("Result") or "unknown"
    return NoServiceManager(
        f"The service did not start: {reason}.", hint="See `logs` for its last messages."
    )


@click.command()
@click.option("--last", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="How many starts to show.")  # fmt: skip
@ui.as_json_option
@click.pass_obj
def startup(invocation: Invocation, *, last: int, as_json: bool) -> int:
    """Show the last starts of this database: phases, what was applied, or why it was refused."""
    starts = read_starts(invocation.database, last=last)
    if as_json:
        ui.print_json({"starts": [start_as_json(start) for start in starts]})
    elif not starts:
        ui.tell(f"No start of {invocation.database} is recorded yet.")
    else:
        for start in starts:
            _show_start(start)
    if not as_json and (failed := systemctl.why_not_started(units.SERVICE)):
        ui.tell(failed.message, fg="red")
        ui.tell(failed.hint, mark="→ ")
    return Exit.OK


def _show_start(start: Start) -> None:
    """Print one start as bars."""
    facts = start_as_json(start)
    total = float(str(facts["duration_ms"]))
    outcome = click.style(start.outcome, fg=_COLOURS.get(start.outcome, "yellow"), bold=True)
    click.echo(
        f"{formats.second(start.started_at)} UTC  {outcome} after {formats.duration(total)}  (pid {start.pid})"
    )
    for phase in phases_of(start):
        bar = click.style(phase.bar(total), fg="cyan")
        click.echo(f"  {phase.name:<18} {bar} {formats.duration(phase.duration_ms):>11}")
    for event in start.events:
        match event["event"]:
            case "migration.applied":
                ui.tell(event["tag"], mark="  applied   ")
            case "migration.rewound":
                rewound = f"{', '.join(event['migrations'])}, by {event['by']}"
                text = ui.sentence(rewound, indent=" " * 12).removeprefix(" " * 12)
                ui.tell(text, mark="  rewound   ")
                ui.tell(event["message"], indent=" " * 12)
                if event.get("hint"):
                    ui.tell(event["hint"], mark="→ ", indent=" " * 12)
            case "backup.created" | "backup.reused":
                backup = Path(event["path"])
                ui.tell(backup.name, mark="  backup    ")
                ui.tell(f"in {backup.parent}", mark="            ")
            case "upstream.connected":
                ui.tell(
                    f"{event.get('server')} after {formats.duration(event['ms'])}",
                    mark="  upstream  ",
                )
            case "guard.refused" | "service.refused":
                ui.tell(event["message"], indent="  ", fg="red")
                ui.tell(event["hint"], mark="→ ", indent="  ")
            case "service.failed":
                ui.tell(f"  {event.get('message')}", fg="red")
    click.echo()
