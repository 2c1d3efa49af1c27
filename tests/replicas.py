"""Where gateways of the tests replicate to, and what can be restored from there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_mcp_gateway.config import ReplicaSettings, Settings
from local_mcp_gateway.database import open_immutable
from local_mcp_gateway.service.admin import ask
from local_mcp_gateway.service.replica import Target, fetch
from tests.harness import GatewayProcess, Place, poll
from tests.object_store import KEYS

NAMES = "SELECT name FROM mcp_servers ORDER BY name"


@dataclass(frozen=True, slots=True)
class Replica:
    """Where one gateway replicates to, and the environment that tells it so."""

    url: str
    endpoint: str = ""
    ssh_key: str = ""
    ssh_host_key: str = ""

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a gateway that replicates to it."""
        found = {"LMG_REPLICA__URL": self.url}
        if self.ssh_key:
            found |= {
                "LMG_REPLICA__SSH_KEY": self.ssh_key,
                "LMG_REPLICA__SSH_HOST_KEY": self.ssh_host_key,
            }
        if self.endpoint:
            found |= {"LMG_REPLICA__ENDPOINT": self.endpoint, **KEYS}
        return found

    @property
    def settings(self) -> Settings:
        replica = ReplicaSettings(
            url=self.url,
            endpoint=self.endpoint,
            ssh_key=self.ssh_key,
            ssh_host_key=self.ssh_host_key,
        )
        return Settings(replica=replica)

    @property
    def target(self) -> Target:
        return Target.of(self.settings)

    def rows(self, sql: str = NAMES) -> list[tuple[object, ...]]:
        """Return what a query finds in the newest state that can be restored."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "restored.db")
            fetch(self.target, file)
            with closing(open_immutable(file)) as reader:
                assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                return [tuple(row) for row in reader.execute(sql)]


def add(place: Place, name: str) -> None:
    """Write a row: a server."""
    assert place.run("server", "add", name, "--", "/bin/cat").code == 0


def level(place: Place) -> bool:
    """Let a running gateway send what is new; tell whether the replica has everything."""
    return ask(place.database, "replica.sync", {}, timeout_s=60) is not None


def wait_at_rest(place: Place) -> None:
    """Wait until the replica of a running gateway has everything, and nothing is written."""

    def replica() -> Any:
        return ask(place.database, "status", {}, timeout_s=60)["replica"]

    poll(lambda: (replica()["state"], replica()["behind_s"]) == ("level", 0), describe=replica)


@contextmanager
def replicating(place: Place, replica: Replica, *names: str) -> Iterator[GatewayProcess]:
    """Run a gateway that is ready and replicates, and let it write these servers."""
    with place.serve(env=replica.env) as gateway:
        gateway.wait_ready()
        gateway.wait_for("replica.started")
        for name in names:
            add(place, name)
        yield gateway


def filled(place: Place, replica: Replica, *names: str) -> GatewayProcess:
    """Let a gateway write servers, and stop it when the replica has them; return what it was."""
    with replicating(place, replica, *names) as gateway:
        assert gateway.stop() == 0
        gateway.wait_for("replica.stopped")
    return gateway
