"""How old this process is: a start is measured from the moment the person pressed return."""

from __future__ import annotations

import os
import time
from pathlib import Path


def since_process_start_ms() -> float:
    """Return the age of this process, interpreter start included (10 ms resolution)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return round(time.process_time() * 1000, 1)
    started_s = ticks / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started_s) * 1000, 1)
