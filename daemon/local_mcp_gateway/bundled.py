"""Find the files that come with the program: migrations, default config, systemd unit, examples.

A wheel carries them inside the package, under `_bundled/`; an editable install, as `make` sets up,
reads them where they are edited, at the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def bundled(name: str) -> Path:
    """Return the path of a bundled file or folder, such as `migrations` or `config/gateway.toml`."""
    installed = _PACKAGE / "_bundled"
    return (installed if installed.is_dir() else _PACKAGE.parents[1]) / name
