"""The journal's native protocol: one datagram per event, every key a field of its own.

So `journalctl --user -u local-mcp-gateway MIGRATION=0003_add_description -o json` finds entries that
text lines on stderr would bury. Source of the format: systemd, "Native Journal Protocol".
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
"""How long an entry waits for a journal that is behind, before it and those after it are given up."""
_SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
COUNTED_APART = {"call.finished"}
"""What comes by the thousand goes to the journal as debug: its rate limit is one for info and notice, and
debug has its own, so a busy hour of calls does not cost the line of a migration."""
_ALIASES = {"tag": "MIGRATION", "message": "TEXT", "priority": "PRIORITY_GIVEN"}
"""`tag` is always a migration's; MESSAGE and PRIORITY have meanings of their own in the journal."""


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether `stream` is the very socket that systemd connected to the journal.

    JOURNAL_STREAM is inherited by children whose stderr goes elsewhere, hence the comparison.
    """
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return device == str(status.st_dev) and inode == str(status.st_ino)


class JournalEntry(NamedTuple):
    """One entry, encoded, and what goes to stderr in its place if it is urgent."""

    message: str
    urgent: bool
    datagram: bytes


def as_entry(message: str, level: str, event: str, fields: Mapping[str, object]) -> JournalEntry:
    """Encode one entry; a value with line breaks is length-prefixed, as the protocol wants."""
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
    """The connection to the journal; lives as long as the process."""

    def __init__(self, path: str = JOURNAL_SOCKET, *, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # Of a batch the kernel takes net.unix.max_dgram_qlen entries (10, often), the rest has to wait.
        # Python's own time limit would look again and again, without a pause.
        whole = int(patience_s)
        limit = struct.pack("@ll", whole, int((patience_s - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._flags = 0

    def close(self) -> None:
        """Close the socket; the service itself never does, it logs until its end."""
        self._socket.close()

    def send(self, datagram: bytes) -> bool:
        """Send one entry, waiting for a moment where it has to; False when the journal does not take it.

        A journal that has let one entry wait in vain is not waited for again until it takes one.
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
            # Of anybody but root the journal takes no file that might still change.
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
