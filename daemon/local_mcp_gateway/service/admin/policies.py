"""Read and show policies: what may be done in a profile, or with a token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.store import Policy


def changed_policy(old: Policy, changes: Mapping[str, Any] | None) -> Policy:
    """Return a policy with these members replaced; raises UsageProblem for one that cannot be."""
    given = dict(changes or {})
    for key in ("allowed", "denied"):
        if key in given:
            given[key] = tuple(given[key])
    return replace(old, **given).checked()


def policy_as_json(policy: Policy) -> dict[str, object]:
    """Return a policy as `profile show --json` and `token list --json` print it."""
    return {
        "allowed": list(policy.allowed),
        "denied": list(policy.denied),
        "read_only": policy.read_only,
        "calls_per_minute": policy.calls_per_minute,
        "calls_at_once": policy.calls_at_once,
    }
