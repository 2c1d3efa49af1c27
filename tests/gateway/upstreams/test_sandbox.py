"""A command in a sandbox, on this machine's kernel: what it may still do, and what it may not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.gateway.upstreams import sandbox
from local_mcp_gateway.gateway.upstreams.sandbox import (
    NoSandbox,
    readable,
    sandbox_command,
    sandbox_gaps,
)
from tests import needs
from tests.harness import DEADLINE_S

TRIES = """
import json, os, socket, subprocess, sys
outside, inside, secret, pid = sys.argv[1:]
def tried(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"
print(json.dumps({
    "read": tried(lambda: open(outside).read()),
    "write": tried(lambda: open(outside, "a")),
    "empty": tried(lambda: os.truncate(outside, 0)),
    "remove": tried(lambda: os.unlink(outside)),
    "make": tried(lambda: os.mkdir(outside + ".d")),
    "read a secret": tried(lambda: open(secret).read()),
    "replace a secret": tried(lambda: os.rename(secret, inside + "/x")),
    "write inside": tried(lambda: open(inside + "/a", "w").write("a")),
    "make inside": tried(lambda: os.makedirs(inside + "/b/c")),
    "write to nowhere": tried(lambda: open("/dev/null", "w").write("a")),
    "connect": tried(lambda: socket.socket().bind(("127.0.0.1", 0))),
    "send": tried(lambda: socket.socket(type=socket.SOCK_DGRAM).bind(("127.0.0.1", 0))),
    "reach a program": tried(lambda: socket.socket(socket.AF_UNIX)),
    "a pair": tried(socket.socketpair),
    "send from a pair": tried(lambda: socket.socketpair(type=socket.SOCK_DGRAM)),
    "read an environment": tried(lambda: open(f"/proc/{pid}/environ").read()),
    "signal": tried(lambda: os.kill(int(pid), 0)),
    "start": tried(lambda: subprocess.run(["true"], check=True)),
    "start and read a secret": subprocess.run(["cat", secret], capture_output=True).returncode,
}))
"""
REFUSED = "PermissionError"
ALWAYS = {
    "read": "done",
    "write": REFUSED,
    "remove": REFUSED,
    "make": REFUSED,
    "read a secret": REFUSED,
    "write inside": "done",
    "make inside": "done",
    "write to nowhere": "done",
    "reach a program": REFUSED,
    "a pair": "done",
    "send from a pair": REFUSED,
    "read an environment": REFUSED,
    "start": "done",
    "start and read a secret": 1,
}


@pytest.fixture(scope="module")
def gaps() -> list[str]:
    return needs.sandbox()


@pytest.mark.parametrize("network", [True, False])
def test_a_command_reads_writes_where_it_may_and_reaches_nothing_else(
    tmp_path: Path, gaps: list[str], *, network: bool
) -> None:
    inside, private = tmp_path / "inside", tmp_path / "private"
    inside.mkdir()
    private.mkdir()
    outside, secret = tmp_path / "outside", private / "secret"
    outside.write_text("text")
    secret.write_text("secret")
    (private / "other").write_text("no secret")
    arguments = ["-c", TRIES, str(outside), str(inside), str(secret), str(os.getpid())]
    command = sandbox_command(
        sys.executable, arguments, [str(secret)], [str(inside)], network=network
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert {name: found[name] for name in ALWAYS} == ALWAYS
    assert found["replace a secret"] != "done"
    told = " ".join(gaps)
    assert found["empty"] == ("done" if "emptied" in told else REFUSED)
    assert found["signal"] == ("done" if "signals" in told else REFUSED)
    assert found["connect"] == found["send"] == ("done" if network else REFUSED)
    assert outside.exists()
    assert secret.read_text() == "secret"


def test_a_command_that_is_not_there_is_told(gaps: list[str]) -> None:
    del gaps
    command = sandbox_command("/no/such/program", [], [], [], network=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 1
    assert done.stderr == "'/no/such/program' cannot be started: No such file or directory\n"


def test_without_landlock_there_is_no_sandbox_and_not_one_that_does_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "version", lambda: 0)
    with pytest.raises(NoSandbox, match="the kernel has no Landlock"):
        sandbox_gaps()
    with pytest.raises(NoSandbox):
        sandbox.restrict([], [], network=True)
    monkeypatch.setattr(sandbox, "version", lambda: 1)
    assert [gap.partition(" ")[0] for gap in sandbox_gaps()] == ["files", "signals"]


def test_all_of_a_folder_is_readable_but_what_is_hidden(tmp_path: Path) -> None:
    for name in ("a/b/secret", "a/b/plain", "a/c", "d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("a/b/secret")
    root = str(tmp_path)
    found = set(readable(root, [f"{root}/a/b/secret"]))
    assert found == {f"{root}/a/b/plain", f"{root}/a/c", f"{root}/d"}
    assert list(readable(root, ["/elsewhere"])) == [root]
    assert list(readable(root, [root])) == []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{root}/socket")
        assert f"{root}/socket" in set(readable(root, [f"{root}/d"]))
