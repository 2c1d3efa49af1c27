"""Write to the systemd journal's native protocol: one datagram for each event, a field for each key.

So `journalctl --user -u local-mcp-gateway MIGRATION=0003_add_description -o json` finds what would be
lost in lines of text. The format is that of systemd's "Native Journal Protocol".
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

JOURNAL_SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "local-mcp-gateway"
PATIENCE_S = 1.0
"""How long to wait for a busy journal. After that the entry is lost, and so are those behind it."""
_SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
COUNTED_APART = {"call.finished"}
"""Frequent events that get the priority debug in the journal. It limits the rate of each priority, so
a busy hour of calls does not cost the entry of a migration."""
_ALIASES = {"tag": "MIGRATION", "message": "TEXT", "priority": "PRIORITY_GIVEN"}
"""`tag` is the tag of a migration; MESSAGE and PRIORITY mean something else in the journal."""


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether `stream` is the socket that systemd connected to the journal.

    A child inherits JOURNAL_STREAM even if its stderr goes elsewhere, hence the comparison.
    """
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return device == str(status.st_dev) and inode == str(status.st_ino)


class JournalEntry(NamedTuple):
    """An encoded entry; if it is urgent, its message goes to stderr when the journal does not accept it."""

    message: str
    urgent: bool
    datagram: bytes


def as_entry(message: str, level: str, event: str, fields: Mapping[str, object]) -> JournalEntry:
    """Encode one entry; a value with line breaks gets a length prefix, as the protocol requires."""
    entry = {
        "MESSAGE": message,
        "PRIORITY": _PRIORITIES["debug" if event in COUNTED_APART else level],
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
    datagram = b"".join(_field(name, value) for name, value in entry.items())
    return JournalEntry(message, level in {"warning", "error"}, datagram)


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


class Journal:
    """The socket to the journal; it stays open as long as the process runs."""

    def __init__(self, path: str = JOURNAL_SOCKET, *, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # The kernel queues net.unix.max_dgram_qlen datagrams (often 10); further ones have to wait.
        # The timeout of Python's socket would retry without a pause.
        whole = int(patience_s)
        limit = struct.pack("@ll", whole, int((patience_s - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._flags = 0

    def close(self) -> None:
        """Close the socket. The service never does: it logs until it ends."""
        self._socket.close()

    def send(self, datagram: bytes) -> bool:
        """Send one entry, waiting briefly if necessary. Return False if the journal does not accept it.

        After one entry has waited in vain, no other waits until the journal has accepted one.
        """
        try:
            self._socket.sendto(datagram, self._flags, self._path)
        except BlockingIOError:
            self._flags = socket.MSG_DONTWAIT
            return False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                return False
            return self._send_by_descriptor(datagram)
        self._flags = 0
        return True

    def _send_by_descriptor(self, datagram: bytes) -> bool:
        descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(descriptor, datagram)
            # Unless the sender is root, the journal accepts only a sealed memfd.
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALED)
            rights = array.array("i", [descriptor])
            self._socket.sendmsg(
                [], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], self._flags, self._path
            )
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True
