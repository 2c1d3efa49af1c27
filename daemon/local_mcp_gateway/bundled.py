"""Locate the files shipped with the program: migrations, default config, systemd unit, examples.

A wheel contains them inside the package, under `_bundled/`; an editable install, as `make` sets up,
reads them at the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def bundled(name: str) -> Path:
    """Return the path of a bundled file or folder, such as `migrations` or `config/gateway.toml`."""
    installed = _PACKAGE / "_bundled"
    return (installed if installed.is_dir() else _PACKAGE.parents[1]) / name
