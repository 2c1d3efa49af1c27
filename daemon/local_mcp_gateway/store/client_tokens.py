"""Store the tokens by which clients are known: what each may reach, until when, and when it was used.

A token is the text `lmg_ID_SECRET`. Only its SHA-256 is kept: 256 random bits need no slower hash, and each
request is checked against it. The id finds the row, so that the secret is compared once, in constant time.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.store.model import (
    POLICY_COLUMNS,
    Policy,
    check_name,
    columns_of_policy,
    policy_in,
)

if TYPE_CHECKING:
    from local_mcp_gateway.database import ConnectionPool, Row

_MARK: Final = "lmg_"
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_ID_END: Final = len(_MARK) + 2 * _ID_BYTES
_LENGTH: Final = _ID_END + 1 + 43
"""43 characters are 32 bytes in base64url."""


@dataclass(frozen=True, slots=True)
class ClientToken:
    """One token of a client; times are integer milliseconds."""

    name: str
    id: str = ""
    hash: str = field(default="", repr=False)
    profiles: frozenset[str] | None = None
    """The ids of the profiles that it reaches; None: all, also those that are added later."""
    created_at: int = 0
    expires_at: int | None = None
    last_used_at: int | None = None
    last_client: str | None = None
    policy: Policy = field(default_factory=Policy)

    def has_expired(self, now: int) -> bool:
        """Return whether it is no longer valid at this time."""
        return self.expires_at is not None and self.expires_at <= now

    def reaches(self, profile_id: str) -> bool:
        """Return whether it may be used in a profile."""
        return self.profiles is None or profile_id in self.profiles


def new_token(token: ClientToken) -> tuple[ClientToken, str]:
    """Return the token with an id and a hash, and its text, which is kept nowhere."""
    identity = secrets.token_hex(_ID_BYTES)
    text = f"{_MARK}{identity}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return replace(token, id=identity, hash=hash_of_token(text)), text


def looks_like_token(text: str) -> bool:
    """Return whether a credential claims to be one of a gateway's tokens."""
    return text.startswith(_MARK)


def id_in_token(text: str) -> str | None:
    """Return the id in the text of a token; None if it is not one of ours."""
    if len(text) != _LENGTH or not looks_like_token(text) or text[_ID_END] != "_":
        return None
    return text[len(_MARK) : _ID_END]


def hash_of_token(text: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(text.encode()).hexdigest()


async def add_token(database: ConnectionPool, token: ClientToken) -> ClientToken:
    """Store a new token."""
    check_name("token", token.name)
    async with database.transaction() as writer:
        if await writer.fetch_one("SELECT 1 FROM client_tokens WHERE name = ?", (token.name,)):
            raise UsageProblem(
                f"There is a token {token.name!r} already.",
                hint=f"Choose another name, or `token revoke {token.name}` first.",
            )
        await writer.execute(
            "INSERT INTO client_tokens (id, name, hash, profiles, created_at, expires_at,"
            f" {POLICY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(token.id, token.name, token.hash, _stored(token.profiles)),
                *(now_ms(), token.expires_at),
                *columns_of_policy(token.policy.checked()),
            ),
        )
    (stored,) = [known for known in await list_tokens(database) if known.id == token.id]
    return stored


async def change_token(database: ConnectionPool, token: ClientToken) -> ClientToken:
    """Store what may be changed of a token, found by its id: name, profiles, expiry and policy."""
    check_name("token", token.name)
    async with database.transaction() as writer:
        taken = "SELECT 1 FROM client_tokens WHERE name = ? AND id <> ?"
        if await writer.fetch_one(taken, (token.name, token.id)):
            raise UsageProblem(
                f"There is a token {token.name!r} already.", hint="Choose another name."
            )
        sets = ", ".join(f"{column} = ?" for column in POLICY_COLUMNS.split(", "))
        await writer.execute(
            f"UPDATE client_tokens SET name = ?, profiles = ?, expires_at = ?, {sets} WHERE id = ?",
            (
                *(token.name, _stored(token.profiles), token.expires_at),
                *(*columns_of_policy(token.policy.checked()), token.id),
            ),
        )
    return token


async def list_tokens(database: ConnectionPool) -> tuple[ClientToken, ...]:
    """Return every token, by name."""
    rows = await database.fetch_all(
        "SELECT id, name, hash, profiles, created_at, expires_at, last_used_at, last_client,"
        f" {POLICY_COLUMNS} FROM client_tokens ORDER BY name"
    )
    return tuple(_token_in(row) for row in rows)


async def remove_token(database: ConnectionPool, name: str) -> None:
    """Delete one token: from then on nobody knows it."""
    async with database.transaction() as writer:
        if await writer.execute("DELETE FROM client_tokens WHERE name = ?", (name,)) < 1:
            raise UsageProblem(f"There is no token {name!r}.", hint="See `token list`.")


def _stored(profiles: frozenset[str] | None) -> str | None:
    return None if profiles is None else json.dumps(sorted(profiles))


def _token_in(row: Row) -> ClientToken:
    return ClientToken(
        row["name"],
        row["id"],
        row["hash"],
        None if row["profiles"] is None else frozenset(_texts(row["profiles"])),
        row["created_at"],
        row["expires_at"],
        row["last_used_at"],
        row["last_client"],
        policy_in(row),
    )


def _texts(stored: str) -> list[str]:
    """Return a list of texts; none where the row was edited into something else, which opens nothing."""
    with suppress(ValueError, TypeError):
        value = parse_json(stored)
        if isinstance(value, list):
            return [text for text in value if isinstance(text, str)]
    return []
