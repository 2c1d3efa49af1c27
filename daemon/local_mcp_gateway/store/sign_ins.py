"""Store what a sign-in at a server gave: the client that it was made with, and its tokens.

A server has one client, that of its last sign-in, in `oauth_client_registrations`, and its tokens in
`oauth_tokens`. Secret and tokens are sealed like headers, bound to the server's id, to their table and name, and
the secret to its issuer. A refresh that the server has refused leaves no refresh token: then only a person can sign in again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.store.encryption import CLIENT, TOKENS, StoredValue, entries
from local_mcp_gateway.store.queries import list_servers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from local_mcp_gateway.database import ConnectionPool, Row
    from local_mcp_gateway.store.model import ServerDefinition


class ClientKind(StrEnum):
    """Where the client id comes from."""

    OWN = "own"
    """A person has registered it at the server and given it."""
    DOCUMENT = "document"
    """It is the URL of a document that describes the client."""
    DYNAMIC = "dynamic"
    """The gateway has registered itself."""


class Grant(StrEnum):
    """What the first token is given for."""

    CODE = "authorization_code"
    CREDENTIALS = "client_credentials"


@dataclass(frozen=True, slots=True)
class Client:
    """How the gateway introduces itself to the server that issues the tokens."""

    client_id: str
    issuer: str = ""
    """The URL of that server; "" until the first sign-in."""
    kind: ClientKind = ClientKind.OWN
    grant: Grant = Grant.CODE
    token_endpoint: str = ""
    revocation_endpoint: str = ""
    auth_method: str = "none"
    redirect_uri: str = ""
    resource: str = ""
    wanted_scope: str = ""
    """What a server has asked for beyond the scope of the tokens; the next sign-in asks for it."""
    omits: str = ""
    """`resource` where the issuer refuses to be told what the tokens are for (RFC 8707)."""


_FACTS: Final = tuple(f.name for f in fields(Client) if f.name not in {"client_id", "issuer"})


@dataclass(frozen=True, slots=True)
class SignIn:
    """The client and tokens of one server; `expires_at` and `updated_at` are integer milliseconds."""

    server: ServerDefinition
    client: Client
    client_secret: str | None = field(default=None, repr=False)
    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    scope: str | None = None
    expires_at: int | None = None
    updated_at: int = 0

    @property
    def values(self) -> list[StoredValue]:
        """Return the secrets as values that can be sealed and opened."""
        given = (
            (CLIENT, f"{self.client.issuer} client_secret", self.client_secret),
            (TOKENS, "access_token", self.access_token),
            (TOKENS, "refresh_token", self.refresh_token),
        )
        return [
            StoredValue(self.server, where, name, value) for where, name, value in given if value
        ]

    def with_values(self, values: Iterable[StoredValue]) -> SignIn:
        """Return it with these values replacing its own."""
        given = {value.name.rpartition(" ")[2]: value.value for value in values}
        return replace(
            self,
            client_secret=given.get("client_secret", self.client_secret),
            access_token=given.get("access_token", self.access_token),
            refresh_token=given.get("refresh_token", self.refresh_token),
        )

    @property
    def is_needed(self) -> bool:
        """Whether a person has to sign in (again) before the server can be used."""
        if self.client.grant is Grant.CREDENTIALS and self.client.token_endpoint:
            return False
        expired = self.expires_at is not None and self.expires_at <= now_ms()
        return self.access_token is None or (expired and self.refresh_token is None)


async def load_sign_ins(
    database: ConnectionPool, servers: Iterable[ServerDefinition]
) -> dict[str, SignIn]:
    """Return what is stored for these servers, by server id; secrets as they are stored."""
    wanted = {server.id: server for server in servers}
    marks = ", ".join("?" * len(wanted))
    clients = await database.fetch_all(
        "SELECT mcp_server_id, issuer, client_id, sealed_client_secret, metadata"
        f" FROM oauth_client_registrations WHERE mcp_server_id IN ({marks}) ORDER BY created_at",
        tuple(wanted),
    )
    tokens = await database.fetch_all(
        "SELECT mcp_server_id, sealed_access_token, sealed_refresh_token, scope, expires_at, updated_at"
        f" FROM oauth_tokens WHERE mcp_server_id IN ({marks})",
        tuple(wanted),
    )
    found = {
        row["mcp_server_id"]: _with_client(wanted[row["mcp_server_id"]], row) for row in clients
    }
    for row in tokens:
        server = wanted[row["mcp_server_id"]]
        known = found.get(server.id) or SignIn(server, Client(""))
        found[server.id] = replace(
            known,
            access_token=_text(row["sealed_access_token"]),
            refresh_token=_text(row["sealed_refresh_token"]),
            scope=row["scope"],
            expires_at=row["expires_at"],
            updated_at=row["updated_at"],
        )
    return found


async def load_sign_in(database: ConnectionPool, server: ServerDefinition) -> SignIn | None:
    """Return what is stored for one server; secrets as they are stored."""
    return (await load_sign_ins(database, (server,))).get(server.id)


async def save_sign_in(
    database: ConnectionPool, sign_in: SignIn, *, since: int | None = None
) -> bool:
    """Replace what is stored for a server, durable on return; secrets are to be sealed.

    With `since`, only if the tokens are still those of that `updated_at`. A server that was removed in the
    meantime is skipped. Return whether it was stored.
    """
    client, server_id, now = sign_in.client, sign_in.server.id, now_ms()
    facts = {key: value for key, value in asdict(client).items() if key in _FACTS}
    async with database.transaction() as writer:
        row = await writer.fetch_one(
            "SELECT t.updated_at FROM mcp_servers s LEFT JOIN oauth_tokens t ON t.mcp_server_id = s.id"
            " WHERE s.id = ?",
            (server_id,),
        )
        if row is None or (since is not None and row["updated_at"] != since):
            return False
        await delete_sign_in(writer, server_id)
        await writer.execute(
            "INSERT INTO oauth_client_registrations (mcp_server_id, issuer, client_id,"
            " sealed_client_secret, metadata, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(server_id, client.issuer, client.client_id),
                *(_bytes(sign_in.client_secret), json.dumps(facts), now),
            ),
        )
        if sign_in.access_token is not None:
            await writer.execute(
                "INSERT INTO oauth_tokens (mcp_server_id, sealed_access_token, sealed_refresh_token,"
                " scope, expires_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    *(server_id, _bytes(sign_in.access_token), _bytes(sign_in.refresh_token)),
                    *(sign_in.scope, sign_in.expires_at, max(sign_in.updated_at, 1)),
                ),
            )
    return True


async def delete_sign_in(database: ConnectionPool, server_id: str) -> None:
    """Delete the client and the tokens of a server."""
    async with database.transaction() as writer:
        for table in ("oauth_tokens", "oauth_client_registrations"):
            await writer.execute(f"DELETE FROM {table} WHERE mcp_server_id = ?", (server_id,))


async def set_sign_in_values(database: ConnectionPool, sign_in: SignIn) -> None:
    """Replace stored secrets by equivalent ones, such as those sealed with another key."""
    server_id = sign_in.server.id
    async with database.transaction() as writer:
        await writer.execute(
            "UPDATE oauth_client_registrations SET sealed_client_secret = ? WHERE mcp_server_id = ?"
            " AND client_id = ? AND issuer = ?",
            (
                *(_bytes(sign_in.client_secret), server_id),
                *(sign_in.client.client_id, sign_in.client.issuer),
            ),
        )
        await writer.execute(
            "UPDATE oauth_tokens SET sealed_access_token = ?, sealed_refresh_token = ?"
            " WHERE mcp_server_id = ? AND sealed_access_token IS NOT NULL",
            (_bytes(sign_in.access_token or ""), _bytes(sign_in.refresh_token), server_id),
        )


async def list_values(database: ConnectionPool) -> list[StoredValue]:
    """Return every value that is sealed or could be: of environment, headers and sign-ins."""
    servers = await list_servers(database)
    sign_ins = await load_sign_ins(database, servers)
    found = [entry for server in servers for entry in entries(server)]
    return found + [value for sign_in in sign_ins.values() for value in sign_in.values]


def _with_client(server: ServerDefinition, row: Row) -> SignIn:
    facts: Mapping[str, object] = {}
    with suppress(ValueError, TypeError):  # edited by hand: sign in again
        facts = parse_json(row["metadata"])
    texts = {
        key: value
        for key in _FACTS
        if isinstance(facts, dict) and isinstance(value := facts.get(key), str)
    }
    with suppress(ValueError):
        kind = ClientKind(texts.pop("kind", ClientKind.DYNAMIC))
        grant = Grant(texts.pop("grant", Grant.CODE))
        client = Client(row["client_id"], row["issuer"], kind, grant, **texts)
        return SignIn(server, client, _text(row["sealed_client_secret"]))
    return SignIn(server, Client(row["client_id"], row["issuer"]))


def _text(stored: bytes | str | None) -> str | None:
    return stored.decode("utf-8", "replace") if isinstance(stored, bytes) else stored


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else value.encode()
