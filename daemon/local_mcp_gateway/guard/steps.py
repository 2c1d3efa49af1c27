"""What the story needs only when something is pending: loaded then, and called by its name there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway.guard.hold import back_up, commit, hold, settle, thin_out
from local_mcp_gateway.guard.transact import apply_live
from local_mcp_gateway.migrate.groups import wants_foreign_keys

if TYPE_CHECKING:
    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.values import Plan, Rehearsal

__all__ = ["apply_live", "back_up", "commit", "hold", "rehearse", "settle", "thin_out"]
__all__ += ["wants_foreign_keys"]


def rehearse(attempt: Attempt, backup: Backup, plan: Plan) -> Rehearsal | None:
    """Rehearse where the policy wants it, and face what it found; None where it does not.

    A new database has no rehearsal, and does not pay for its imports.
    """
    from local_mcp_gateway.guard import rehearse as stage
    from local_mcp_gateway.guard.hazards import face_hazards

    if not stage.is_due(attempt, plan):
        return None
    rehearsal = stage.rehearse(attempt, backup, plan)
    face_hazards(attempt, plan, rehearsal, backup)
    return rehearsal
