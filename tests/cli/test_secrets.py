"""Tokens in environment and headers: sealed in every file, plain for the server alone."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from local_mcp_gateway.store.encryption import MARK
from tests.cli.sealed import PLAIN, SECRET, add, key_file, ran, secrets_finding, values
from tests.harness import GatewayProcess, Place


def stored(place: Place, server: str = "github") -> dict[str, str]:
    ((env, headers),) = place.query("SELECT env, headers FROM mcp_servers WHERE name = ?", server)
    return {**json.loads(env), **json.loads(headers)}


def store_plain(place: Place, server: str = "github") -> None:
    """Leave a value as a version before there were keys has stored it."""
    text = json.dumps({"TOKEN": SECRET})
    place.write("UPDATE mcp_servers SET env = ? WHERE name = ?", text, server)


def holders(place: Place, text: str = SECRET) -> list[str]:
    """Return the files of this machine that hold a text anywhere in them."""
    files = [path for path in place.root.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(file.name for file in files if text.encode() in file.read_bytes())


def pid_of(place: Place) -> int:
    called = json.loads(ran(place, "call", "pid"))
    return int(called if isinstance(called, int) else called["content"][0]["text"])


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_a_token_is_in_no_file_and_the_server_gets_it(either: Place) -> None:
    add(either)
    assert stored(either)["TOKEN"].startswith(MARK)
    assert "[redacted]" in ran(either, "server", "show", "github")
    assert values(either) == {"TOKEN": SECRET}
    ran(either, "server", "test", "github")
    ran(either, "db", "backup", "create")
    assert holders(either) == []
    assert key_file(either).stat().st_mode & 0o777 == 0o600
    assert "1 sealed, and the key opens all." in secrets_finding(either, "ok")


def test_the_running_child_has_it_and_the_log_has_not(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        add(shipped)
        assert environment_of(pid_of(shipped))["TOKEN"] == SECRET
        assert gateway.stop() == 0
    assert SECRET not in "\n".join(gateway.lines)
    assert holders(shipped) == []


def test_what_a_server_says_on_its_way_down_is_told_without_its_token(shipped: Place) -> None:
    script = f'echo "no login with $CLUE, not {SECRET[:-1]}" >&2; exit 3'
    with shipped.serve() as gateway:
        gateway.wait_ready()
        child = ("--", "/bin/sh", "-c", script)
        ran(shipped, "server", "add", "c", "--env", f"CLUE={SECRET}", *child)
        said = [ran(shipped, "server", "test", "c", code=1), ran(shipped, "call", "x", code=1)]
        gateway.wait_for("upstream.lost")
        with urlopen(gateway.url.removesuffix("/mcp") + "/health/ready", timeout=30) as reply:
            said.append(reply.read().decode())
        for command in ("server list", "server show c", "startup"):
            said += [ran(shipped, *command.split(), *form) for form in ((), ("--json",))]
        assert gateway.stop() == 0
    said += [ran(shipped, "logs"), ran(shipped, "logs", "--calls"), "\n".join(gateway.lines)]
    for text in said:
        assert SECRET not in text
    assert "no login with [redacted], not correct-horse" in said[0]
    assert holders(shipped) == []


def test_a_header_is_sent_in_plain_and_stored_sealed(shipped: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        requests: list[bytes] = []

        def hear() -> None:
            connection, _ = listener.accept()
            listener.close()  # whoever comes again is refused at once
            with connection:
                requests.append(connection.recv(65536))

        hearing = threading.Thread(target=hear)
        hearing.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        header = f"Authorization: Bearer {SECRET}"
        ran(shipped, "server", "add", "far", "--url", url, "--header", header)
        ran(shipped, "server", "test", "far", code=1)
        hearing.join()
    assert header.encode().lower() in requests[0].lower()
    assert stored(shipped, "far")["Authorization"].startswith(MARK)
    assert holders(shipped) == []


def test_what_is_edited_is_sealed_and_what_is_left_alone_stays_as_it_is(either: Place) -> None:
    add(either)
    before = stored(either)
    ran(either, "server", "edit", "github", "--rename", "hub", "--env", "A=1")
    assert stored(either, "hub")["TOKEN"] == before["TOKEN"]
    assert values(either, "hub") == {"TOKEN": SECRET, "A": "1"}
    ran(either, "server", "edit", "hub", "--env", "TOKEN")
    assert values(either, "hub") == {"A": "1"}


def test_what_is_imported_is_sealed(either: Place) -> None:
    server = {"command": PLAIN[0], "args": [PLAIN[1]], "env": {"TOKEN": SECRET}}
    document = json.dumps({"mcpServers": {"github": server}})
    ran(either, "server", "import", "-", stdin=document)
    assert stored(either)["TOKEN"].startswith(MARK)
    assert values(either) == {"TOKEN": SECRET}


def test_plain_values_go_on_working_until_one_command_seals_them(either: Place) -> None:
    ran(either, "server", "add", "github", "--", *PLAIN)
    store_plain(either)
    ran(either, "reload", code=0 if (either.database.parent / "gateway.db.sock").exists() else 2)
    assert values(either) == {"TOKEN": SECRET}
    told = secrets_finding(either, "note")
    assert "Not sealed: TOKEN of github." in told
    assert "`secrets seal` seals them" in told
    said = ran(either, "secrets", "seal")
    assert "1 value sealed" in said
    assert "Backups made before" in said
    assert values(either) == {"TOKEN": SECRET}
    assert stored(either)["TOKEN"].startswith(MARK)
    assert "every value was sealed already" in ran(either, "secrets", "seal")


def test_a_value_that_was_sealed_later_is_left_in_no_page_and_in_no_log_of_them(
    either: Place,
) -> None:
    ran(either, "server", "add", "github", "--", *PLAIN)
    store_plain(either)
    assert holders(either) != []
    ran(either, "secrets", "seal")
    assert holders(either) == []
    ran(either, "db", "backup", "create")
    assert holders(either) == []


def test_a_program_that_still_reads_the_old_values_is_told_of(shipped: Place) -> None:
    ran(shipped, "server", "add", "github", "--", *PLAIN)
    store_plain(shipped)
    with shipped.serve() as gateway, closing(sqlite3.connect(shipped.database)) as reader:
        gateway.wait_ready()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM mcp_servers").fetchall()
        said = ran(shipped, "secrets", "seal")
        assert "Another program is reading the database" in said
        assert holders(shipped) != []
        reader.rollback()
        said = ran(shipped, "secrets", "seal")
        assert "Another program" not in said
        assert holders(shipped) == []


def test_sealing_and_rotating_restart_no_server(shipped: Place) -> None:
    ran(shipped, "server", "add", "github", "--", *PLAIN)
    store_plain(shipped)
    with shipped.serve() as gateway:
        gateway.wait_ready()
        pid = pid_of(shipped)
        ran(shipped, "secrets", "seal")
        ran(shipped, "secrets", "rotate")
        ran(shipped, "server", "edit", "github", "--env", f"TOKEN={SECRET}")
        assert pid_of(shipped) == pid
        ran(shipped, "server", "edit", "github", "--env", "TOKEN=another")
        assert environment_of(pid_of(shipped))["TOKEN"] == "another"


def test_a_new_key_seals_all_and_an_old_backup_opens_still(
    either: Place, validate_json: Callable[[str, Any], None]
) -> None:
    add(either)
    ran(either, "db", "backup", "create")
    old = stored(either)
    done = json.loads(ran(either, "secrets", "rotate", "--json"))
    validate_json("secrets-rotate", done)
    assert (done["sealed"], done["resealed"], done["unreadable"]) == (0, 1, [])
    assert f":{done['key']}:" in stored(either)["TOKEN"] != old["TOKEN"]
    assert values(either) == {"TOKEN": SECRET}
    (backup,) = either.backups
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT env FROM mcp_servers").fetchone() == (json.dumps(old),)
    if not (either.database.parent / "gateway.db.sock").exists():
        ran(either, "db", "restore", "latest", "--yes")
        assert values(either) == {"TOKEN": SECRET}


SPOILT = {
    "missing": ("there is no", "restore the key from your copy"),
    "open to others": ("other users can read", "run chmod 600"),
    "another": ("has ", "add its line to"),
    "damaged": ("line 3 of", "put the file back from your copy"),
}


def spoil(place: Place, how: str) -> None:
    path = key_file(place)
    match how:
        case "missing":
            path.rename(path.with_name("away"))
        case "open to others":
            path.chmod(0o640)
        case "another":
            path.rename(path.with_name("away"))
            ran(
                place, "secrets", "seal", env={"DATABASE_PATH": str(place.root / "o.db")}, bare=True
            )
        case "damaged":
            path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("how", SPOILT)
def test_without_its_key_one_server_is_down_and_says_why_and_the_gateway_serves(
    shipped: Place, how: str
) -> None:
    add(shipped)
    ran(shipped, "server", "add", "other", "--", *PLAIN)
    whole = key_file(shipped).read_bytes()
    spoil(shipped, how)
    why, do = SPOILT[how]
    ran(shipped, "server", "edit", "github", "--off")
    ran(shipped, "server", "edit", "github", "--on")
    with shipped.serve() as gateway:
        gateway.wait_ready()
        ran(shipped, "call", "pid")
        lost = gateway.wait_for("upstream.lost")
        assert (lost["server"], why in lost["reason"], do in lost["reason"]) == (
            "github",
            True,
            True,
        )
        shown = " ".join(ran(shipped, "server", "show", "github").split())
        assert lost["reason"] in shown
        assert why in secrets_finding(shipped, "problem")
        ran(shipped, "server", "show", "github", "--secrets", code=7)
        # It is tried again by itself, so nothing has to be restarted once the key is back.
        key_file(shipped).write_bytes(whole)
        key_file(shipped).chmod(0o600)
        gateway.wait_for("upstream.connected", where=lambda event: event["server"] == "github")
        assert gateway.stop() == 0


def test_a_lost_key_is_replaced_on_purpose_only(shipped: Place) -> None:
    add(shipped)
    spoil(shipped, "missing")
    assert "there is no" in ran(shipped, "server", "add", "b", "--env", "A=1", "--", "true", code=7)
    assert not key_file(shipped).exists()
    said = ran(shipped, "secrets", "rotate", code=3)
    assert "variable TOKEN of server 'github'" in said
    ran(shipped, "server", "edit", "github", "--env", "TOKEN=new")
    assert values(shipped) == {"TOKEN": "new"}
    assert "open" in secrets_finding(shipped, "ok")


def test_values_that_were_swapped_behind_the_back_do_not_open(
    shipped: Place, validate_json: Callable[[str, Any], None]
) -> None:
    add(shipped)
    ran(shipped, "server", "add", "b", "--env", "TOKEN=b", "--", *PLAIN)
    shipped.write(
        "UPDATE mcp_servers SET env = (SELECT env FROM mcp_servers WHERE name = 'github')"
        " WHERE name = 'b'"
    )
    assert "was altered" in ran(shipped, "server", "show", "b", "--secrets", code=7)
    assert "was altered" in secrets_finding(shipped, "problem")
    done = json.loads(ran(shipped, "secrets", "seal", "--json", code=3))
    validate_json("secrets-seal", done)
    (unreadable,) = done["unreadable"]
    assert (unreadable["server"], unreadable["name"]) == ("b", "TOKEN")
    assert "was altered" in unreadable["reason"]


def test_the_place_of_the_key_can_be_set(shipped: Place) -> None:
    place = {"LMG_SECRETS__KEY_FILE": str(shipped.root / "keys" / "my.key")}
    told = ran(shipped, "server", "add", "a", "--env", "A=1", "--", "true", code=7, env=place)
    assert "No such file or directory" in told
    (shipped.root / "keys").mkdir()
    ran(shipped, "server", "add", "a", "--env", "A=1", "--", "true", env=place)
    assert (shipped.root / "keys" / "my.key").exists()
    assert not key_file(shipped).exists()
    beside = {"LMG_SECRETS__KEY_FILE": str(shipped.database.parent / "my.key")}
    (shipped.root / "keys" / "my.key").rename(shipped.database.parent / "my.key")
    found = json.loads(shipped.run("doctor", "--json", env=beside).stdout)["findings"]
    (said,) = [item["message"] for item in found if item["check"] == "secrets"]
    assert "next to the database" in said


def maps(gateway: GatewayProcess) -> str:
    return Path(f"/proc/{gateway.process.pid}/maps").read_text()


def test_cryptography_is_not_loaded_until_a_sealed_value_is_needed(shipped: Place) -> None:
    add(shipped)
    with shipped.serve(prefix=["env"]) as gateway:  # not by a fork, which has every module loaded
        gateway.wait_ready()
        ran(shipped, "server", "show", "github")
        ran(shipped, "server", "add", "b", "--", "true")
        assert "/cryptography/" not in maps(gateway)
        pid_of(shipped)
        assert "/cryptography/" in maps(gateway)
        assert gateway.stop() == 0
