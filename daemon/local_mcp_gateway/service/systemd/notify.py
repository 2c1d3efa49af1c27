"""Notify systemd of the service's state (sd_notify) without a library. A no-op outside of systemd.

A datagram that changes what systemd does (such as READY=1) waits while the manager's queue is full; one
that only informs is dropped then.

Sources: sd_notify(3); systemd.service(5) "TimeoutStartSec=", "WatchdogSec=".
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

INSIST_S = 2
_INSIST = struct.pack("ll", INSIST_S, 0)
EXTENSION_S = 30
"""The extension requested by each EXTEND_TIMEOUT_USEC, which is sent far more often."""


class Notifier:
    """The connection to the service manager; safe to use from any thread, never raises."""

    def __init__(self, address: str = "") -> None:
        self._socket: socket.socket | None = None
        if address:
            # "@" marks the abstract namespace, whose names begin with a zero byte.
            self._address = "\0" + address[1:] if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _INSIST)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """Return the notifier that NOTIFY_SOCKET asks for."""
        return cls(environment.get("NOTIFY_SOCKET", ""))

    def __bool__(self) -> bool:
        """Tell whether a service manager listens."""
        return self._socket is not None

    def send(self, *, insist: bool = False, **fields: str | int) -> None:
        """Send the fields as one datagram; `insist` waits up to INSIST_S for room in the queue."""
        if self._socket is None:
            return
        text = "\n".join(f"{key}={_one_line(value)}" for key, value in fields.items())
        waiting = (socket.MSG_DONTWAIT, 0) if insist else (socket.MSG_DONTWAIT,)
        for flags in waiting:
            try:
                self._socket.sendto(text.encode("utf-8", "replace"), flags, self._address)
            except BlockingIOError:
                continue
            except OSError:
                pass  # keep serving without the manager
            return

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self.send(STATUS=text)

    def working(self, text: str = "") -> None:
        """Extend the timeout, so that a long migration is never killed halfway; set the status line."""
        more_us = EXTENSION_S * 1_000_000
        if text:
            self.send(EXTEND_TIMEOUT_USEC=more_us, STATUS=text)
        else:
            self.send(EXTEND_TIMEOUT_USEC=more_us)

    def ready(self, text: str) -> None:
        """Report that the service is migrated and listens."""
        self.send(insist=True, READY=1, STATUS=text)

    def reloading(self) -> None:
        """Report the start of a reload; READY=1 ends it. The time tells systemd which reload is meant."""
        now_us = time.monotonic_ns() // 1000
        self.send(insist=True, RELOADING=1, MONOTONIC_USEC=now_us, STATUS="reloading")

    def stopping(self, text: str) -> None:
        """Report the start of the stop."""
        self.send(insist=True, STOPPING=1, STATUS=text)

    def failed(self, text: str, errno: int) -> None:
        """Leave the reason where `systemctl status` shows it after the process has ended."""
        self.send(insist=True, STATUS=text, ERRNO=errno)

    def alive(self) -> None:
        """Feed the watchdog."""
        self.send(WATCHDOG=1)


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Return how often to feed the watchdog (half of its timeout), or None if there is none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        patience_us = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return patience_us / 2_000_000 if patience_us > 0 else None


def _one_line(value: str | int) -> str:
    return " ".join(str(value).split("\n"))
