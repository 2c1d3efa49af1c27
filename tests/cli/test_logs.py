"""`logs`, after real starts."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.harness import Place, clean_environment, poll


def test_what_was_logged_is_shown_again_filtered_and_as_json_lines(shipped: Place) -> None:
    with shipped.serve() as gateway:
        gateway.wait_ready()
        gateway.stop()
    everything = [json.loads(line) for line in shipped.run("logs", "--json").stdout.splitlines()]
    quiet = ("debug",)
    assert [line["event"] for line in everything if line["level"] not in quiet] == [
        event["event"] for event in gateway.events if event["level"] not in quiet
    ]
    only = shipped.run("logs", "--event", "guard.*", "--json").stdout.splitlines()
    assert {json.loads(line)["event"].partition(".")[0] for line in only} == {"guard"}
    assert shipped.run("logs", "--level", "error").stdout == ""
    assert shipped.run("logs", "--since", "2100-01-01").stdout == ""
    assert len(shipped.run("logs", "-n", "3").stdout.splitlines()) == 3


def test_a_time_that_is_none_is_refused(shipped: Place) -> None:
    done = shipped.run("logs", "--since", "yesterday-ish")
    assert done.code == 2
    assert "→ Write 10m" in done.stderr


def test_following_shows_what_comes(shipped: Place) -> None:
    with subprocess.Popen(
        [*shipped.command, *shipped.options, "logs", "--follow", "-n", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**clean_environment(shipped.home), "PYTHONUNBUFFERED": "1"},
        cwd=shipped.root,
    ) as following:
        assert following.stdout is not None
        poll(lambda: watches(following.pid))
        with shipped.serve() as gateway:
            gateway.wait_ready()
            seen = ""
            while seen != "service.ready":
                seen = json.loads(following.stdout.readline())["event"]
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 0


def watches(process: int) -> bool:
    """Tell whether a process has begun to watch files."""
    with suppress(OSError):
        descriptors = Path(f"/proc/{process}/fd").iterdir()
        return any("inotify" in str(descriptor.readlink()) for descriptor in descriptors)
    return False
