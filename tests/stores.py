"""Where the tests replicate to: a folder, and an S3 store that is a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_mcp_gateway.config import ReplicaSettings
from local_mcp_gateway.database import open_immutable
from local_mcp_gateway.service.admin import ask
from local_mcp_gateway.service.replica import Target, fetch
from tests.harness import Place, clean_environment

KEY_ID, SECRET = "the-key-id", "not-for-any-log"
_SIGNED = f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20261129/us-east-1/s3/aws4_request"


@dataclass(frozen=True, slots=True)
class Replica:
    """Where one gateway replicates to, and the environment that tells it so."""

    url: str
    endpoint: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a gateway that replicates to it."""
        found = {"LMG_REPLICA__URL": self.url}
        if self.endpoint:
            found |= {"LMG_REPLICA__ENDPOINT": self.endpoint}
            found |= {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
        return found

    @property
    def target(self) -> Target:
        return Target.of(ReplicaSettings(url=self.url, endpoint=self.endpoint))

    def freeze(self) -> None:
        """Let the store take connections and answer nothing, as behind a network that is cut."""
        assert self.process is not None, "it is a store with a process"
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None, "it is a store with a process"
        self.process.send_signal(signal.SIGCONT)

    def rows(self, sql: str, to: Path) -> list[tuple[object, ...]]:
        """Return what a query finds in the newest state that can be restored."""
        fetch(self.target, to)
        try:
            with closing(open_immutable(to)) as reader:
                assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                return [tuple(row) for row in reader.execute(sql)]
        finally:
            to.unlink()


@contextmanager
def running_store(folder: Path, bucket: str = "backups") -> Iterator[Replica]:
    """Run an S3 store with one bucket on a free port; yield a place in it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(folder),
    )
    assert process.stderr is not None, "it is a pipe"
    try:
        lines = iter(process.stderr.readline, "")
        found = next(match for line in lines if (match := re.search(r"http://\S+", line)))
        request = urllib.request.Request(
            f"{found[0]}/{bucket}", method="PUT", headers={"Authorization": _SIGNED}
        )
        with urllib.request.urlopen(request, timeout=60):
            pass
        yield Replica(f"s3://{bucket}/gateway", found[0], process)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


NAMES = "SELECT name FROM mcp_servers ORDER BY name"


def add(place: Place, name: str) -> None:
    """Write a row: a server."""
    assert place.run("server", "add", name, "--", "/bin/cat").code == 0


def level(place: Place) -> bool:
    """Let a running gateway send what is new; tell whether the replica has everything."""
    return ask(place.database, "replica.sync", {}, timeout_s=60) is not None


def filled(place: Place, replica: Replica, *names: str) -> None:
    """Let a gateway write servers, and stop it when the replica has them."""
    with place.serve(env=replica.env) as gateway:
        gateway.wait_ready()
        gateway.wait_for("replica.started")
        for name in names:
            add(place, name)
        assert gateway.stop() == 0
        gateway.wait_for("replica.stopped")
