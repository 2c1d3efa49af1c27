"""Seal the secrets of servers: the values that a command gives, the tokens of a sign-in, or all stored ones.

Cryptography and key files stay off the event loop, which may be serving meanwhile.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from local_mcp_gateway.errors import SealedValueProblem
from local_mcp_gateway.store import (
    SEALED_COLUMNS,
    StoredValue,
    entries,
    list_values,
    load_sign_in,
    load_sign_ins,
    queries,
    save_sign_in,
    seal,
    set_sign_in_values,
    with_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.service.secrets.keyring import Keyring, OpenedKeys
    from local_mcp_gateway.store import SealingKey, ServerDefinition, SignIn


async def seal_new(
    database: ConnectionPool, keyring: Keyring, servers: Sequence[ServerDefinition]
) -> list[ServerDefinition]:
    """Return new servers ready to be stored: with an id, and every value sealed."""
    named = [replace(server.checked(), id=queries.new_id()) for server in servers]
    given = [entry for server in named for entry in entries(server)]
    sealed = await _sealed(database, keyring, given)
    return [with_values(s, [entry for entry in sealed if entry.server is s]) for s in named]


async def seal_values(
    database: ConnectionPool, keyring: Keyring, old: ServerDefinition, changes: dict[str, Any]
) -> dict[str, Any]:
    """Return changes to a server with their values sealed."""
    given = [
        StoredValue(old, column, name, value)
        for column in SEALED_COLUMNS
        for name, value in (changes.get(column) or {}).items()
        if value is not None
    ]
    sealed: dict[str, dict[str, str]] = {}
    for entry in await _sealed(database, keyring, given):
        sealed.setdefault(entry.column, {})[entry.name] = entry.value
    return changes | {column: {**changes[column], **values} for column, values in sealed.items()}


async def seal_all(database: ConnectionPool, arguments: dict[str, Any], keyring: Keyring) -> object:
    """Seal every value with the newest key: plain values and those sealed with an older key.

    A value that does not open stays as it is and is reported. After COMMIT the database file or its WAL still
    holds the old values until the WAL is truncated.
    """
    del arguments
    servers = await queries.list_servers(database)
    key = await _sealing_key(database, keyring)
    counts = {"sealed": 0, "resealed": 0}
    unreadable = []
    sign_ins = await load_sign_ins(database, servers)
    for server in servers:
        signed_in = sign_ins.get(server.id)
        values = [*entries(server), *(signed_in.values if signed_in else ())]
        done, failed = await anyio.to_thread.run_sync(_reseal, values, key, keyring.keys())
        if own := [entry for entry in done if entry.column in SEALED_COLUMNS]:
            await queries.set_values(database, with_values(server, own))
        if signed_in and len(done) > len(own):
            tokens = [entry for entry in done if entry.column not in SEALED_COLUMNS]
            await set_sign_in_values(database, signed_in.with_values(tokens))
        was_plain = sum(not entry.sealed for entry in values)
        counts["sealed"] += was_plain
        counts["resealed"] += len(done) - was_plain
        unreadable += failed
    return {"key": key.id, "file": str(keyring.file), **counts, "unreadable": unreadable}


class SealedSignIns:
    """The sign-ins in the database, sealed there and in plain for who uses them."""

    def __init__(self, database: ConnectionPool, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    async def load(self, server: ServerDefinition) -> SignIn | None:
        """Return what is stored for a server, in plain. Raises SealedValueProblem with a hint."""
        stored = await load_sign_in(self._database, server)
        if stored is None or not stored.values:
            return stored
        values = stored.values

        def opened() -> list[StoredValue]:
            keys = self._keyring.keys()
            return [keys.open(value) for value in values]

        return stored.with_values(await anyio.to_thread.run_sync(opened))

    async def save(self, sign_in: SignIn, *, since: int | None = None) -> bool:
        """Seal and store it, durable on return; with `since`, only over tokens of that `updated_at`."""
        sealed = await _sealed(self._database, self._keyring, sign_in.values)
        return await save_sign_in(self._database, sign_in.with_values(sealed), since=since)


def _reseal(
    values: Sequence[StoredValue], key: SealingKey, keys: OpenedKeys
) -> tuple[list[StoredValue], list[dict[str, str]]]:
    done: list[StoredValue] = []
    failed: list[dict[str, str]] = []
    for entry in values:
        try:
            plain = keys.open(entry)
            if entry.key != key.id:
                done.append(seal(plain, key))
        except SealedValueProblem as problem:
            where = {"server": entry.server.name, "column": entry.column, "name": entry.name}
            failed.append({**where, "reason": problem.message})
    return done, failed


async def _sealed(
    database: ConnectionPool, keyring: Keyring, given: Iterable[StoredValue]
) -> list[StoredValue]:
    plain = list(given)
    if not plain:
        return []
    key = await _sealing_key(database, keyring)
    return await anyio.to_thread.run_sync(lambda: [seal(entry, key) for entry in plain])


async def _sealing_key(database: ConnectionPool, keyring: Keyring) -> SealingKey:
    known = {entry.key for entry in await list_values(database) if entry.sealed}
    return await anyio.to_thread.run_sync(keyring.sealing_key, known)
