"""The guard's policy as the settings and one command's options ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_mcp_gateway import __version__
from local_mcp_gateway.guard.policy import GuardPolicy

if TYPE_CHECKING:
    from local_mcp_gateway.config import Settings


def guard_policy(
    settings: Settings,
    *,
    to: str | None = None,
    allow_out_of_order: bool = False,
    journal_new_files: bool = False,
) -> GuardPolicy:
    """Return what the settings and one command's options ask of the guard."""
    return GuardPolicy(
        rehearse=settings.guard.rehearse,  # type: ignore[arg-type]  # a closed set, checked by config
        destructive=settings.guard.destructive,  # type: ignore[arg-type]
        drift=settings.guard.drift,  # type: ignore[arg-type]
        backup_folder=settings.backup_folder,
        quick_check_limit_s=settings.guard.quick_check_limit_s,
        allow_out_of_order=allow_out_of_order,
        to=to,
        journal_new_files=journal_new_files,
        program_version=__version__,
    )
