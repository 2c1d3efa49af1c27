"""Locate the files shipped with the program: migrations, default config, systemd unit, examples.

A wheel contains them inside the package, under `_bundled/`; an editable install, as `make` sets up,
reads them at the root of the repository.
"""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).parent


def installed_version() -> str:
    """Return the version of the program on disk, which an upgrade changes under a running process."""
    found = re.search(
        r'^__version__ = "([^"]+)"', (_PACKAGE / "__init__.py").read_text(), re.MULTILINE
    )
    return found[1] if found else ""


def bundled(name: str) -> Path:
    """Return the path of a bundled file or folder, such as `migrations` or `config/gateway.toml`."""
    installed = _PACKAGE / "_bundled"
    return (installed if installed.is_dir() else _PACKAGE.parents[1]) / name
