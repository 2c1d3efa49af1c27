"""systemd: notifications, units and systemctl."""

from typing import TYPE_CHECKING

from local_mcp_gateway.lazy import exports

if TYPE_CHECKING:
    from local_mcp_gateway.service.systemd.notify import Notifier, watchdog_interval_s
    from local_mcp_gateway.service.systemd.units import SERVICE
else:
    __getattr__ = exports(
        __name__,
        notify=("Notifier", "watchdog_interval_s"),
        units=("SERVICE",),
    )

__all__ = ["SERVICE", "Notifier", "watchdog_interval_s"]
