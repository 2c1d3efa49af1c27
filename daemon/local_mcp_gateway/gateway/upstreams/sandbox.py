"""Start a server's program in a sandbox: Landlock for its files and signals, seccomp for its sockets.

This file is also the launcher, as a script of its own (`python -I -S`): it restricts itself and becomes the
program, so what it starts is restricted as well. It imports the standard library only.

Files: everything can be read but what is hidden, nothing written but in the named folders. Names of files
can be listed everywhere. Sockets: none to other programs of this machine (Unix sockets: the gateway's own, that
of a session bus or of Docker would lead out of the sandbox), and none at all without network. io_uring could
open sockets past seccomp, so it is not there. Processes outside can neither be traced nor, since Landlock's
sixth version, be sent signals. Root has no capabilities in it. See landlock(7), seccomp(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The system calls of Landlock, the same on all architectures that are supported here."""
_RULESET_VERSION = 1
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""Version of Landlock → how many rights on files it knows."""
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TRUNCATE_SINCE, _SIGNALS_SINCE = 3, 6
_SCOPE_SIGNAL = 2
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_DROP_CAPABILITY, _AMBIENT, _CLEAR, _CAPABILITIES = 24, 47, 4, 64
_MACHINES = {
    "x86_64": (0xC000003E, 41, 53),
    "aarch64": (0xC00000B7, 198, 199),
    "riscv64": (0xC00000F3, 198, 199),
}
"""Machine → how seccomp calls it, and its numbers of socket(2) and socketpair(2)."""
_IO_URING_SETUP = 425
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_AF_UNIX, _DATAGRAM, _TYPE = 1, 2, 0xF
PRIVATE = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".netrc", ".git-credentials", ".pgpass",
    ".password-store", ".vault-token", ".cargo/credentials.toml", ".mozilla", ".thunderbird",
    ".config/gcloud", ".config/gh", ".config/op", ".config/rclone", ".config/google-chrome",
    ".config/chromium", ".config/microsoft-edge", ".config/BraveSoftware", ".local/share/keyrings",
    ".local/share/kwalletd", ".bash_history", ".zsh_history", ".claude", ".claude.json", ".codex",
    ".cursor", ".gemini", ".config/Claude", ".config/Code",
)  # fmt: skip
"""Places in a home where other programs keep secrets; MCP clients keep their tokens for us."""


class NoSandbox(Exception):
    """The kernel cannot do what a sandbox needs."""


def sandbox_command(
    command: str,
    arguments: Collection[str],
    hidden: Collection[str],
    write: Collection[str],
    *,
    network: bool,
) -> list[str]:
    """Return the command that runs another one in a sandbox."""
    wanted = {"hidden": list(hidden), "write": list(write), "network": network}
    return [sys.executable, "-I", "-S", __file__, json.dumps(wanted), command, *arguments]


def version() -> int:
    """Return the version of Landlock that the kernel has; 0 without it."""
    found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, _RULESET_VERSION)
    return max(int(found), 0)


def sandbox_gaps() -> list[str]:
    """Return what a sandbox on this machine does not stop. Raises NoSandbox where there can be none."""
    known = version()
    if known == 0:
        raise NoSandbox("the kernel has no Landlock (Linux 5.13), or it is turned off")
    if os.uname().machine not in _MACHINES:
        raise NoSandbox(f"sockets cannot be filtered on {os.uname().machine}")
    found = []
    if known < _TRUNCATE_SINCE:
        found.append("files that you may write can be emptied (Linux 6.2 stops that)")
    if known < _SIGNALS_SINCE:
        found.append("signals can be sent to your other programs (Linux 6.12 stops that)")
    return found


def readable(folder: str, hidden: Collection[str]) -> Iterator[str]:
    """Yield folders and files that together are all of a folder but what is hidden."""
    if folder in hidden:
        return
    inside = folder.rstrip("/") + "/"
    if not any(path.startswith(inside) for path in hidden):
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            # what a link leads to is looked at where it is
            names = [entry.name for entry in entries if not entry.is_symlink()]
    except OSError:
        return
    for name in names:
        yield from readable(inside + name, hidden)


def restrict(hidden: Collection[str], write: Collection[str], *, network: bool) -> None:
    """Restrict this process and all that it starts, for good. Raises NoSandbox."""
    sandbox_gaps()
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no new privileges")
    for capability in range(_CAPABILITIES):  # root's, which would see into other processes
        libc.prctl(_DROP_CAPABILITY, capability, 0, 0, 0)
    libc.prctl(_AMBIENT, _CLEAR, 0, 0, 0)
    _restrict_files(libc, {os.path.realpath(path) for path in hidden}, write)
    program = _socket_filter(network=network)
    buffer = ctypes.create_string_buffer(program)
    loaded = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _checked(libc.prctl(_SET_SECCOMP, _FILTER, loaded, 0, 0), "seccomp")


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise NoSandbox(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _restrict_files(libc: ctypes.CDLL, hidden: Collection[str], write: Collection[str]) -> None:
    known = version()
    rights = next(n for since, n in sorted(_RIGHTS.items(), reverse=True) if known >= since)
    every, reading = (1 << rights) - 1, _EXECUTE | _READ_FILE | _READ_DIR
    scoped = _SCOPE_SIGNAL if known >= _SIGNALS_SINCE else 0
    wanted = struct.pack("QQQ", every, 0, scoped)[: 24 if known >= _SIGNALS_SINCE else 8]
    rules = _checked(libc.syscall(_CREATE_RULESET, wanted, len(wanted), 0), "Landlock")

    def allow(path: str, rights: int) -> None:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # it is not there, or not for us anyway
        try:
            if not stat.S_ISDIR(os.fstat(opened).st_mode):
                rights &= _OF_FILES
            rule = struct.pack("=Qi", rights & every, opened)
            _checked(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0), path)
        finally:
            os.close(opened)

    allow("/", _READ_DIR)
    for path in readable("/", hidden):
        allow(path, reading)
    for name in DEVICES:
        allow(f"/dev/{name}", reading | _WRITE_FILE | _IOCTL_DEV)
    for folder in write:
        for path in readable(os.path.realpath(folder), hidden):
            allow(path, every)
    _checked(libc.syscall(_RESTRICT_SELF, rules, 0), "Landlock")
    os.close(rules)


def _socket_filter(*, network: bool) -> bytes:
    """Return a program of seccomp that refuses sockets: Unix ones, or all."""
    machine, socket_call, pair_call = _MACHINES[os.uname().machine]

    def step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", code, then, otherwise, value)

    return b"".join(
        (
            step(_LOAD, 4),
            step(_EQUAL, machine, 0, 12),  # 32-bit programs have other numbers
            step(_LOAD, 0),
            step(_AT_LEAST, _X32, 10, 0),
            step(_EQUAL, _IO_URING_SETUP, 8, 0),
            step(_EQUAL, socket_call, 4, 0),
            step(_EQUAL, pair_call, 0, 5),
            step(_LOAD, 24),  # one of a pair of datagram sockets can send to any other
            step(_AND, _TYPE),
            step(_EQUAL, _DATAGRAM, 4, 2),
            step(_LOAD, 16),
            step(_EQUAL, _AF_UNIX, 2, 0) if network else step(_AT_LEAST, 0, 2, 0),
            step(_RETURN, _ALLOW),
            step(_RETURN, _ERROR | errno.ENOSYS),
            step(_RETURN, _ERROR | errno.EACCES),
        )
    )


def main() -> None:
    """Become the program, restricted; without a word on success, since stdout is the program's."""
    wanted, command, *arguments = sys.argv[1:]
    try:
        restrict(**json.loads(wanted))
    except NoSandbox as problem:
        sys.exit(f"The sandbox cannot be made: {problem}.")
    try:
        os.execvp(command, [command, *arguments])  # noqa: S606  what a launcher is for
    except OSError as error:
        sys.exit(f"{command!r} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main()
