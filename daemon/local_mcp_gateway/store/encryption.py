"""Encrypt and decrypt stored secrets, one by one: values of servers' environment and headers, and tokens. Pure.

A sealed value is the text `lmg-sealed:1:KEY:PAYLOAD`: the version, the key's id, and base64url of nonce,
AES-256-GCM ciphertext and tag. Authenticated with it are the server's id (which a rename, a backup and a
restore keep), the column and the entry's name; of a setting, its name. Any other text is a plain value,
written by hand or before there were keys. `cryptography` (10 MiB, 20 ms) is only imported to seal or open one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeVar

from local_mcp_gateway.errors import SealedValueProblem

if TYPE_CHECKING:
    from local_mcp_gateway.store.model import ServerDefinition

MARK: Final = "lmg-sealed:"
SEALED_COLUMNS: Final = {"env": "variable", "headers": "header"}
"""The columns whose values are sealed, and the word for an entry of each."""
CLIENT: Final = "oauth_client_registrations"
TOKENS: Final = "oauth_tokens"
"""In place of a column: the tables of the secrets of a server's sign-in."""
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


@dataclass(frozen=True)
class SealingKey:
    """A key; `id` identifies the key that sealed a value and reveals nothing about it."""

    raw: bytes

    @cached_property
    def id(self) -> str:
        """Return eight hex digits that identify this key."""
        return hashlib.sha256(b"local-mcp-gateway key " + self.raw).hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Key({self.id})"


class _Marked:
    """A text that says itself whether it is sealed, and with which key."""

    __slots__ = ()
    value: str

    @property
    def sealed(self) -> bool:
        """Tell whether the value's text marks it as sealed."""
        return self.value.startswith(MARK)

    @property
    def key(self) -> str:
        """Return the id of the key that a sealed value names, "" for a plain one."""
        if not self.sealed:
            return ""
        return self.value.removeprefix(MARK).partition(":")[2].partition(":")[0]


@dataclass(frozen=True, slots=True)
class StoredValue(_Marked):
    """One value of one server, as stored."""

    server: ServerDefinition
    column: str
    name: str
    value: str

    def __str__(self) -> str:
        what = SEALED_COLUMNS.get(self.column, "sign-in secret")
        return f"The {what} {self.name} of server {self.server.name!r}"

    @property
    def remedy(self) -> str:
        """Say how the value is set again."""
        if self.column in {CLIENT, TOKENS}:
            return f"sign in again with `server login {self.server.name}`"
        return f"set the value again with `server edit {self.server.name}`"

    def __repr__(self) -> str:
        return f"Entry({self})"

    @property
    def place(self) -> tuple[str, ...]:
        """What the value is bound to: it opens nowhere else."""
        return (self.server.id, self.column, self.name)


@dataclass(frozen=True, slots=True)
class SettingValue(_Marked):
    """The value of one setting, as the configuration has it."""

    name: str
    value: str
    remedy: str
    """How the value is set again."""

    def __str__(self) -> str:
        return f"The setting {self.name}"

    def __repr__(self) -> str:
        return f"Setting({self.name})"

    @property
    def place(self) -> tuple[str, ...]:
        """What the value is bound to: it opens nowhere else."""
        return ("setting", self.name)


Sealable = TypeVar("Sealable", StoredValue, SettingValue)


def entries(server: ServerDefinition) -> Iterator[StoredValue]:
    """Yield every value of environment and headers."""
    for column in SEALED_COLUMNS:
        for name, value in getattr(server, column).items():
            yield StoredValue(server, column, name, value)


def has_sealed(server: ServerDefinition) -> bool:
    """Tell whether a key is needed to use this server."""
    return any(entry.sealed for entry in entries(server))


def with_values(server: ServerDefinition, values: Sequence[StoredValue]) -> ServerDefinition:
    """Return the server with these values replacing its own of the same names."""
    changed = {
        column: {
            **getattr(server, column),
            **{e.name: e.value for e in values if e.column == column},
        }
        for column in SEALED_COLUMNS
    }
    return replace(server, env=changed["env"], headers=changed["headers"])


def seal(entry: Sealable, key: SealingKey) -> Sealable:
    """Return the entry with its value sealed, even if it already looks sealed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_BYTES)
    plain = entry.value.encode("utf-8", "surrogatepass")
    payload = nonce + AESGCM(key.raw).encrypt(nonce, plain, _bound_to(entry, key.id))
    return replace(entry, value=f"{MARK}1:{key.id}:{_encode(payload)}")


def open_value(entry: Sealable, keys: Sequence[SealingKey]) -> Sealable:
    """Return the entry with its value in plain; a plain one unchanged.

    Raises SealedValueProblem; its data has `key` if that key is not among these.
    """
    if not entry.sealed:
        return entry
    version, _, rest = entry.value.removeprefix(MARK).partition(":")
    if version != "1":
        raise SealedValueProblem(
            f"{entry} is sealed in a format that this version of the program does not know.",
            hint=f"Use the version that wrote it, or {entry.remedy}.",
        )
    key_id, _, payload = rest.partition(":")
    for key in keys:
        if key.id == key_id:
            return replace(entry, value=_open(entry, key, payload))
    raise SealedValueProblem(
        f"{entry} is sealed with key {key_id}, which is missing.",
        hint=f"Put that key back, or {entry.remedy}.",
        key=key_id,
    )


def opened_server(server: ServerDefinition, keys: Sequence[SealingKey] = ()) -> ServerDefinition:
    """Return the server with all its values in plain; raises SealedValueProblem if one does not open."""
    return with_values(server, [open_value(entry, keys) for entry in entries(server)])


def _open(entry: StoredValue | SettingValue, key: SealingKey, payload: str) -> str:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        # The decoder ignores invalid characters and spare bits at the end.
        raw = raw if _encode(raw) == payload else b""
        nonce, sealed = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        plain = AESGCM(key.raw).decrypt(nonce, sealed, _bound_to(entry, key.id))
    except (InvalidTag, ValueError):
        raise SealedValueProblem(
            f"{entry} does not open: it was altered, or belongs to another entry.",
            hint=f"{entry.remedy[0].upper()}{entry.remedy[1:]}.",
        ) from None
    return plain.decode("utf-8", "surrogatepass")


def _bound_to(entry: StoredValue | SettingValue, key_id: str) -> bytes:
    """Return the associated data that must match when the value is opened; JSON keeps it unambiguous."""
    return json.dumps([MARK, 1, key_id, *entry.place]).encode()


def _encode(payload: bytes) -> str:
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode("ascii")
