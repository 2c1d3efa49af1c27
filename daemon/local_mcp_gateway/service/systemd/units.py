"""The text and the paths of this installation's systemd user units.

The shipped units are complete and work by hand; this module only fills in what differs between machines:
the command's path, the options of this installation, PATH, the port.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local_mcp_gateway import __version__
from local_mcp_gateway.bundled import bundled
from local_mcp_gateway.service.secrets import CREDENTIAL

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "local-mcp-gateway.service"
SOCKET = "local-mcp-gateway.socket"
CACHES = (".npm", ".cache", ".local")
"""Of npx, uvx and pipx, in the user's home: ReadWritePaths= of the unit."""
STEPS_SINCE = 254
"""The first systemd with RestartSteps=, a growing pause between restarts; older ones warn about it."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The values of this machine that a unit contains."""

    command: tuple[str, ...]
    options: tuple[str, ...]
    """Global options, such as `--database FILE`, that every run of the unit gets."""
    writable: tuple[Path, ...]
    path: str
    address: str
    key_file: Path
    key_file_set: bool
    """Whether the unit must name the key file, which it would not find by itself."""
    systemd: int


def unit_folder() -> Path:
    """Return the folder of the user's own units; it need not exist."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return home / "systemd" / "user"


def present(folder: Path) -> list[str]:
    """Return the units that are installed, the socket first."""
    return [name for name in (SOCKET, SERVICE) if (folder / name).exists()]


def make_caches(home: Path) -> None:
    """Create the folders that upstream servers may write to: inside the unit a missing one is read-only."""
    for name in CACHES:
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)


def this_command() -> tuple[str, ...]:
    """Return the command line that starts this installation."""
    script = Path(sys.argv[0])
    if script.name == "local-mcp-gateway" and script.is_absolute() and os.access(script, os.X_OK):
        return (str(script),)
    script = Path(sys.executable).with_name("local-mcp-gateway")
    if os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-m", "local_mcp_gateway")


def service_text(installation: Installation) -> str:
    """Return the service unit of this installation."""
    text = bundled(f"systemd/{SERVICE}").read_text(encoding="utf-8")
    command = _quoted((*installation.command, *installation.options))
    text = re.sub(
        r"(?m)^(Exec\w+=)%h/\.local/bin/local-mcp-gateway", rf"\1{_literal(command)}", text
    )
    text = _with_key_file(text, str(installation.key_file))
    environment = [f"PATH={installation.path}"]
    if installation.key_file_set:
        environment.append(f"LMG_SECRETS__KEY_FILE={installation.key_file}")
    extra = [f"Environment={_word(setting)}" for setting in environment]
    extra += [f"ReadWritePaths=-{_word(str(path))}" for path in installation.writable]
    if installation.systemd >= STEPS_SINCE:
        extra += ["RestartSteps=6", "RestartMaxDelaySec=120"]
    head, _, tail = text.partition("\n[Install]\n")
    lines = "\n".join(["", "# This installation:", *extra, "", "[Install]", ""])
    return f"{_stamp()}{head}{lines}{tail}"


def socket_text(installation: Installation) -> str:
    """Return the socket unit that listens on the configured address."""
    text = bundled(f"systemd/{SOCKET}").read_text(encoding="utf-8")
    return _stamp() + re.sub(r"(?m)^ListenStream=.*$", f"ListenStream={installation.address}", text)


def version_in(text: str) -> str | None:
    """Return the version that wrote a unit, or None if it was written by hand."""
    found = re.match(r"# local-mcp-gateway (\S+) wrote this", text)
    return found[1] if found else None


def write_unit(name: str, text: str, folder: Path) -> str:
    """Write a unit atomically; return created, updated or unchanged."""
    path = folder / name
    before = path.read_text(encoding="utf-8") if path.exists() else None
    if before == text:
        return "unchanged"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    temporary.replace(path)
    return "created" if before is None else "updated"


def _with_key_file(text: str, path: str) -> str:
    """Name the key file in the unit: an unquoted path up to the end of the line, specifiers escaped.

    systemd 257 does not start a unit whose credential path contains a blank. The gateway then reads the file
    itself, as it does for a key newer than the start.
    """
    if re.search(r"\s", path):
        return re.sub(rf"(?m)^(Load|Set)Credential={CREDENTIAL}:.*\n", "", text)
    line = f"LoadCredential={CREDENTIAL}:"
    return re.sub(rf"(?m)^{line}.*$", _literal(line + path.replace("%", "%%")), text)


def _stamp() -> str:
    return f"# local-mcp-gateway {__version__} wrote this; `service install` overwrites it.\n"


def _quoted(words: Sequence[str]) -> str:
    """Quote a command line, with variables escaped too."""
    return " ".join(_word(word) for word in words).replace("$", "$$")


def _word(word: str) -> str:
    """Quote a word as systemd.syntax(7) requires: like a shell, with specifiers doubled."""
    return shlex.quote(word).replace("%", "%%")


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\")
