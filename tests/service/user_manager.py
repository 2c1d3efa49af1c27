"""A real systemd user manager with a journal, in namespaces of its own, for one test module.

Needs root's right to mount, Debian's systemd and dbus-user-session; elsewhere the tests skip with the
reason. The recipe: new mount and PID namespaces, a tmpfs on /run with /run/systemd/system (without which
`systemd --user` exits 1 in silence), a journald, the cgroup of user@UID.service, then the manager.
It runs as the user of the test, because that user's interpreter has to be readable.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import DEADLINE_S, Finished, poll

MANAGER = "/lib/systemd/systemd"
JOURNALD = "/lib/systemd/systemd-journald"
BASES = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
_NUMBERS = itertools.count()
SCRIPT = r"""
set -eu
uid=$(id -u)
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/systemd/inaccessible/dir /run/user/$uid /run/log/journal /run/lock
chmod 700 /run/user/$uid
@JOURNALD@ &
for base in @BASES@; do
    [ -e $base/cgroup.procs ] || continue
    scope=$base/@SLICE@/user.slice/user-$uid.slice/user@$uid.service/init.scope
    mkdir -p $scope && echo $$ > $scope/cgroup.procs || true
done
export XDG_RUNTIME_DIR=/run/user/$uid
# Not by exec: as the namespace's process 1 it would take itself for the system's manager.
# A user's manager may not mount: it puts credentials into a plain folder.
setpriv --bounding-set=-sys_admin @MANAGER@ --user --log-target=null &
wait
"""


def missing() -> str:
    """Return why no user manager can be run here, or nothing."""
    needed = [MANAGER, JOURNALD, "unshare", "nsenter", "systemctl", "dbus-daemon"]
    absent = [name for name in needed if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    script = "mount -t tmpfs tmpfs /run && setpriv --bounding-set=-sys_admin true"
    tried = subprocess.run(
        [*NAMESPACES, "sh", "-c", script], check=False, capture_output=True, text=True
    )
    return (
        "" if tried.returncode == 0 else f"no user manager in a namespace: {tried.stderr.strip()}"
    )


@dataclass(frozen=True, slots=True)
class UserManager:
    """A running user manager."""

    inside: int
    """The process to enter the namespaces of."""
    environment: dict[str, str]

    def run(self, *command: str, check: bool = True) -> Finished:
        """Run a command as the user would, while the manager runs."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.inside), "--mount", "--pid", "--", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S * 2,
        )
        finished = Finished(done.returncode, done.stdout, done.stderr)
        assert not check or done.returncode == 0, (command, finished)
        return finished

    @contextmanager
    def journal_stopped(self) -> Iterator[None]:
        """Let the journal stand still inside of the block: it takes nothing, and refuses nothing."""
        children = Path(f"/proc/{self.inside}/task/{self.inside}/children").read_text().split()
        comms = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in children}
        (journal,) = (pid for pid, name in comms.items() if name.startswith("systemd-journal"))
        os.kill(journal, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(journal, signal.SIGCONT)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit."""
        text = self.run("systemctl", "--user", "show", unit, "-p", ",".join(properties)).stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """Return the journal's entries with these fields, once there is one.

        A gateway that serves writes its log in batches, so what it did may be seen before it is told.
        """
        found: list[dict[str, Any]] = []

        def told() -> bool:
            self.run("journalctl", "--sync", check=False)
            text = self.run("journalctl", "-o", "json", "--no-pager", *matches, check=False).stdout
            found.extend(json.loads(line) for line in text.splitlines() if line.startswith("{"))
            return bool(found)

        poll(told)
        return found


@contextmanager
def user_manager(home: Path) -> Iterator[UserManager]:
    """Run a user manager whose home is `home`; everything it started is gone afterwards."""
    # Of its own: another worker's manager would take processes of this one's unit for its unit's.
    slice_name = f"test{os.getpid()}x{next(_NUMBERS)}.slice"
    words = {
        "JOURNALD": JOURNALD,
        "MANAGER": MANAGER,
        "SLICE": slice_name,
        "BASES": " ".join(BASES),
    }
    script = SCRIPT
    for word, text in words.items():
        script = script.replace(f"@{word}@", text)
    uid = os.getuid()
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": f"/run/user/{uid}",
        "NO_COLOR": "1",
    }
    namespaces = subprocess.Popen(
        [*NAMESPACES, "--kill-child", "sh", "-c", script],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        children = Path(f"/proc/{namespaces.pid}/task/{namespaces.pid}/children")
        poll(lambda: bool(children.read_text().split()))
        manager = UserManager(int(children.read_text().split()[0]), environment)
        poll(
            lambda: (
                "running"
                in manager.run("systemctl", "--user", "is-system-running", check=False).stdout
            )
        )
        yield manager
    finally:
        # The namespace's first process takes all others with it.
        os.killpg(namespaces.pid, signal.SIGKILL)
        namespaces.wait()
        tops = [Path(base, slice_name) for base in BASES]
        poll(lambda: not any(_remains(top) for top in tops))


def _remains(top: Path) -> bool:
    """Remove a tree of control groups, as far as nothing in it is still dying; tell whether it remains."""
    for folder, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()
    return top.exists()
