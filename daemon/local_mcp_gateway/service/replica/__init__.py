"""The replica: a copy of the database off this machine that Litestream keeps up to date."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.replica.policy import replicating
    from local_mcp_gateway.service.replica.replication import LAST_SYNC_S, Replication
    from local_mcp_gateway.service.replica.restore import Checked, check, fetched, replicated_before
    from local_mcp_gateway.service.replica.sent import Moments, fetch, moments, parse_moment
    from local_mcp_gateway.service.replica.store import LEASE_S, ReplicaStore, Target, clocks_differ
else:
    __getattr__ = exports(
        __name__,
        policy=("replicating",),
        replication=("LAST_SYNC_S", "Replication"),
        restore=("Checked", "check", "fetched", "replicated_before"),
        sent=("Moments", "fetch", "moments", "parse_moment"),
        store=("LEASE_S", "ReplicaStore", "Target", "clocks_differ"),
    )

__all__ = [
    "LAST_SYNC_S",
    "LEASE_S",
    "Checked",
    "Moments",
    "ReplicaStore",
    "Replication",
    "Target",
    "check",
    "clocks_differ",
    "fetch",
    "fetched",
    "moments",
    "parse_moment",
    "replicated_before",
    "replicating",
]
