"""The running service between start and stop: database, gateway and HTTP server, and their events."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.from_thread
import anyio.to_thread

from local_mcp_gateway import __version__
from local_mcp_gateway.database import ConnectionPool, Error, no_progress
from local_mcp_gateway.errors import GatewayError, Interrupted, LockHeld
from local_mcp_gateway.formats import counted, now_ms
from local_mcp_gateway.gateway import Gateway
from local_mcp_gateway.log import LEVEL, is_secret_key, tee
from local_mcp_gateway.service.admin import (
    OwnAddress,
    control_socket,
    needs_token,
    read_token,
    settings_entry,
    with_rest,
)
from local_mcp_gateway.service.admin import dispatch as admin
from local_mcp_gateway.service.exit_status import fields_of, reported_error, root_cause
from local_mcp_gateway.service.history import since_process_start_ms
from local_mcp_gateway.service.http import LibraryWarnings, serving, url_of
from local_mcp_gateway.service.options import (
    changed_keys,
    gateway_options,
    reload,
    restore,
    waiting_keys,
)
from local_mcp_gateway.service.process import allow_many, collect_rarely, give_memory_back
from local_mcp_gateway.service.progress import report_progress
from local_mcp_gateway.service.secrets import Keyring, SealedSignIns
from local_mcp_gateway.service.systemd import watchdog_interval_s
from local_mcp_gateway.service.telemetry import tracing
from local_mcp_gateway.store import AuditEntry, forget_audit, queries, save_audit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database import Progress
    from local_mcp_gateway.gateway import GatewayOptions
    from local_mcp_gateway.guard import GuardContext, GuardReport
    from local_mcp_gateway.log import Emit
    from local_mcp_gateway.service.copies import Copier
    from local_mcp_gateway.service.dev import HotApply
    from local_mcp_gateway.service.http import ServerCertificate
    from local_mcp_gateway.service.options import ServeOptions
    from local_mcp_gateway.service.process import Signals
    from local_mcp_gateway.service.progress import StatusLine
    from local_mcp_gateway.service.replica import Replication
    from local_mcp_gateway.service.systemd import Notifier
    from local_mcp_gateway.studio import Studio


_CHANGES_STATUS = {
    "upstream.connected",
    "upstream.lost",
    "server.changed",
    "service.reloaded",
    "database.gone",
    "database.returned",
}
DEV_VERBS: Final = frozenset({"dev.watched", "dev.problem", "dev.drop"})
"""Answered with nothing where saves are not applied."""
DAY_S: Final = 86_400.0
CHECK_EVERY_S = 2.0
"""Interval of checking that the database file still exists; writes notice at once."""


class RunningService:
    """The running service. All methods run on the event loop."""

    def __init__(
        self,
        plan: ServeOptions,
        emit: Emit,
        notifier: Notifier,
        status: StatusLine,
        signals: Signals,
        up: Callable[[], None],
        set_log_level: Callable[[str], None],
        certificate: ServerCertificate | None = None,
    ) -> None:
        self._up = up
        self._set_log_level = set_log_level
        self._certificate = certificate
        self.plan = plan
        self.settings = plan.settings
        self.notifier = notifier
        self._status = status
        self.signals = signals
        self.emit = tee(emit, self._follow)
        self._keyring = Keyring.of(plan.settings, self.emit)
        self.database: ConnectionPool
        self.gateway: Gateway
        self.replica: Replication | None
        self._listener: socket.socket
        self._address: OwnAddress
        self._one_reload = anyio.Lock()
        self._hot: HotApply | None = None
        self._studio: Studio | None = None
        self._copier: Copier | None = None
        self._copies_wanted = anyio.Event()
        self._serving = False

    async def serve(self, listener: socket.socket, report: GuardReport) -> None:
        """Serve until a stop is requested, then drain; everything opened here is closed on return."""
        settings = self.settings
        path = settings.database_path
        self._listener = listener
        certificate = self._certificate
        names = None if certificate is None else certificate.facts.names
        host, port = listener.getsockname()[:2]
        self._address = OwnAddress(host, port, names)
        allow_many()
        with LibraryWarnings(self.emit):
            async with (
                ConnectionPool.open(path) as self.database,
                self._replicating() as self.replica,
                tracing(settings.telemetry.otlp_endpoint) as tracer,
                Gateway.open(
                    self.database,
                    self._gateway_options(listener),
                    self.emit,
                    tracer,
                    self._keyring.open,
                    SealedSignIns(self.database, self._keyring),
                ) as self.gateway,
                anyio.create_task_group() as tasks,
            ):
                if self.replica is not None:
                    self.gateway.replica = self.replica.status
                rest = partial(self.answer, who="rest")
                async with (
                    control_socket.answering(path, self.answer, self.emit),
                    serving(
                        with_rest(
                            self.gateway.app,
                            read_token(path),
                            rest,
                            self._pages,
                            self.gateway.admit,
                            self.gateway.hold_refusal,
                        ),
                        listener,
                        emit=self.emit,
                        drain_timeout_s=settings.gateway.drain_timeout_s,
                        second_signal=self.signals.second_signal,
                        tls=None if certificate is None else certificate.context,
                    ),
                ):
                    scheme = "http" if certificate is None else "https"
                    self.emit("gateway.listening", url=url_of(listener, scheme) + "/mcp")
                    tasks.start_soon(self._feed_watchdog)
                    tasks.start_soon(self._watch_database)
                    tasks.start_soon(self._every_day)
                    tasks.start_soon(self._reload_on_request)
                    if self.plan.dev and settings.dev.hot_apply:
                        self._hot = self._hot_apply()
                        tasks.start_soon(self._hot.watch)
                    if self.plan.dev and self.plan.config_files:
                        tasks.start_soon(self._watch_config)
                    await self._ready(report)
                    if not self.plan.dev:
                        tasks.start_soon(self._copy_backups)
                    tasks.start_soon(give_memory_back)
                    await self.signals.stopped()
                    began = time.perf_counter()
                    self._serving = False
                    self.emit("service.stopping", reason=self.signals.name)
                    self.notifier.stopping("finishing calls in flight")
                tasks.cancel_scope.cancel()
        duration = round((time.perf_counter() - began) * 1000, 3)
        self.emit("service.stopped", duration_ms=duration)

    def _replicating(self) -> AbstractAsyncContextManager[Replication | None]:
        """Return what replicates the open database for a block, if that is wanted."""
        if not self.plan.replicates:
            return nullcontext()
        from local_mcp_gateway.service.replica import Replication

        return Replication.of(self.settings, self.database, self.emit)

    def _gateway_options(self, listener: socket.socket) -> GatewayOptions:
        """Return the gateway's options, which also depend on who can reach the socket."""
        gateway = self.settings.gateway
        return replace(
            gateway_options(self.settings),
            allowed_hosts=(gateway.host, *(self._address.names or ()), *gateway.allowed_hosts),
            require_token=needs_token(listener, gateway.require_token),
        )

    async def _ready(self, report: GuardReport) -> None:
        profiles = tuple(profile.name for profile in await queries.list_profiles(self.database))
        self._serving = True
        self._up()  # before READY: this needs threads, and a service without threads is not ready
        self.emit(
            "service.ready",
            duration_ms=since_process_start_ms(),
            guard=report.state,
            applied=len(report.applied),
            profiles=len(profiles),
        )
        # Last: `service install` waits for READY and then reads the record of this start.
        self.notifier.ready(self.summary())
        if self.plan.greet:
            self.plan.greet(self._address.url, profiles)
        collect_rarely()

    def summary(self) -> str:
        """Return the status line of `systemctl status`: what is served, or why writes are off."""
        if self.gateway.problem is not None:
            return self.gateway.problem.message
        status = self.gateway.status()
        states = [server["state"] for server in status["servers"].values()]
        down = states.count("failed") + states.count("needs_sign_in")
        served = [counted(len(status["profiles"]), "profile"), counted(len(states), "server")]
        return f"serving {', '.join(served)}" + (f", {down} down" if down else "")

    def _follow(self, event: str, /, **fields: object) -> None:
        """Update the status line when upstreams connect and disconnect."""
        del fields
        if self._studio is not None:
            self._studio.live.on_event(event)
        if self._copier is not None:
            self._copier.on_event(event)
        if self._serving and event in _CHANGES_STATUS:
            self.notifier.status(self.summary())

    async def _pages(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request for a page of the studio."""
        await (await self._open_studio())(scope, receive, send)

    async def _open_studio(self) -> Studio:
        """Return the studio; made at the first page, so that a start does not pay for it."""
        if self._studio is None:
            await anyio.to_thread.run_sync(import_module, "local_mcp_gateway.service.studio")
        if self._studio is None:  # still: another page may have come in meanwhile
            from local_mcp_gateway.service.studio import studio_of

            self._studio = made = studio_of(
                self.settings,
                default_profile=lambda: self.settings.gateway.default_profile,
                own=self._address,
                pool=self.database,
                ask=partial(self.answer, who="pages"),
                changed=self.gateway.reload,
                emit=self.emit,
                options=self.plan.global_options,
            )
            await anyio.to_thread.run_sync(made.prepare)
        return self._studio

    async def answer(
        self,
        verb: str,
        arguments: dict[str, Any],
        progress: Progress = no_progress,
        *,
        who: str = "command",
    ) -> object:
        """Run one verb for the control socket, or for whoever else it is that asks."""
        if verb in ("reload", "settings.read"):
            return await (self.reload(progress) if verb == "reload" else self.read_settings())
        if verb == "db.restore":
            return await self.restore(arguments["name"], who, progress)
        if verb == "status":
            return {
                **self.gateway.status(),
                "version": __version__,
                "url": self._address.url,
            }
        if verb == "replica.sync":
            return self.replica and await self.replica.sync()
        if verb == "replica.checked":
            return self.replica and await self.replica.note_check(arguments["at"])
        if verb in DEV_VERBS:
            return await self._hot.answer(verb, arguments, progress) if self._hot else None
        if verb == "studio.open":
            return {"url": self._address.url + (await self._open_studio()).link()}
        default = self.settings.gateway.default_profile
        served = admin.Served(default, self._address, who)
        result = await admin.perform(
            self.database, self.gateway, served, self._keyring, verb, arguments
        )
        if admin.changes_definitions(verb, arguments):
            await self.gateway.reload()
            kind = verb.partition(".")[0]
            key = "name" if is_secret_key(kind) else kind  # of a token, it would be hidden
            named = {key: arguments["name"]} if "name" in arguments else {}
            if isinstance(result, dict) and verb == "server.import":
                named["servers"] = result["added"]
            self.emit("server.changed", verb=verb, **named)
        return result

    async def reload(self, progress: Progress = no_progress) -> dict[str, object]:
        """Re-read the configuration and apply pending migrations; calls in progress continue."""
        stop = self.signals.stop
        async with self._one_reload:
            if stop.is_set():
                raise _given_up()
            self.notifier.reloading()
            self.emit("service.reloading")
            applied: tuple[str, ...] = ()
            try:
                await self._read_certificate()
                async with report_progress(self._status, self.notifier, self.emit) as emit:
                    outcome = await reload(
                        self.plan,
                        self.settings,
                        self.database,
                        emit,
                        self._status.shared_with(progress),
                        stop,
                        self._replicate if self.replica else None,
                    )
                applied = outcome.applied
                await self._apply_settings(outcome.settings)
                self.emit("service.reloaded", **outcome.as_fields())
                self._ask_for_new_worker(outcome.needs_restart)
                return outcome.as_fields()
            except Exception as error:
                problem = reported_error(root_cause(error))
                interrupted = isinstance(problem, Interrupted)
                problem = _given_up() if interrupted else problem
                # What has to be done is the same as at a start, but nothing has to be started.
                problem.hint = problem.hint.replace("start again", "reload again")
                if applied:  # committed: nothing was refused
                    self.emit("service.reload_incomplete", applied=applied, **fields_of(problem))
                else:
                    level = {LEVEL: "info"} if interrupted else {}
                    self.emit("service.reload_refused", **fields_of(problem), **level)
                raise problem from error
            finally:
                if not stop.is_set():
                    self.notifier.ready(self.summary())

    async def _apply_settings(self, settings: Settings) -> None:
        """Use other settings from now on, as far as that goes without a restart."""
        changed, self.settings = changed_keys(self.settings, settings), settings
        if changed:
            with suppress(*Error):  # a busy or missing database is reported by what needs it
                await save_audit(self.database, [settings_entry(changed)])
        self._set_log_level(settings.log.level)
        if self._hot is not None:
            self._hot.use(settings)
        if settings.backup.copy_to:
            self._copies_wanted.set()
        await self.gateway.reload(self._gateway_options(self._listener))

    async def _read_certificate(self) -> None:
        """Show new connections the certificate that is in its files now."""
        if self._certificate is None:
            return
        before = self._certificate.facts
        await anyio.to_thread.run_sync(self._certificate.read_again)
        if self._certificate.facts != before:
            self.emit("tls.renewed", **self._certificate.as_fields())

    async def read_settings(self) -> dict[str, object]:
        """Apply changed settings, but no migration."""
        async with self._one_reload:
            await self._read_certificate()
            new = self.plan.reread()
            changed = changed_keys(self.settings, new)
            await self._apply_settings(new)
        waiting = waiting_keys(changed, dev=self.plan.dev)
        fields: dict[str, object] = {"changed": list(changed), "needs_restart": list(waiting)}
        self.emit("service.reloaded", **fields)
        self._ask_for_new_worker(waiting)
        return fields

    def _ask_for_new_worker(self, waiting: tuple[str, ...]) -> None:
        """In dev mode: let the supervisor start another worker with the settings that wait for one."""
        # The supervisor has the socket, which stays as it is.
        if self.plan.supervisor is not None and {*waiting} - {"gateway.host", "gateway.port"}:
            os.kill(self.plan.supervisor, signal.SIGUSR1)

    async def restore(
        self, name: str, who: str = "command", progress: Progress = no_progress
    ) -> dict[str, object]:
        """Go back to a backup, and apply what is pending then."""
        stop = self.signals.stop
        async with self._one_reload:
            done = await restore(
                self.settings,
                self.database,
                name,
                dev=self.plan.dev,
                emit=self.emit,
                progress=progress,
                stop=stop,
            )
        answer = {
            **done,
            **await self.reload(progress),
        }  # which migrates, so that there is an audit
        restored = AuditEntry(now_ms(), who, None, "db.restore", str(done["restored"]), "ok", None)
        with suppress(*Error):
            await save_audit(self.database, [restored])
        return answer

    def _replicate(self, context: GuardContext, tag: str) -> int | None:
        """Send everything to the replica before a migration; runs in the guard's thread."""
        assert self.replica is not None, "it was asked for only with a replica"
        return anyio.from_thread.run(self.replica.pin, context, tag)

    async def _reload_on_request(self) -> None:
        while True:
            await self.signals.reload()
            try:
                await self.reload()
            except GatewayError:
                continue  # logged already; the gateway goes on unchanged

    async def _copy_backups(self) -> None:
        """Copy backups off the machine as soon as the settings want it."""
        if not self.settings.backup.copy_to:
            await self._copies_wanted.wait()
        await anyio.to_thread.run_sync(import_module, "local_mcp_gateway.service.copies")
        from local_mcp_gateway.service.copies import Copier

        self._copier = Copier(lambda: self.settings, self.plan.global_options, self.emit)
        self.gateway.copies = self._copier.status
        await self._copier.run()

    def _hot_apply(self) -> HotApply:
        from local_mcp_gateway.service.dev import HotApply

        return HotApply(
            self.settings, self.database, self.emit, self.gateway.reload, self.signals.stop
        )

    async def _watch_config(self) -> None:
        from local_mcp_gateway.service.dev import saves_of

        watching = False
        async for _ in saves_of(self.plan.config_files, self.emit):
            # The first round only starts watching; it also covers saves since the settings were read.
            if watching or self._settings_differ():
                self.signals.request_reload()
            watching = True

    def _settings_differ(self) -> bool:
        try:
            return bool(changed_keys(self.settings, self.plan.reread()))
        except GatewayError:
            return True  # the reload reports why

    async def _every_day(self) -> None:
        """Delete what the audit keeps no longer, and look when the certificate ends: at the start and every day."""
        while True:
            if self._certificate is not None and self._certificate.facts.ends_soon:
                self.emit("tls.ends_soon", **self._certificate.as_fields())
            with suppress(*Error):  # a busy or missing database is reported by what needs it
                await forget_audit(self.database, keep_days=self.settings.log.keep_audit_days)
            await anyio.sleep(DAY_S)

    async def _watch_database(self) -> None:
        """Report when the database file has been deleted or replaced: later writes would be lost."""
        while True:
            await anyio.sleep(CHECK_EVERY_S)
            problem = self.database.gone()
            if (problem is None) == (self.gateway.problem is None):
                continue
            self.gateway.problem = problem
            if problem is not None:
                self.emit("database.gone", **fields_of(problem))
            else:
                self.emit("database.returned", database=str(self.database.path))

    async def _feed_watchdog(self) -> None:
        """Feed systemd's watchdog from the event loop, so that a hung loop is noticed."""
        interval_s = watchdog_interval_s()
        while interval_s is not None:
            self.notifier.alive()
            await anyio.sleep(interval_s)


def _given_up() -> GatewayError:
    return LockHeld(
        "The gateway was asked to stop and gave up the reload. The database is unchanged.",
        hint="Start the gateway again: it applies what is pending.",
    )
