"""Run what a Dockerfile says without an engine: in an overlay of this machine's files.

The overlay lasts as long as a mount namespace. This machine's Python is bound to /usr/local, where the
base image has its own, and one root stands for both stages.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT = f"""\
export PATH={PATH}
mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work" "$1/root" &&
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" &&
mount --bind "$2" "$1/root/usr/local" && mount --rbind /dev "$1/root/dev" &&
mount -t proc proc "$1/root/proc" && cd "$1/root" && chroot . ldconfig || exit 1
"""
"""For sh; $1 is an empty folder, $2 where this machine's Python is installed."""
RUN = """\
cd && mkfifo log || exit 1
{command} >log 2>&1 & pid=$!
exec 3<log
while read -r line; do
    echo "$line"
    case $line in *service.ready*) break ;; esac
done <&3
{health}; echo "health check: $?"
ls -A
kill -TERM $pid
cat <&3
wait $pid; echo "$(id -un): exit $?"
"""
"""For sh, as the user of the image: serve, ask for its health, and stop."""


class Image(NamedTuple):
    """What a Dockerfile makes."""

    build: list[str]
    """Commands for sh, in order; in the root of the image, $3 is the build context."""
    user: str
    environment: str
    """Assignments for sh."""
    health: str
    command: list[str]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest


def read_image(text: str) -> Image:
    """Read a Dockerfile that has no more than these instructions."""
    build: list[str] = []
    user, environment, health = "", "", ""
    command: dict[str, list[str]] = {}
    for word, rest in instructions(text):
        match word, rest.split():
            case "FROM", [base, *_]:
                assert base.startswith("python:3")
            case "COPY", [".", target]:
                build.append(f'mkdir .{target} && cp -a "$3/." .{target}')
            case "COPY", [_, here, there]:
                assert here == there, "one root stands for both stages"
            case "RUN", _:
                build.append(f"chroot . sh -c {shlex.quote(rest)}")
            case "ENV", _:
                environment = rest
            case "USER", [user]:
                pass
            case "HEALTHCHECK", _:
                health = rest.partition("CMD ")[2]
            case "ENTRYPOINT" | "CMD", _:
                command[word] = json.loads(rest)
            case _:
                assert word == "VOLUME"
    return Image(build, user, environment, health, command["ENTRYPOINT"] + command["CMD"])


def in_overlay(
    script: str, place: Path, context: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script in the root of an overlay, in namespaces of its own."""
    place.mkdir(exist_ok=True)
    apart = ("unshare", "--mount", "--pid", "--fork", "--propagation", "private")
    arguments = (str(place), sys.base_prefix, str(context))
    return subprocess.run(
        [*apart, "sh", "-c", ROOT + script, "sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
