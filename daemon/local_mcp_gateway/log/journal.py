"""The journal's native protocol: one datagram per event, every key a field of its own.

So `journalctl --user -u local-mcp-gateway MIGRATION=0003_add_description -o json` finds entries that
text lines on stderr would bury. Source of the format: systemd, "Native Journal Protocol".
"""

from __future__ import annotations

import array
import json
import os
import re
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from local_mcp_gateway.log import Sink

JOURNAL_SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "local-mcp-gateway"
_PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
_ALIASES = {"tag": "MIGRATION", "message": "TEXT", "priority": "PRIORITY_GIVEN"}
"""`tag` is always a migration's; MESSAGE and PRIORITY have meanings of their own in the journal."""


def is_journal(stream: Sink, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether `stream` is the very socket that systemd connected to the journal.

    JOURNAL_STREAM is inherited by children whose stderr goes elsewhere, hence the comparison.
    """
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return device == str(status.st_dev) and inode == str(status.st_ino)


def as_datagram(message: str, level: str, event: str, fields: Mapping[str, object]) -> bytes:
    """Encode one entry; a value with line breaks is length-prefixed, as the protocol wants."""
    entry = {
        "MESSAGE": message,
        "PRIORITY": _PRIORITIES[level],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "EVENT": event,
    }
    for key, value in fields.items():
        name = (
            _ALIASES.get(key) or re.sub(r"[^A-Z0-9_]", "_", key.upper()).lstrip("_0123456789")[:64]
        )
        if name:
            entry.setdefault(
                name, value if isinstance(value, str) else json.dumps(value, default=str)
            )
    return b"".join(_field(name, value) for name, value in entry.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


class Journal:
    """The connection to the journal; lives as long as the process."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A journal that does not keep up may cost us entries, never the event loop its time.
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket; the service itself never does, it logs until its end."""
        self._socket.close()

    def send(self, datagram: bytes) -> bool:
        """Send one entry; False when the journal cannot take it now."""
        try:
            self._socket.sendto(datagram, self._path)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != 90:
                return False
            return self._send_by_descriptor(datagram)
        return True

    def _send_by_descriptor(self, datagram: bytes) -> bool:
        descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(descriptor, datagram)
            rights = array.array("i", [descriptor])
            self._socket.sendmsg(
                [], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, self._path
            )
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True
