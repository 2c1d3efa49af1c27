"""The audit log: settings that have changed are told once, by their names."""

from __future__ import annotations

import pytest

from local_mcp_gateway.database import ConnectionPool
from local_mcp_gateway.store import audit_settings, list_audit

pytestmark = pytest.mark.asyncio
BEFORE = {"gateway.port": "a", "log.level": "b"}


async def told(database: ConnectionPool) -> list[tuple[str, str | None]]:
    entries = await list_audit(database, since=0, limit=10, who="settings", action=None)
    return [(entry.action, entry.detail) for entry in entries]


async def test_settings_that_have_changed_are_told_once(database: ConnectionPool) -> None:
    await audit_settings(database, BEFORE, "start")
    assert await told(database) == []
    for _ in range(2):
        await audit_settings(database, {**BEFORE, "log.level": "c"}, "reload")
    assert await told(database) == [("reload", "log.level")]


async def test_a_setting_that_is_new_in_this_version_is_told(database: ConnectionPool) -> None:
    await audit_settings(database, BEFORE, "start")
    await audit_settings(database, {**BEFORE, "log.new": "d"}, "start")
    assert await told(database) == [("start", "log.new")]


@pytest.mark.parametrize("odd", ["", "{", "[1]", "null"])
async def test_what_somebody_has_written_there_counts_as_nothing(
    database: ConnectionPool, odd: str
) -> None:
    async with database.transaction() as writer:
        await writer.execute("INSERT INTO gateway_settings VALUES ('settings', ?, 0)", (odd,))
    await audit_settings(database, BEFORE, "start")
    await audit_settings(database, {**BEFORE, "log.level": "c"}, "start")
    assert await told(database) == [("start", "log.level")]
