"""Killed, or on a broken disk: a row never names a key that is lost, and no value is."""

from __future__ import annotations

import re

import pytest

from tests.cli.sealed import SECRET, add, key_file, ran, secrets_finding, values
from tests.harness import Place


def test_the_key_is_on_the_disk_before_a_row_names_it(shipped: Place, needs_strace: None) -> None:
    shipped.migrate()
    trace = shipped.root / "trace"
    calls = "trace=fsync,fdatasync,?link,linkat,pwrite64"
    prefix = ("strace", "-qq", "-f", "-y", "-s", "0", "-e", calls, "-o", str(trace))
    ran(shipped, "server", "add", "github", "--env", f"TOKEN={SECRET}", "--", "true", prefix=prefix)
    steps = [
        step
        for line in trace.read_text().splitlines()
        for pattern, step in STEPS.items()
        if re.search(pattern, line)
    ]
    first = [steps.index(step) for step in STEPS.values()]
    assert first == sorted(first), steps


STEPS = {
    r"fsync\(\d+<[^>]*local-mcp-gateway\.key": "the key's bytes",
    r"link(at)?\(": "its name",
    r"fsync\(\d+<[^>]*/\.config>": "its folder",
    r"pwrite64\(\d+<[^>]*gateway\.db-wal>": "the row",
}


def injecting(call: str, what: str, *more: str) -> tuple[str, ...]:
    """Return the command that runs another one with something done to one of its system calls."""
    inject = f"inject={call}:{what}"
    return ("strace", "-qq", "-f", *more, "-e", f"trace={call}", "-e", inject, "-o", "/dev/null")


@pytest.mark.parametrize("call", ["fsync", "unlink"])
def test_killed_while_the_first_key_is_made_no_row_names_a_lost_one(
    shipped: Place, needs_strace: None, call: str
) -> None:
    shipped.migrate()
    for number in range(1, 20):
        prefix = injecting(call, f"signal=KILL:when={number}")
        command = ("server", "add", f"s{number}", "--env", f"TOKEN={SECRET}", "--", "true")
        done = shipped.run(*command, prefix=prefix)
        for (name,) in shipped.query("SELECT name FROM mcp_servers"):
            assert values(shipped, name) == {"TOKEN": SECRET}
        if done.code == 0:
            break
    assert number > 1
    assert done.code == 0
    assert [path.name for path in key_file(shipped).parent.iterdir()] == [key_file(shipped).name]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [("fsync", "EIO", "Input/output error"), ("write", "ENOSPC", "No space left on device")],
)
def test_a_key_that_cannot_be_written_stores_nothing_and_says_why(
    shipped: Place, needs_strace: None, call: str, error: str, said: str
) -> None:
    shipped.migrate()
    temporary = key_file(shipped).with_name(f".{key_file(shipped).name}.tmp")
    temporary.parent.mkdir()
    prefix = injecting(call, f"error={error}", "-P", str(temporary))
    told = ran(shipped, "server", "add", "a", "--env", "A=1", "--", "true", code=7, prefix=prefix)
    assert said in told
    assert shipped.query("SELECT name FROM mcp_servers") == []
    assert list(key_file(shipped).parent.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "fdatasync", "rename"])
def test_killed_at_any_moment_of_a_rotation_every_value_opens(
    shipped: Place, needs_strace: None, call: str
) -> None:
    add(shipped)
    killed = 0
    for number in range(1, 40):
        done = shipped.run(
            "secrets", "rotate", prefix=injecting(call, f"signal=KILL:when={number}")
        )
        assert values(shipped) == {"TOKEN": SECRET}
        if done.code == 0:
            break
        killed += 1
    assert killed > 0
    assert done.code == 0
    assert "open" in secrets_finding(shipped, "ok")
    (key, *older) = [line for line in key_file(shipped).read_text().split() if line.endswith("=")]
    assert older
    assert len(key) == 44
