"""Extend the guard's policy: everything is sent to the replica before a migration."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.guard import GuardPolicy


def replicating(settings: Settings, policy: GuardPolicy) -> GuardPolicy:
    """Return the policy of a run that sends everything to the replica, if there is one, before a migration."""
    if not settings.replica.url:
        return policy
    from local_mcp_gateway.service.replica.pin import pin  # without a replica nobody pays for it

    return replace(policy, replicate=partial(pin, settings))
