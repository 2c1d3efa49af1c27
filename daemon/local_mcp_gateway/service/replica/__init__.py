"""The replica: a copy of the database off this machine that Litestream keeps up to date."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.replica.litestream import (
        Moments,
        fetch,
        moments,
        parse_moment,
    )
    from local_mcp_gateway.service.replica.replication import Replication
    from local_mcp_gateway.service.replica.store import ReplicaStore, Target
else:
    __getattr__ = exports(
        __name__,
        litestream=("Moments", "fetch", "moments", "parse_moment"),
        replication=("Replication",),
        store=("ReplicaStore", "Target"),
    )

__all__ = [
    "Moments",
    "ReplicaStore",
    "Replication",
    "Target",
    "fetch",
    "moments",
    "parse_moment",
]
