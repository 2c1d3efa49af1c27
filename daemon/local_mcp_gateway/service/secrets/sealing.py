"""Seal the secrets of servers: the values that a command gives, or all stored ones.

Cryptography and key files stay off the event loop, which may be serving meanwhile.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from local_mcp_gateway.errors import SealedValueProblem
from local_mcp_gateway.store import SEALED_COLUMNS, StoredValue, entries, queries, seal, with_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from local_mcp_gateway.database import ConnectionPool
    from local_mcp_gateway.service.secrets.keyring import Keyring, OpenedKeys
    from local_mcp_gateway.store import SealingKey, ServerDefinition


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
    for server in servers:
        done, failed = await anyio.to_thread.run_sync(_reseal, server, key, keyring.keys())
        if done:
            await queries.set_values(database, with_values(server, done))
        was_plain = sum(not entry.sealed for entry in entries(server))
        counts["sealed"] += was_plain
        counts["resealed"] += len(done) - was_plain
        unreadable += failed
    return {"key": key.id, "file": str(keyring.file), **counts, "unreadable": unreadable}


def _reseal(
    server: ServerDefinition, key: SealingKey, keys: OpenedKeys
) -> tuple[list[StoredValue], list[dict[str, str]]]:
    done: list[StoredValue] = []
    failed: list[dict[str, str]] = []
    for entry in entries(server):
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
    stored = [entry for server in await queries.list_servers(database) for entry in entries(server)]
    known = {entry.key for entry in stored if entry.sealed}
    return await anyio.to_thread.run_sync(keyring.sealing_key, known)
