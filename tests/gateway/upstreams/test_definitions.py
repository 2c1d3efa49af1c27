"""A server's definition, prepared for use: its command in a sandbox sees nothing that is secret."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.config import load_settings
from local_mcp_gateway.gateway.upstreams import UpstreamDisconnected, in_sandbox
from local_mcp_gateway.gateway.upstreams.sandbox import PRIVATE
from local_mcp_gateway.service.options import gateway_options
from local_mcp_gateway.store import Sandbox, ServerDefinition, ServerKind
from tests import needs
from tests.harness import DEADLINE_S

READS = """
import json, sys
def opens(path):
    try:
        return bool(open(path).read())
    except OSError as error:
        return type(error).__name__
print(json.dumps({path: opens(path) for path in sys.argv[1:]}))
"""
OWN = (
    *("keys/secrets.key", "keys/copies.key", "backups/20260101T000000.000Z.db"),
    *("g.db", "g.db-wal", "g.db-shm", "g.db-journal", "g.replaced-20260101T000000.000Z.db"),
    *("g.db.token", "g.db.log.jsonl", "g.db.log.jsonl.1", ".g.db-litestream/ltx/0/1.ltx"),
    "replica/ltx/0/1.ltx",
)
"""What a gateway with its database `g.db` keeps, and where."""
PLAIN = ("notes.db", "plain", ".config/plain/settings", ".cargo/config.toml", ".local/share/plain")
REFUSED = "PermissionError"
BOXED = ServerDefinition("box", ServerKind.STDIO, command=sys.executable, sandbox=Sandbox())


def made(folder: Path, name: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text")
    return str(path)


def reads(server: ServerDefinition, private: tuple[str, ...], files: list[str]) -> dict[str, Any]:
    """Run a server in its sandbox that tries to read files."""
    boxed = in_sandbox(replace(server, args=("-c", READS, *files)), private)
    assert boxed.command is not None
    command = [boxed.command, *boxed.args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("form", ["a file", "a folder", "a link to a folder"])
def test_nothing_is_read_where_other_programs_keep_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    needs.sandbox()
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    monkeypatch.setenv("HOME", str(home))
    secret = []
    for name in PRIVATE:
        if form == "a file":
            secret.append(made(home, name))
        elif form == "a folder":
            secret.append(made(home, f"{name}/deep/secret"))
        else:
            secret += [made(elsewhere, f"{name}/secret"), f"{home}/{name}/secret"]
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).symlink_to(elsewhere / name)
    plain = [made(home, name) for name in PLAIN]
    found = reads(BOXED, (), [*secret, *plain])
    assert found == {**dict.fromkeys(secret, REFUSED), **dict.fromkeys(plain, True)}


def test_nothing_is_read_of_what_the_gateway_keeps(tmp_path: Path) -> None:
    needs.sandbox()
    secret, plain = ([made(tmp_path, name) for name in names] for names in (OWN, PLAIN))
    settings = load_settings(
        environment={},
        options={
            "database.path": f"{tmp_path}/g.db",
            "secrets.key_file": f"{tmp_path}/keys/secrets.key",
            "backup.copy_key_file": f"{tmp_path}/keys/copies.key",
            "replica.url": f"file://{tmp_path}/replica",
        },
    )
    found = reads(BOXED, gateway_options(settings).private_files, [*secret, *plain])
    assert found == {**dict.fromkeys(secret, REFUSED), **dict.fromkeys(plain, True)}


def test_only_a_server_with_a_sandbox_gets_one_and_only_for_a_command_that_is_there() -> None:
    free = replace(BOXED, sandbox=None)
    assert in_sandbox(free, ()) is free
    with pytest.raises(UpstreamDisconnected, match="'no-such-program' does not exist"):
        in_sandbox(replace(BOXED, command="no-such-program"), ())
