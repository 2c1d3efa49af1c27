"""`serve` as a process: its start, its refusals, its stop, and what it leaves on the disk."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import urllib.error
import urllib.request

import pytest

from local_mcp_gateway import __version__
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.folder_edits import write_migration
from tests.harness import REPOSITORY, Place

ACTIVATE = shutil.which("systemd-socket-activate") or ""


def tools_at(url: str) -> str:
    """Ask for the tools as a client does; return `result` or `error`."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    request = urllib.request.Request(url, json.dumps(message).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return "result" if "result" in json.load(response) else "error"
    except urllib.error.HTTPError as error:
        with error:
            return "error"


def get(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_migrates_then_listens_then_is_ready_and_answers(shipped: Place) -> None:
    with shipped.serve() as gateway:
        ready = gateway.wait_for("service.ready")
        assert get(gateway.url + "/health/live") == 200
        assert get(gateway.url + "/health/ready") == 200
        assert gateway.stop() == 0
    assert ready["guard"] == "created"
    told = [event["event"] for event in gateway.events if event["level"] != "debug"]
    assert told[0] == "service.starting"
    assert told[-4:] == [
        "gateway.listening",
        "service.ready",
        "service.stopping",
        "service.stopped",
    ]
    assert told.index("guard.ready") < told.index("gateway.listening")


def test_a_home_that_cannot_hold_the_data_folder_is_said_with_its_path(shipped: Place) -> None:
    (shipped.home / ".local-mcp-gateway-data").write_text("in the way")
    done = shipped.run("--log-format", "json", "serve", "--port", "0", bare=True)
    assert done.code == 7
    assert str(shipped.home / ".local-mcp-gateway-data") in done.events()[-1]["message"]


def test_under_systemd_the_database_is_in_the_state_directory(shipped: Place) -> None:
    state = shipped.root / "state"
    state.mkdir(mode=0o700)
    with shipped.serve(options=(), env={"STATE_DIRECTORY": str(state)}) as gateway:
        gateway.wait_ready()
    assert (state / "local-mcp-gateway.db").exists()


def test_on_a_console_a_refusal_says_what_and_what_next_on_lines_of_their_own(place: Place) -> None:
    place.database.write_text("this is a letter and no database\n" * 100)
    done = place.run("--log-format", "console", "serve", "--port", "0")
    assert done.code == 6
    assert "\n    → " in done.stderr


def test_systemd_hears_ready_only_once_it_serves(shipped: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(shipped.root / "notify")
        manager.bind(address)
        manager.settimeout(60)
        with shipped.serve(env={"NOTIFY_SOCKET": address}) as gateway:
            heard = [manager.recv(4096).decode()]
            while "READY=1" not in heard[-1]:
                heard.append(manager.recv(4096).decode())
            assert get(gateway.url + "/health/live") == 200
            gateway.signal(signal.SIGTERM)
            while "STOPPING=1" not in heard[-1]:
                heard.append(manager.recv(4096).decode())
            assert gateway.wait() == 0
    assert heard[0] == "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=starting"
    assert "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=checking the database" in heard
    assert any(message == "READY=1\nSTATUS=serving 0 profiles, 0 servers" for message in heard)


def test_systemd_hears_why_a_start_was_refused(place: Place) -> None:
    place.database.write_text("this is a letter and no database\n" * 100)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(place.root / "notify")
        manager.bind(address)
        manager.settimeout(60)
        done = place.run("serve", "--port", "0", env={"NOTIFY_SOCKET": address})
        assert done.code == 6
        last = ""
        while "ERRNO=" not in last:
            last = manager.recv(4096).decode()
    assert str(place.database) in last


def test_the_watchdog_is_fed_while_it_serves(shipped: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(shipped.root / "notify")
        manager.bind(address)
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        with shipped.serve(env=environment):
            fed = 0
            while fed < 3:
                fed += manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.skipif(not ACTIVATE, reason="systemd-socket-activate is not installed")
def test_a_socket_from_systemd_is_used_and_the_client_that_woke_it_is_served(
    shipped: Place,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    prefix = (ACTIVATE, "-l", f"127.0.0.1:{port}", "-E", f"HOME={shipped.home}")
    with shipped.serve(prefix=prefix) as gateway:
        gateway.until(lambda: any("Listening on" in line for line in gateway.lines))
        assert get(f"http://127.0.0.1:{port}/health/live") == 200
        assert gateway.url == f"http://127.0.0.1:{port}"


def test_reload_applies_what_is_pending_while_it_serves(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        tag = shipped.folder.add("late", "CREATE TABLE late (id INTEGER PRIMARY KEY)")
        done = shipped.run("reload", "--json")
        assert done.code == 0, done.stderr
        assert done.json()["applied"] == [tag]
        assert shipped.query("SELECT count(*) FROM late") == [(0,)]
        assert gateway.wait_for("service.reloaded")["applied"] == [tag]


def test_reload_says_which_changed_settings_wait_for_a_restart(shipped: Place) -> None:
    config = shipped.root / "gateway.toml"
    config.write_text("[backup]\nkeep_last = 5\n")
    options = ("--config", str(config), *shipped.options)
    with shipped.serve(options=options) as gateway:
        gateway.wait_ready()
        config.write_text(
            "[gateway]\ndrain_timeout_s = 5.0\n[backup]\nkeep_last = 6\n"
            "[upstream]\ncall_timeout_s = 5.0\n"
        )
        done = shipped.run("reload", "--json").json()
    live = ["backup.keep_last", "upstream.call_timeout_s"]
    assert done["changed"] == ["gateway.drain_timeout_s", *live]
    assert done["needs_restart"] == ["gateway.drain_timeout_s"]


def test_the_level_of_the_log_changes_at_a_reload(shipped: Place) -> None:
    config = shipped.root / "gateway.toml"
    config.write_text("")
    options = ("--config", str(config), *shipped.options)
    with shipped.serve(options=options, log=("--log-format", "json")) as gateway:
        gateway.wait_ready()
        for level in ("error", "info"):
            config.write_text(f'[log]\nlevel = "{level}"\n')
            done = shipped.run("reload", "--json").json()
            assert (done["changed"], done["needs_restart"]) == (["log.level"], [])
        told = gateway.wait_for("service.reloaded")
        assert told["changed"] == ["log.level"]
        assert gateway.stop() == 0
    assert gateway.names().count("service.reloaded") == 1  # not the one that quietened the log


def test_a_profile_is_made_the_default_of_the_running_gateway(shipped: Place) -> None:
    config = shipped.root / "gateway.toml"
    options = ("--config", str(config), *shipped.options)
    config.write_text("# mine\n[gateway]\n# port = 1\n")
    with shipped.serve(options=options) as gateway:
        gateway.wait_ready()
        shipped.run("profile", "add", "home")
        shipped.run("profile", "add", "work")
        assert tools_at(gateway.url + "/mcp") == "error"
        done = shipped.run("--config", config, "profile", "use", "work")
        assert done.code == 0, done.stderr
        assert "from now on" in done.stdout
        assert tools_at(gateway.url + "/mcp") == "result"
    kept = '# mine\n[gateway]\ndefault_profile = "work"\n# port = 1\n'
    assert config.read_text() == kept


def test_no_profile_is_used_that_does_not_exist(shipped: Place) -> None:
    shipped.run("profile", "add", "work")
    done = shipped.run("profile", "use", "wrok")
    assert done.code == 2
    assert "There is no profile 'wrok'; there is work." in done.stderr
    assert not (shipped.home / ".config").exists()


def test_sighup_reloads_too_and_systemd_hears_of_it(shipped: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(shipped.root / "notify")
        manager.bind(address)
        manager.settimeout(60)
        with shipped.serve(env={"NOTIFY_SOCKET": address}) as gateway:
            heard = [""]
            while "READY=1" not in heard[-1]:
                heard.append(manager.recv(4096).decode())
            gateway.signal(signal.SIGHUP)
            while not heard[-1].startswith("RELOADING=1\nMONOTONIC_USEC="):
                heard.append(manager.recv(4096).decode())
            while "READY=1" not in heard[-1]:
                heard.append(manager.recv(4096).decode())
            gateway.wait_for("service.reloaded")


def test_a_reload_that_is_refused_leaves_the_gateway_as_it_was(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        shipped.folder.add("broken", "CREAT TABLE x (id)")
        done = shipped.run("reload")
        assert done.code == 5
        assert "CREAT" in done.stderr
        assert get(gateway.url + "/health/live") == 200
        assert gateway.wait_for("service.reload_refused")["exit_code"] == 5


def test_a_reload_after_an_upgrade_leaves_the_new_versions_migrations_to_a_restart(
    place: Place,
) -> None:
    program = place.root / "program"
    shutil.copytree(REPOSITORY / "daemon", program / "daemon")
    shutil.copytree(REPOSITORY / "migrations", program / "migrations")
    env = {"PYTHONPATH": str(program / "daemon")}
    options = ("--database", str(place.database))
    with place.serve(options=options, env=env) as gateway:
        gateway.wait_ready()
        version = program / "daemon" / "local_mcp_gateway" / "__init__.py"
        version.write_text(version.read_text().replace(__version__, "9.0.0"))
        assert place.run(*options, "reload", env=env, bare=True).code == 0  # nothing is pending
        write_migration(
            read_folder(program / "migrations"),
            "new",
            "CREATE TABLE x (y);",
            down=None,
            snapshot=None,
        )
        before = place.content()
        done = place.run(*options, "reload", env=env, bare=True)
        assert done.code == 8
        assert f"Version 9.0.0 is installed, and {__version__} is running" in done.stderr
        assert "systemctl --user restart local-mcp-gateway" in done.stderr
        assert place.content() == before
        assert get(gateway.url + "/health/live") == 200
        for command in (("db", "status"), ("server", "list")):
            said = place.run(*options, *command, env=env, bare=True).stderr
            assert f"Version {__version__} is running, and 9.0.0 is installed." in said
        (found,) = (
            finding
            for finding in place.run(*options, "doctor", "--json", env=env, bare=True).json()[
                "findings"
            ]
            if finding["check"] == "gateway"
        )
        assert found["hint"].startswith("Restart the gateway")


def test_reload_without_a_gateway_says_so(shipped: Place) -> None:
    done = shipped.run("reload")
    assert done.code == 2
    assert "No gateway is running" in done.stderr


def test_dev_mode_prints_the_address_and_lines_to_paste(shipped: Place) -> None:
    shipped.run("profile", "add", "demo")
    printed = shipped.root / "printed"
    to_file = ("sh", "-c", f'exec "$@" > {printed}', "sh")
    with shipped.serve("--dev", prefix=to_file) as gateway:
        gateway.wait_ready()
        assert gateway.stop() == 0
        address = f"{gateway.url}/mcp/demo"
    lines = printed.read_text().splitlines()
    assert any(line.split()[:1] == [address] for line in lines)
    at = next(i for i, line in enumerate(lines) if "Cursor" in line)
    assert json.loads(f"{{{lines[at + 1]}}}")["local-gateway"]["url"] == address


def test_a_bridge_without_a_gateway_says_how_to_start_one(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
    done = shipped.run("stdio", "--url", url, stdin=json.dumps(hello) + "\n")
    sentence = (
        f"No gateway is running at {url}: start one with `local-mcp-gateway serve`, or"
        " `local-mcp-gateway service start`."
    )
    assert json.loads(done.stdout)["error"]["message"] == sentence
    assert done.stderr.splitlines()[0] == sentence
