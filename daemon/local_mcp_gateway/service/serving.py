"""What one run of the service is given, besides the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from local_mcp_gateway.config import Settings


@dataclass(frozen=True, slots=True)
class Serving:
    """How this one run differs from what the settings say."""

    settings: Settings
    reread: Callable[[], Settings]
    """Read the settings again, for a reload; raises ConfigProblem."""
    lock_timeout_s: float = 0.0
    dev: bool = False
    socket_fd: int | None = None
    """The listening socket that the dev supervisor holds."""
    config_files: tuple[Path, ...] = ()
    """What dev mode watches, in one folder, there or not: a save of one is a reload."""
    greet: Callable[[str, tuple[str, ...]], None] | None = None
    """Called with the URL and the profiles when everything is up: dev mode's lines to paste."""
