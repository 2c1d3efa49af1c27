"""The `token` verbs: make, list, change and revoke the tokens of clients, and whether one is needed."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from local_mcp_gateway.database import Error, reading, table_names
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.formats import iso, now_ms
from local_mcp_gateway.service.admin.profiles import changed_policy, policy_as_json
from local_mcp_gateway.service.http import is_loopback
from local_mcp_gateway.store import (
    ClientToken,
    Policy,
    add_token,
    change_token,
    list_tokens,
    new_token,
    queries,
    remove_token,
)

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from local_mcp_gateway.database import ConnectionPool


_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LONGEST_S: Final = 100 * 366 * 86_400
NEVER: Final = "never"
"""In the place of a time: it does not expire."""


async def create_token(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Store a new token and return it with its text, which nobody can read again."""
    known = await _profile_ids(database)
    wanted = ClientToken(
        arguments["name"],
        profiles=_ids(arguments.get("profiles"), known),
        policy=changed_policy(Policy(), arguments.get("policy")),
        expires_at=_ends_at(arguments.get("expires") or NEVER),
    )
    token, text = new_token(wanted)
    stored = await add_token(database, token)
    return {**_as_json(stored, known), "token": text}


async def edit_token(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Change what is given of one token; its text stays the same. Profiles are given all again, none: all."""
    known = await _profile_ids(database)
    old = await _token(database, arguments["name"])
    changed = replace(
        old,
        name=arguments.get("rename") or old.name,
        policy=changed_policy(old.policy, arguments.get("policy")),
    )
    if "profiles" in arguments:
        changed = replace(changed, profiles=_ids(arguments["profiles"], known))
    if expires := arguments.get("expires"):
        changed = replace(changed, expires_at=_ends_at(expires))
    return _as_json(await change_token(database, changed), known)


async def _token(database: ConnectionPool, name: str) -> ClientToken:
    for token in await list_tokens(database):
        if token.name == name:
            return token
    raise UsageProblem(f"There is no token {name!r}.", hint="See `token list`.")


async def _profile_ids(database: ConnectionPool) -> dict[str, str]:
    return {profile.name: profile.id for profile in await queries.list_profiles(database)}


def _ids(names: list[str] | None, known: dict[str, str]) -> frozenset[str] | None:
    """Return the ids of profiles by their names; None, which is all, for none."""
    for name in names or ():
        if name not in known:
            raise queries.unknown_profile(name, known)
    return frozenset(known[name] for name in names) if names else None


def _ends_at(expires: str) -> int | None:
    """Return when `12h`, `90d` or `4w` from now is, in milliseconds; None for `never`."""
    text = expires.strip().lower()
    if text == NEVER:
        return None
    found = re.fullmatch(r"(\d{1,9})\s*([mhdw])", text, re.ASCII)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST_S:
        hint = f"Write 30m, 12h, 90d, 4w or {NEVER}."
        raise UsageProblem(f"The time {expires!r} cannot be used.", hint=hint)
    return now_ms() + seconds * 1000


async def tokens_as_json(database: ConnectionPool, arguments: dict[str, Any]) -> object:
    """Return every token without its text, which is not kept."""
    del arguments
    known = await _profile_ids(database)
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
