"""The options of a run, and their reload while the gateway serves."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace

import pytest

from local_mcp_gateway.config import Settings, load_settings
from local_mcp_gateway.config.settings import UpstreamSettings
from local_mcp_gateway.database import ConnectionPool, StopEvent, no_report
from local_mcp_gateway.guard import GuardPolicy
from local_mcp_gateway.service.options import (
    ServeOptions,
    gateway_options,
    guard_policy,
    reload,
    restore,
)
from tests.harness import Place, clean_environment


def test_the_guard_of_a_library_is_as_careful_as_the_default_settings() -> None:
    ours, theirs = guard_policy(Settings()), GuardPolicy()
    assert ours == replace(
        theirs, backup_folder=ours.backup_folder, program_version=ours.program_version
    )


def test_tools_are_held_only_where_the_settings_say_so() -> None:
    shown = gateway_options(Settings())
    assert not shown.hold_altered_tools
    assert not shown.hold_new_tools
    upstream = UpstreamSettings(altered_tools="hold", new_tools="hold")
    held = gateway_options(replace(Settings(), upstream=upstream))
    assert held.hold_altered_tools
    assert held.hold_new_tools


async def test_a_restore_and_what_it_applies_again_tell_how_far_they_are(
    shipped: Place,
) -> None:
    shipped.migrate()
    tag = shipped.folder.add("notes", "CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    shipped.migrate()
    database, folder = str(shipped.database), str(shipped.folder.path)
    paths = {"database.path": database, "migrations.folder": folder}
    settings = load_settings(options=paths, environment={})
    told: list[str] = []

    def note(phase: str, done: int, total: int) -> None:
        told.append(phase)

    async with ConnectionPool.open(shipped.database) as pool:
        stop, plan = StopEvent(), ServeOptions(settings, reread=lambda: settings)
        await restore(settings, pool, "latest", dev=False, emit=no_report, progress=note, stop=stop)
        assert {"copy", "read"} <= set(told)
        done = await reload(plan, settings, pool, no_report, note, stop)
    assert done.applied == (tag,)
    assert f"apply {tag}" in told


ENDLESS = """INSERT INTO endless WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c)
SELECT max(n) FROM c"""


@pytest.mark.parametrize("again", [False, True], ids=["once", "asked twice"])
@pytest.mark.parametrize("by_command", [False, True], ids=["SIGHUP", "reload"])
def test_a_stop_gives_a_reload_up_and_leaves_the_database_as_it_was(
    shipped: Place, *, by_command: bool, again: bool
) -> None:
    shipped.migrate()
    before = shipped.content()
    with shipped.serve() as gateway:
        gateway.wait_ready()
        shipped.folder.add("endless", "CREATE TABLE endless (n INTEGER)", ENDLESS)
        command = [*shipped.command, *shipped.options, "reload"]
        with subprocess.Popen(
            command if by_command else ["true"],
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(shipped.home),
        ) as reloading:
            if not by_command:
                gateway.signal(signal.SIGHUP)
            gateway.wait_for("backup.created")
            for _ in range(1 + again):
                gateway.signal(signal.SIGHUP)
                gateway.signal(signal.SIGTERM)
            assert gateway.wait() == 0
            _, said = reloading.communicate()
    assert reloading.returncode == (4 if by_command else 0)
    assert by_command == ("asked to stop and gave up the reload" in said)
    assert gateway.names()[-1] == "service.stopped"
    assert gateway.names().count("service.reloading") == 1
    assert "migration.applied" not in gateway.names()
    assert shipped.content() == before


def test_a_stop_gives_up_what_a_save_in_dev_mode_began(shipped: Place) -> None:
    shipped.migrate()
    before = shipped.content()
    with shipped.serve("--dev") as gateway:
        gateway.wait_ready()
        gateway.wait_for("dev.watching")
        shipped.folder.write("0104_endless", f"CREATE TABLE endless (n INTEGER);\n{ENDLESS};\n")
        gateway.wait_for("backup.created")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
    assert gateway.names()[-1] == "service.stopped"
    assert shipped.content() == before
