"""Hold a process at its system calls: each call of some kinds waits until we say what becomes of it.

The kernel itself asks (seccomp_unotify(2), Linux 5.19). `hold` is called in the process before it has
threads, and returns a descriptor; the process that watches polls it, and calls `answer_one` when there is
something to read. Only these calls stop; strace stops a process at all of them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NUMBERS = {
    "write": 1, "pwrite64": 18, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "rename": 82,
    "mkdir": 83, "link": 86, "unlink": 87, "openat": 257, "copy_file_range": 326,
}  # fmt: skip
"""The calls that can be held, as x86-64 counts them."""
NAMES = {number: name for name, number in NUMBERS.items()}
LARGEST_PATH = 4096
AT_FDCWD = -100

Answer = int | None
"""None lets a call be made; anything else is its result without it: a negative one is an error."""

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP = 317
_SET_MODE_FILTER = 1
_NEW_LISTENER = 1 << 3
_WAIT_KILLABLE = 1 << 5
"""A signal that is not fatal waits for our answer: no call is asked about twice."""
_ALLOW = 0x7FFF0000
_USER_NOTIF = 0x7FC00000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_CONTINUE = 1
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that waits for its answer. Its process and what it points to stay as they are so long."""

    name: str
    thread: int
    arguments: tuple[int, ...]

    def size(self) -> int:
        """Return how many bytes it is to write; 0 if it is not a write."""
        return self.arguments[2] if self.name in ("write", "pwrite64") else 0

    def content(self) -> bytes:
        """Return what it is to write."""
        return self._memory(self.arguments[1], self.size())

    def path(self) -> Path:
        """Return the full path that an `openat` is to open."""
        folder, start = ctypes.c_int(self.arguments[0]).value, self.arguments[1]
        # A name may end just before memory that cannot be read; no page is smaller than this.
        name = b""
        while b"\0" not in name and len(name) < LARGEST_PATH:
            name += self._memory(start + len(name), 256 - (start + len(name)) % 256)
        link = "cwd" if folder == AT_FDCWD else f"fd/{folder}"
        base = Path(f"/proc/{self.thread}/{link}").readlink()
        return Path(os.path.normpath(base / os.fsdecode(name.partition(b"\0")[0])))

    def file(self) -> str:
        """Return the name by which we open the file that its first argument is a descriptor of."""
        return f"/proc/{self.thread}/fd/{self.arguments[0]}"

    def is_no_file(self) -> bool:
        """Tell whether it writes to a socket or an eventfd, by which an event loop is woken."""
        if self.name != "write":
            return False
        try:
            target = Path(self.file()).readlink()
        except OSError:  # closed: the call says so
            return False
        return str(target).startswith(("anon_inode:", "socket:"))

    def kill(self) -> Answer:
        """Kill its process, which is there no more to hear the answer; the call is never made."""
        os.kill(self.thread, signal.SIGKILL)
        return -errno.EINTR

    def _memory(self, address: int, size: int) -> bytes:
        memory = os.open(f"/proc/{self.thread}/mem", os.O_RDONLY)
        try:
            return os.pread(memory, size, address)
        finally:
            os.close(memory)


def unavailable() -> str | None:
    """Return why no process can be held here, or None."""
    if platform.machine() != "x86_64":
        return f"system calls are held on x86_64 only, and this is {platform.machine()}"
    pid = os.fork()
    if pid == 0:
        try:
            hold(["mkdir"])
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"no process can be held here: {os.strerror(code)}" if code else None


def hold(names: Iterable[str]) -> int:
    """Hold this process and its children at these calls from now on; return what `attend` needs."""
    wanted = [NUMBERS[name] for name in names]
    steps = [(_LOAD, 0, 0, 0)]
    steps += [
        (_JUMP_IF_EQUAL, len(wanted) - place, 0, number) for place, number in enumerate(wanted)
    ]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _USER_NOTIF)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.c_ulong(0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), none, none, none)
    flags = ctypes.c_ulong(_NEW_LISTENER | _WAIT_KILLABLE)
    listener: int = libc.syscall(_SECCOMP, ctypes.c_ulong(_SET_MODE_FILTER), flags, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


def answer_one(listener: int, answer: Callable[[Call], Answer]) -> None:
    """Answer the call that waits; what is to be asked is what `hold` returned."""
    notice = bytearray(_NOTICE.size)
    # Its process was killed before we could ask, or be heard.
    with suppress(FileNotFoundError, ProcessLookupError):
        fcntl.ioctl(listener, _RECEIVE, notice)
        asked, thread, _, number, _, _, *arguments = _NOTICE.unpack(notice)
        result = answer(Call(NAMES[number], thread, tuple(arguments)))
        made = (0, 0, _CONTINUE) if result is None else (max(result, 0), min(result, 0), 0)
        fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(asked, *made)))
