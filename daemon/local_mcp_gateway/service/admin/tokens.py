"""The `token` verbs: make, list and revoke the tokens by which clients are known, and whether one is needed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.database import Error, reading, table_names
from local_mcp_gateway.formats import iso, now_ms
from local_mcp_gateway.service.admin.profiles import changed_policy, policy_as_json
from local_mcp_gateway.service.http import is_loopback
from local_mcp_gateway.store import (
    ClientToken,
    Policy,
    add_token,
    list_tokens,
    new_token,
    queries,
    remove_token,
)

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from local_mcp_gateway.database import ConnectionPool


async def create_token(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Store a new token and return it with its text, which nobody can read again."""
    names = list(arguments.get("profiles") or ())
    known = {profile.name: profile.id for profile in await queries.list_profiles(database)}
    for name in names:
        if name not in known:
            raise queries.unknown_profile(name, known)
    lifetime_s = arguments.get("expires_s")
    wanted = ClientToken(
        arguments["name"],
        profiles=frozenset(known[name] for name in names) if names else None,
        policy=changed_policy(Policy(), arguments.get("policy")),
        expires_at=None if lifetime_s is None else now_ms() + lifetime_s * 1000,
    )
    token, text = new_token(wanted)
    stored = await add_token(database, token)
    return {**_as_json(stored, known), "token": text}


async def tokens_as_json(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return every token without its text, which is not kept."""
    del arguments
    known = {profile.name: profile.id for profile in await queries.list_profiles(database)}
    return [_as_json(token, known) for token in await list_tokens(database)]


async def revoke_token(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Delete one token."""
    await remove_token(database, arguments["name"])
    return {"revoked": arguments["name"]}


def _as_json(token: ClientToken, known: dict[str, str]) -> dict[str, Any]:
    reached = [name for name, identity in known.items() if token.reaches(identity)]
    return {
        "name": token.name,
        "id": token.id,
        "profiles": None if token.profiles is None else reached,
        "created_at": _time(token.created_at),
        "expires_at": _time(token.expires_at),
        "expired": token.has_expired(now_ms()),
        "last_used_at": _time(token.last_used_at),
        "last_client": token.last_client,
        "policy": policy_as_json(token.policy),
    }


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return iso(datetime.fromtimestamp(milliseconds / 1000, UTC))


def has_tokens(database: Path) -> bool:
    """Return whether there is a token, without taking a lock; False where there is nothing to read."""
    if not database.exists():
        return False
    try:
        with reading(database) as reader:
            if "client_tokens" not in table_names(reader):
                return False
            found = reader.execute("SELECT 1 FROM client_tokens LIMIT 1").fetchone()
            return found is not None
    except Error:  # damaged, or not a database: the guard says so
        return False


def needs_token(listener: socket.socket, require_token: str) -> bool:
    """Return whether each request has to show a token: always beyond loopback."""
    if require_token == "always":  # noqa: S105  a setting's word, no secret
        return True
    return not is_loopback(str(listener.getsockname()[0]))
