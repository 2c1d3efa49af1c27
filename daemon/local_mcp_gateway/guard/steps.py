"""What the story needs only when something is pending: loaded then, and called by its name there."""

from __future__ import annotations

from local_mcp_gateway.guard.hazards import face_hazards
from local_mcp_gateway.guard.hold import back_up, commit, hold, settle, thin_out
from local_mcp_gateway.guard.rehearse import is_due, rehearse
from local_mcp_gateway.guard.transact import apply_live
from local_mcp_gateway.migrate.groups import wants_foreign_keys

__all__ = [
    "apply_live",
    "back_up",
    "commit",
    "face_hazards",
    "hold",
    "is_due",
    "rehearse",
    "settle",
    "thin_out",
    "wants_foreign_keys",
]
