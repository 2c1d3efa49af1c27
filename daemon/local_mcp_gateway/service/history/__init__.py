"""What the service has recorded: its starts and its logs."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.history.startup import (
        Start,
        StartRecord,
        phases_of,
        read_starts,
        since_process_start_ms,
        start_as_json,
    )
else:
    __getattr__ = exports(
        __name__,
        startup=(
            "Start",
            "StartRecord",
            "phases_of",
            "read_starts",
            "since_process_start_ms",
            "start_as_json",
        ),
    )

__all__ = [
    "Start",
    "StartRecord",
    "phases_of",
    "read_starts",
    "since_process_start_ms",
    "start_as_json",
]
