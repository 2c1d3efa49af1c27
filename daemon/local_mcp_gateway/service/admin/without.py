"""Do a daemon's work without a daemon: take the lock, guard the database, do it, leave.

What only reads does neither: it looks at the database as it is, beside whoever holds the lock.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from local_mcp_gateway.database.pool import ConnectionPool, ReadOnlyDatabase
from local_mcp_gateway.guard import guarded
from local_mcp_gateway.service.admin import table as admin
from local_mcp_gateway.service.policy import gateway_options, guard_policy
from local_mcp_gateway.service.refusal import cause_of
from local_mcp_gateway.service.secrets.vault import Vault

if TYPE_CHECKING:
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.log import Emit


def answer(settings: Settings, verb: str, arguments: dict[str, Any], emit: Emit) -> Any:
    """Return what the daemon would answer. Blocks.

    What changes something raises LockHeld while somebody else has the lock.
    """
    vault = Vault.of(settings, emit)
    if verb in admin.READ_ONLY:
        with ReadOnlyDatabase.open_at(settings.database_path) as looked_at:
            default = settings.gateway.default_profile
            return anyio.run(
                partial(admin.perform, looked_at, None, default, vault, verb, arguments)
            )
    guard = guarded(
        settings.database_path, settings.migrations_folder, policy=guard_policy(settings), emit=emit
    )
    with guard:
        try:
            return anyio.run(partial(_answer, settings, vault, verb, arguments))
        except BaseExceptionGroup as group:
            raise cause_of(group) from None


async def _answer(settings: Settings, vault: Vault, verb: str, arguments: dict[str, Any]) -> object:
    default = settings.gateway.default_profile
    async with ConnectionPool.open(settings.database_path) as database:
        if verb not in admin.WITH_GATEWAY:
            return await admin.perform(database, None, default, vault, verb, arguments)
        from local_mcp_gateway.gateway.gateway import Gateway

        options = gateway_options(settings)
        async with Gateway.open(database, options, unseal=vault.open) as gateway:
            return await admin.perform(database, gateway, default, vault, verb, arguments)
