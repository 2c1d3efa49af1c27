"""Tell systemd how it goes: sd_notify's datagrams, without a library. No-op outside of systemd.

Sources: sd_notify(3); systemd.service(5) "TimeoutStartSec=", "WatchdogSec=".
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

EXTENSION_S = 30
"""How long systemd gives us after each EXTEND_TIMEOUT_USEC; it is sent far more often than that."""


class Notifier:
    """The connection to the service manager; safe to use from any thread, never blocks, never fails."""

    def __init__(self, address: str = "") -> None:
        self._socket: socket.socket | None = None
        if address:
            # "@" marks the abstract namespace, whose names begin with a zero byte.
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """Return the notifier that NOTIFY_SOCKET asks for."""
        return cls(environment.get("NOTIFY_SOCKET", ""))

    def __bool__(self) -> bool:
        """Tell whether a service manager listens at all."""
        return self._socket is not None

    def send(self, **fields: str | int) -> None:
        """Send the fields as one datagram."""
        if self._socket is None:
            return
        text = "\n".join(f"{key}={_one_line(value)}" for key, value in fields.items())
        try:
            self._socket.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError:
            # A manager that went away, or a full queue: no reason to stop serving.
            return

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self.send(STATUS=text)

    def working(self) -> None:
        """Ask for more time, so that a long migration is never killed half-way."""
        self.send(EXTEND_TIMEOUT_USEC=EXTENSION_S * 1_000_000)

    def ready(self, text: str) -> None:
        """Say that the service is migrated and listens."""
        self.send(READY=1, STATUS=text)

    def reloading(self) -> None:
        """Say that a reload began; READY=1 ends it. The time tells systemd which reload is meant."""
        self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000, STATUS="reloading")

    def stopping(self, text: str) -> None:
        """Say that the stop began."""
        self.send(STOPPING=1, STATUS=text)

    def failed(self, text: str, errno: int) -> None:
        """Leave the reason where `systemctl status` finds it after we have ended."""
        self.send(STATUS=text, ERRNO=errno)

    def alive(self) -> None:
        """Feed the watchdog."""
        self.send(WATCHDOG=1)


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often the watchdog wants to be fed (half of its patience), or None if not at all."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        patience_us = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return patience_us / 2_000_000 if patience_us > 0 else None


def _one_line(value: str | int) -> str:
    return " ".join(str(value).split("\n"))
