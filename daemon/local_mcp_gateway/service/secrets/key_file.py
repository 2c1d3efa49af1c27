"""The key file of the stored secrets: read it, create it, add a key.

It is text with mode 0600: one key a line in base64url, the newest first; `#` begins a comment. The newest
key seals, all of them open. The file is only replaced by one with more keys, and is durable before any
row names a new key.
"""

from __future__ import annotations

import base64
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.database import flush
from local_mcp_gateway.errors import NoSecretsKey
from local_mcp_gateway.service.secrets import private_file
from local_mcp_gateway.service.secrets.private_file import Unusable
from local_mcp_gateway.store import KEY_BYTES, SealingKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEAD: Final = """\
# Local MCP Gateway: these keys open the secrets in your database. Keep a copy, apart from its backups.
# The first one seals; the others open what was sealed before, in old backups too.
"""
NO_KEY: Final = "none"
"""The unit's SetCredential= value, for when LoadCredential= finds no file."""


def read(path: Path, *, private: bool = True) -> tuple[SealingKey, ...]:
    """Return the keys, newest first; an empty list if there is no file. Raises UnusableKeyFile.

    With `private`, refuse a file that other users may read, as ssh does with its own.
    """
    content = private_file.read(path, private=private)
    if content is None:
        return ()
    try:
        keys = _parsed(path, content.decode())
    except UnicodeDecodeError:
        raise Unusable(f"{path} cannot be read", "Put it back from your copy.") from None
    if private and not keys:
        raise Unusable(f"{path} holds no key", "Put it back from your copy, or delete it.")
    return keys


def make(path: Path, *, make_folder: bool) -> bool:
    """Create the file with a new key if missing; return whether it was created. Durable.

    `make_folder` also creates missing folders, with mode 0700. Raises NoSecretsKey.
    """
    with _turn(path, make_folder=make_folder) as target:
        return private_file.create(target, _text([_new()]))


def renew(path: Path, *, make_folder: bool) -> SealingKey:
    """Put a new key before the existing ones. Durable.

    Raises UnusableKeyFile, NoSecretsKey.
    """
    with _turn(path, make_folder=make_folder) as target:
        new = _new()
        private_file.replace(target, _text([new, *read(target)]))
        return new


def settle(path: Path) -> None:
    """Flush the file to the disk, whoever wrote it: a row is about to name its key."""
    with _named(path):
        flush(path)
        flush(path.resolve().parent)


@contextmanager
def _turn(path: Path, *, make_folder: bool) -> Iterator[Path]:
    """Lock the folder, created on request; yield the file's path. Raises NoSecretsKey."""
    with _named(path):
        if make_folder:
            _make_folders(path.resolve().parent)
        with private_file.locked(path) as target:
            yield target


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoSecretsKey(f"The secrets key {path} cannot be created: {error.strerror}.") from None


def _make_folders(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    flush(folder.parent)


def _text(keys: Sequence[SealingKey]) -> bytes:
    lines = (base64.urlsafe_b64encode(key.raw).decode("ascii") + "\n" for key in keys)
    return (HEAD + "".join(lines)).encode()


def _new() -> SealingKey:
    return SealingKey(secrets.token_bytes(KEY_BYTES))


def _parsed(path: Path, text: str) -> tuple[SealingKey, ...]:
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#") or word == NO_KEY:
            continue
        try:
            raw = base64.b64decode(word.encode("ascii"), b"-_", validate=True)
        except ValueError:
            raw = b""
        if len(raw) != KEY_BYTES:
            raise Unusable(
                f"line {number} of {path} is not a key", "Put the file back from your copy."
            )
        keys.append(SealingKey(raw))
    return tuple(keys)
