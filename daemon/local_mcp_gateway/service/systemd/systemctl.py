"""Query and control systemd's user manager through systemctl."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import NoServiceManager

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_TIMEOUT_S = 24 * 3600
"""A migration may take long; systemd itself ends a start that makes no progress."""
_RETRY_S = 3.0
"""What systemd cannot set up fails in milliseconds; a start of ours reports what it does before this."""
LINGERING = Path("/var/lib/systemd/linger")
_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "StatusText", "StatusErrno", "MainPID", "NRestarts",
    "Result", "ExecMainStatus", "UnitFileState", "FragmentPath", "ActiveEnterTimestamp",
)  # fmt: skip
_SET_UP = {
    203: "the command, which no longer exists", 217: "its user", 226: "its namespaces",
    228: "its filter of system calls", 233: "its RuntimeDirectory", 238: "its StateDirectory",
    240: "its LogsDirectory", 243: "its credentials",
}  # fmt: skip
"""Exit codes of systemd itself, from systemd.exec(5)."""
_HARDENING = (217, 226, 228)
_NO_HARDENING = (
    "Its hardening cannot work here, as in some containers: `systemctl --user edit local-mcp-gateway`,"
    " and under [Service] PrivateUsers=no, ProtectSystem=no, ProtectHome=no and PrivateTmp=no."
)


def version() -> int:
    """Return systemd's version; raises NoServiceManager where there is no systemd."""
    text = _run(("systemctl", "--version")).stdout
    words = text.split()
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def systemctl(*arguments: str) -> None:
    """Run `systemctl --user …`; raises NoServiceManager with systemd's own message."""
    done = _run(("systemctl", "--user", "--no-ask-password", *arguments))
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise NoServiceManager(f"`systemctl --user {' '.join(arguments)}` failed: {reason}")


def properties(unit: str) -> dict[str, str]:
    """Return a unit's properties; the unit need not exist.

    systemd forgets how the last attempt ended as soon as it makes the next one. Such a moment is waited out,
    so that what keeps failing is always told.
    """
    facts = _shown(unit)
    deadline = time.monotonic() + _RETRY_S
    while _is_being_tried_again(facts) and time.monotonic() < deadline:
        time.sleep(0.05)
        facts = _shown(unit)
    return facts


def _is_being_tried_again(facts: Mapping[str, str]) -> bool:
    """Tell whether an attempt has just begun that follows another, and has shown no sign of life."""
    return (
        facts.get("ActiveState") == "activating"
        and facts.get("NRestarts", "0") != "0"
        and facts.get("ExecMainStatus", "0") == "0"
        and not facts.get("StatusText")
    )


def _shown(unit: str) -> dict[str, str]:
    done = _run(("systemctl", "--user", "show", unit, "--property", ",".join(_PROPERTIES)))
    if done.returncode:
        raise NoServiceManager(
            f"systemd's user manager does not answer: {' '.join(done.stderr.split())}"
        )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def is_active(unit: str) -> bool:
    """Tell whether a unit is active; False if it does not exist or there is no manager."""
    try:
        return properties(unit).get("ActiveState") == "active"
    except NoServiceManager:
        return False


def set_up_failed(facts: Mapping[str, str]) -> NoServiceManager | None:
    """Return the error if systemd failed before it could start the program."""
    status = int(facts.get("ExecMainStatus") or 0)
    if status not in _SET_UP or facts.get("ActiveState") == "active":
        return None
    return NoServiceManager(
        f"The service did not start: systemd could not set up {_SET_UP[status]} (status {status}).",
        hint=_NO_HARDENING if status in _HARDENING else "See `systemctl --user status`.",
    )


def why_not_started(unit: str) -> NoServiceManager | None:
    """Return why systemd could not start the unit's program at all, if that is so."""
    try:
        return set_up_failed(properties(unit))
    except NoServiceManager:
        return None


def lingers() -> bool | None:
    """Tell whether the user's services run without a login; None if unknown.

    logind keeps this as a file. Asked without a user, it answers for the caller, and only if that user is
    logged in.
    """
    if shutil.which("loginctl") is None:
        return None
    return (LINGERING / _user()).exists()


def enable_linger() -> None:
    """Let the user's services start at boot and outlive the last logout."""
    done = _run(("loginctl", "--no-ask-password", "enable-linger", _user()))
    if done.returncode:
        raise NoServiceManager(
            f"Lingering cannot be enabled: {' '.join(done.stderr.split())}",
            hint="Ask an administrator for `loginctl enable-linger USER`.",
        )


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=START_TIMEOUT_S
        )
    except FileNotFoundError:
        raise NoServiceManager(f"`{command[0]}` is not installed here.") from None
