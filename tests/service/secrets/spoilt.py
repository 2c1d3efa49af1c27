"""What makes a private file unusable, whatever is in it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.needs import give_away

SPOILT = {
    "open to others": "other users can read .*{name}",
    "of another user": "{name} belongs to another user",
    "a pipe": "{name} is a named pipe, not a file",
    "a folder": "{name} is a folder, not a file",
}
"""What is wrong with the file → how that is told."""


def spoil(path: Path, how: str) -> str:
    """Do to a private file what is wrong with it; return how that is told, as a pattern."""
    match how:
        case "open to others":
            path.chmod(0o640)
        case "of another user":
            give_away(path)
        case "a pipe":
            path.unlink()
            os.mkfifo(path, 0o600)
        case "a folder":
            path.unlink()
            path.mkdir(0o700)
    return SPOILT[how].format(name=path.name)
