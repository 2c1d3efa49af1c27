"""Dev mode's live reload, on a copy of the program that the test may edit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway.support import SERVERS
from tests.harness import (
    DEADLINE_S,
    REPOSITORY,
    GatewayProcess,
    MigrationFolder,
    Place,
    new_place,
    wait_gone,
)
from tests.service.load import Load


@dataclass(frozen=True, slots=True)
class Edited:
    """A gateway in dev mode whose code is ours to change."""

    place: Place
    gateway: GatewayProcess
    package: Path

    def save(self, name: str, text: str) -> None:
        path = self.package / name
        temporary = path.with_name(path.name + "~")
        temporary.write_text(text)
        temporary.rename(path)

    def change(self, text: str = "") -> None:
        """Save one module of the program with a line more."""
        name = "service/dev/worker.py"
        self.save(name, (self.package / name).read_text() + f"\n{text}\n")

    def get(self) -> int:
        with urllib.request.urlopen(self.gateway.url + "/health/live", timeout=60) as response:
            return int(response.status)

    def starts(self) -> list[int]:
        return [
            event["pid"] for event in self.gateway.events if event["event"] == "service.starting"
        ]

    def ready(self, times: int) -> None:
        self.gateway.until(lambda: self.gateway.names().count("service.ready") >= times)


@pytest.fixture
def serve_options() -> tuple[str, ...]:
    return ()


@pytest.fixture
def edited(tmp_path: Path, serve_options: tuple[str, ...]) -> Iterator[Edited]:
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "daemon", source / "daemon", ignore=skip)
    shutil.copytree(REPOSITORY / "migrations", tmp_path / "migrations")
    MigrationFolder(tmp_path / "migrations")
    place = new_place(tmp_path, (sys.executable, "-m", "local_mcp_gateway"))
    environment = {"PYTHONPATH": str(source / "daemon"), "PYTHONDONTWRITEBYTECODE": "1"}
    with place.serve("--dev", *serve_options, env=environment) as gateway:
        gateway.wait_ready()
        yield Edited(place, gateway, source / "daemon" / "local_mcp_gateway")


def test_changed_code_restarts_the_worker_on_the_same_address(edited: Edited) -> None:
    edited.change("# a comment")
    reloaded = edited.gateway.wait_for("dev.reloaded")
    assert reloaded["files"] == ["service/dev/worker.py"]
    edited.ready(2)
    first, second = edited.starts()
    assert first != second
    urls = {e["url"] for e in edited.gateway.events if e["event"] == "gateway.listening"}
    assert len(urls) == 1
    assert edited.get() == 200


def test_no_call_of_many_clients_is_refused_while_the_worker_is_replaced(edited: Edited) -> None:
    server = (sys.executable, str(SERVERS / "plain.py"))
    added = edited.place.run("server", "add", "plain", "--profile", "p", "--", *server)
    assert added.code == 0, added.stderr
    load = Load(int(edited.gateway.url.rpartition(":")[2]), clients=20)
    with load.running():
        for restart in (1, 2):
            load.wait_for(load.outcomes["answered"] + load.clients)
            edited.change(f"# {restart}")
            edited.ready(restart + 1)
        load.wait_for(load.outcomes["answered"] + load.clients)
    assert load.outcomes.keys() == {"answered"}, load.outcomes


def test_a_file_that_is_no_python_is_told_and_changes_nothing(edited: Edited) -> None:
    edited.change("def broken(:")
    refused = edited.gateway.wait_for("dev.refused")
    assert "worker.py" in refused["message"]
    assert edited.get() == 200
    assert len(edited.starts()) == 1


def test_a_program_that_does_not_start_is_mended_by_the_next_save(edited: Edited) -> None:
    good = (edited.package / "service/dev/worker.py").read_text()
    edited.change("raise RuntimeError('not now')")
    assert "exit code" in edited.gateway.wait_for("dev.refused")["message"]
    edited.save("service/dev/worker.py", good + "\n# mended\n")
    edited.ready(2)
    assert edited.get() == 200


def test_a_worker_that_was_killed_is_told_of_and_the_next_save_starts_another(
    edited: Edited,
) -> None:
    os.kill(edited.starts()[0], signal.SIGKILL)
    assert "ended by SIGKILL" in edited.gateway.wait_for("dev.refused")["message"]
    edited.change("# the machine has memory again")
    edited.ready(2)
    assert edited.get() == 200


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[tuple[GatewayProcess, Path]]:
    place = new_place(tmp_path, shipped=True)
    config = tmp_path / "gateway.toml"
    config.write_text("[guard]\nlock_timeout_s = 1.0\n")
    options = ("--config", str(config), *place.options)
    with place.serve("--dev", options=options) as gateway:
        gateway.wait_ready()
        yield gateway, config


def test_a_setting_that_is_read_at_the_start_restarts_the_worker(
    configured: tuple[GatewayProcess, Path],
) -> None:
    gateway, config = configured
    config.write_text("[guard]\nlock_timeout_s = 2.0\n")
    told = gateway.wait_for("service.reloaded")
    assert told["needs_restart"] == ["guard.lock_timeout_s"]
    gateway.until(lambda: gateway.names().count("service.ready") >= 2)
    pids = [event["pid"] for event in gateway.events if event["event"] == "service.starting"]
    assert len(set(pids)) == 2
    assert gateway.is_live()


def test_a_setting_that_is_live_keeps_the_worker(configured: tuple[GatewayProcess, Path]) -> None:
    gateway, config = configured
    config.write_text("[guard]\nlock_timeout_s = 1.0\n[backup]\nkeep_last = 3\n")
    told = gateway.wait_for("service.reloaded")
    assert (told["changed"], told["needs_restart"]) == (["backup.keep_last"], [])
    assert gateway.is_live()
    assert gateway.names().count("service.starting") == 1


def test_a_stop_signal_ends_worker_and_supervisor_with_zero(edited: Edited) -> None:
    edited.gateway.signal(signal.SIGINT)
    assert edited.gateway.wait() == 0
    assert edited.gateway.wait_for("service.stopping")["reason"] == "SIGINT"
    assert edited.gateway.names()[-1] == "service.stopped"


LISTENS = """
import signal, threading, time
from queue import SimpleQueue
from local_mcp_gateway.service.dev.supervisor import next_of
queue = SimpleQueue()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda caught, _: queue.put(caught))
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("ready", flush=True)
while True:
    print(next_of(queue), flush=True)
"""


def test_two_signals_at_once_are_both_heard_while_it_waits() -> None:
    """A terminal and a parent process stop it together; one pair in four was not heard."""
    with subprocess.Popen([sys.executable, "-c", LISTENS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end = threading.Timer(DEADLINE_S, process.kill)
        end.start()
        for _ in range(100):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
            assert {int(process.stdout.readline()) for _ in range(2)} == {2, 15}
        end.cancel()
        process.kill()


def test_a_killed_supervisor_takes_its_worker_with_it(edited: Edited) -> None:
    (worker,) = edited.starts()
    edited.gateway.signal(signal.SIGKILL)
    edited.gateway.wait_for("service.stopped")
    wait_gone(worker)


def change_schema(edited: Edited) -> None:
    name = "store/tables.py"
    column = 'debug_logs.append_column(Column("colour", Text))'
    edited.save(name, (edited.package / name).read_text() + f"\n{column}\n")


def test_a_changed_schema_module_shows_what_migration_is_missing(edited: Edited) -> None:
    before = edited.place.folder.journal()
    change_schema(edited)
    planned = edited.gateway.wait_for("schema.planned")
    assert "colour" in str(planned["missing"])
    assert edited.place.folder.journal() == before


@pytest.mark.parametrize("serve_options", [("--auto-generate",)])
def test_with_auto_generate_the_migration_is_written_and_applied(edited: Edited) -> None:
    change_schema(edited)
    tag = edited.gateway.wait_for("schema.generated")["tag"]
    # As a save, or by the start of a worker that comes just then.
    applied = {("migration.hot_applied", tag), ("migration.applied", tag)}
    edited.gateway.until(
        lambda: any((e["event"], e.get("tag")) in applied for e in edited.gateway.events)
    )
    assert edited.place.query("SELECT colour FROM debug_logs") == []


def test_a_saved_configuration_is_a_reload(shipped: Place) -> None:
    config = shipped.root / "gateway.toml"
    config.write_text("[gateway]\ndrain_timeout_s = 1.0\n")
    options = ("--config", str(config), *shipped.options)
    quiet = {"LMG_DEV__RELOAD": "false"}
    with shipped.serve("--dev", options=options, env=quiet) as gateway:
        gateway.wait_ready()
        config.write_text("[gateway]\ndrain_timeout_s = 2.0\n")
        reloaded = gateway.wait_for("service.reloaded")
        assert reloaded["changed"] == ["gateway.drain_timeout_s"]
        assert reloaded["needs_restart"] == ["gateway.drain_timeout_s"]
        config.write_text("[gateway]\ndrain_timeot_s = 2.0\n")
        refused = gateway.wait_for("service.reload_refused")
        assert "gateway.drain_timeout_s" in refused["hint"]


def test_a_configuration_that_is_saved_during_the_start_is_a_reload(shipped: Place) -> None:
    config = shipped.root / "gateway.toml"
    config.write_text("[gateway]\ndrain_timeout_s = 1.0\n")
    options = ("--config", str(config), *shipped.options)
    with shipped.serve("--dev", options=options, env={"LMG_DEV__RELOAD": "false"}) as gateway:
        gateway.wait_for("service.starting")  # the settings are read, and nobody watches as yet
        config.write_text("[gateway]\ndrain_timeout_s = 2.0\n")
        reloaded = gateway.wait_for("service.reloaded")
        assert reloaded["changed"] == ["gateway.drain_timeout_s"]


def test_the_users_own_file_and_the_overlay_beside_it_are_watched_though_neither_is_there_yet(
    shipped: Place,
) -> None:
    folder = shipped.home / ".config" / "local-mcp-gateway"
    with shipped.serve("--dev", env={"LMG_DEV__RELOAD": "false"}) as gateway:
        gateway.wait_ready()
        folder.mkdir(parents=True)
        (folder / "gateway.toml").write_text("[backup]\nkeep_last = 5\n")
        gateway.wait_for("service.reloaded", where=lambda e: e["changed"] == ["backup.keep_last"])
        (folder / "gateway.dev.toml").write_text("[guard]\nrehearse = 'auto'\n")
        gateway.wait_for("service.reloaded", where=lambda e: e["changed"] == ["guard.rehearse"])
    told = shipped.run("config", "show", "--changed", "--json").json()["settings"]
    assert "guard.rehearse" not in [setting["key"] for setting in told]
    told = shipped.run("config", "show", "--dev", "--changed", "--json").json()["settings"]
    assert [s["from"] for s in told if s["key"] == "guard.rehearse"] == [
        str(folder / "gateway.dev.toml")
    ]


def test_a_first_start_that_is_refused_ends_with_its_own_exit_code(shipped: Place) -> None:
    shipped.folder.add("broken", "CREAT TABLE x (id)")
    assert shipped.run("serve", "--dev", "--port", "0").code == 5
