"""What the guard insists on: the two or three values of the settings that it needs, as one value."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from local_mcp_gateway.backup.names import DEFAULT_KEEP_ASIDE
from local_mcp_gateway.backup.retention import Retention
from local_mcp_gateway.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


@frozen
class GuardPolicy:
    """How careful one start is. The defaults are the careful ones."""

    rehearse: Literal["always", "auto", "never"] = "always"
    destructive: Literal["warn", "refuse"] = "warn"
    drift: Literal["auto", "refuse", "warn"] = "auto"
    """`auto` refuses when something is pending (the change by hand may be in its way), else warns."""
    backup_folder: Path | None = None
    """None: `backups` beside the database's real path."""
    retention: Retention | None = field(default_factory=Retention)
    """Which backups stay after a migration has made another one; None keeps all."""
    quick_check_limit_s: float = 10.0
    allow_out_of_order: bool = False
    to: str | None = None
    """The tag that is the last one applied afterwards; None: all of the folder."""
    dev: bool = False
    """A `.sql` without a journal entry is journaled after its rehearsal, before COMMIT; and a start
    takes back what was edited after it was applied, and what dev mode applied and the folder lacks."""
    keep_aside: int = DEFAULT_KEEP_ASIDE
    """How many databases that dev mode replaced by their backup stay beside the new one."""
    program_version: str = ""
    functions: Mapping[str, Callable[..., object] | str] = field(default_factory=dict)
    """SQL functions that migrations may call, by name: callables, or "package.module:function"."""
