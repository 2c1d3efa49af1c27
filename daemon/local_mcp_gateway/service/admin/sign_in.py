"""The verbs of signing in to servers: login, signed_in and logout, in the daemon and offline.

Between `login` and `signed_in` a person is in a browser. The command that waits for the person holds what the
second verb needs from the first; the database is only locked for each write.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from local_mcp_gateway.errors import UpstreamProblem, UsageProblem
from local_mcp_gateway.formats import iso
from local_mcp_gateway.log import learn
from local_mcp_gateway.service.secrets import SealedSignIns
from local_mcp_gateway.store import (
    Client,
    ClientKind,
    Grant,
    ServerKind,
    SignIn,
    delete_sign_in,
    expand_variables,
    load_sign_ins,
    queries,
    save_sign_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.gateway import Gateway, OAuthProblem
    from local_mcp_gateway.service.secrets import Keyring
    from local_mcp_gateway.store import ServerDefinition

VERBS = frozenset({"server.login", "server.signed_in", "server.logout"})


async def perform(
    database: ConnectionPool,
    gateway: Gateway | None,
    keyring: Keyring,
    verb: str,
    arguments: dict[str, Any],
) -> object:
    """Run one of the verbs; a running gateway uses the new tokens at once."""
    server = await queries.get_server(database, arguments["name"])
    if server.kind is ServerKind.STDIO:
        raise UsageProblem(
            f"The server {server.name!r} is a command, and nobody signs in to it.",
            hint="Give it what it needs with `server edit --env`.",
        )
    if any(name.lower() == "authorization" for name in server.headers):
        raise UsageProblem(
            f"The server {server.name!r} has an Authorization header, which is what it is sent.",
            hint=f"Remove it first: `server edit {server.name} --header Authorization`.",
        )
    if verb == "server.logout" and gateway is not None:
        await gateway.settle_tokens(server)
    kept = await SealedSignIns(database, keyring).load(server)
    reached, used = expand_variables(server, os.environ)
    learn(used)
    if verb == "server.logout":
        return await _logout(database, gateway, reached, kept)
    from local_mcp_gateway.gateway import OAuthProblem, PendingLogin, begin_login, finish_login

    try:
        if verb == "server.login":
            found = await begin_login(
                reached,
                kept,
                redirect_uri=arguments["redirect_uri"],
                document=arguments.get("document") or "",
                scope=arguments.get("scope"),
                names_resource=arguments.get("resource"),
            )
            if isinstance(found, PendingLogin):
                return {"login": msgspec.to_builtins(found)}
        else:
            pending = msgspec.convert(arguments["login"], PendingLogin)
            found = await finish_login(reached, kept, pending, arguments["answer"])
    except OAuthProblem as problem:
        if verb == "server.signed_in" and kept is not None and problem.is_of_client:
            await _forget_registration(database, keyring, kept, pending.client)
        raise _as_problem(server, problem) from None
    await SealedSignIns(database, keyring).save(found)
    if gateway is not None:
        gateway.sign_in_changed(server, signed_in=True)
    return {"signed_in": server.name, **sign_in_as_json(found)}


async def _forget_registration(
    database: ConnectionPool, keyring: Keyring, kept: SignIn, refused: Client
) -> None:
    """Have the next login register again: the issuer does not know this client any more."""
    if kept.client.kind is ClientKind.DYNAMIC and kept.client.client_id == refused.client_id:
        unknown = replace(kept, client=replace(kept.client, client_id=""))
        await SealedSignIns(database, keyring).save(unknown, since=kept.updated_at or None)


async def _logout(
    database: ConnectionPool, gateway: Gateway | None, server: ServerDefinition, kept: SignIn | None
) -> object:
    """Forget the tokens, and tell who has issued them; a client that a person has given stays."""
    revoked = False
    if kept is not None:
        from local_mcp_gateway.gateway import OAuthProblem, revoke

        if kept.client.kind is ClientKind.OWN:
            stored = (await load_sign_ins(database, (server,)))[server.id]
            await save_sign_in(database, SignIn(server, kept.client, stored.client_secret))
        else:
            await delete_sign_in(database, server.id)
        with suppress(OAuthProblem):  # it is down, and the tokens are forgotten anyway
            revoked = await revoke(server, kept)
    if gateway is not None:
        gateway.sign_in_changed(server, signed_in=False)
    had = kept is not None and kept.access_token is not None
    return {"signed_out": server.name, "had_tokens": had, "revoked": revoked}


def _as_problem(server: ServerDefinition, problem: OAuthProblem) -> UpstreamProblem:
    again = f"`server login {server.name}`"
    hint = f"Try again later with {again}." if problem.passes else f"Try again with {again}."
    if problem.code and (problem.code == "invalid_target" or "resource" in problem.reason):
        hint = (
            f"`server login {server.name} --no-resource` does not tell it what the tokens are for."
        )
    return UpstreamProblem(f"The sign-in to {server.name!r} failed: {problem.reason}.", hint=hint)


async def save_own_client(
    database: ConnectionPool, keyring: Keyring, server: ServerDefinition, given: Mapping[str, Any]
) -> None:
    """Store a client id that a person has registered; what was signed in before is forgotten."""
    if server.kind is ServerKind.STDIO:
        raise UsageProblem(
            f"The server {server.name!r} is a command and has no client id.",
            hint="Give it what it needs with `--env`.",
        )
    client = Client(given["client_id"], grant=Grant(given.get("grant") or Grant.CODE))
    secret = given.get("client_secret")
    if client.grant is Grant.CREDENTIALS and not secret:
        raise UsageProblem(
            "A client that signs in by itself needs its secret.",
            hint="Add --client-secret: it is asked for, or read from stdin or LMG_CLIENT_SECRET.",
        )
    await SealedSignIns(database, keyring).save(SignIn(server, client, secret))


async def sign_ins_as_json(
    database: ConnectionPool, servers: Iterable[ServerDefinition]
) -> dict[str, dict[str, object]]:
    """Return what is known of each server's sign-in, by its name."""
    found = await load_sign_ins(database, servers)
    return {each.server.name: sign_in_as_json(each) for each in found.values()}


def sign_in_as_json(sign_in: SignIn) -> dict[str, object]:
    """Return a sign-in as `server show --json` prints it: no secret."""
    expires_at = sign_in.expires_at
    return {
        "needed": sign_in.is_needed,
        "issuer": sign_in.client.issuer or None,
        "client_id": sign_in.client.client_id or None,
        "client_kind": sign_in.client.kind.value if sign_in.client.client_id else None,
        "redirect_uri": sign_in.client.redirect_uri or None,
        "scope": sign_in.scope,
        "expires_at": None if expires_at is None else _moment(expires_at),
    }


def _moment(milliseconds: int) -> str | None:
    with suppress(ValueError, OverflowError, OSError):  # a row may have been edited
        return iso(datetime.fromtimestamp(milliseconds / 1000, UTC))
    return None
