"""What the gateway caches and records comes back, the newest first."""

from __future__ import annotations

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.store import cache, queries
from local_mcp_gateway.store.model import (
    KEPT_NAMES,
    CallRecord,
    CatalogEntry,
    CatalogKind,
    ProfileDefinition,
    ServerDefinition,
    ServerKind,
)

TIME = ServerDefinition(
    "time", ServerKind.STDIO, command="python", args=("-m", "x y"), env={"TZ": "UTC"}, cwd="/tmp"
)


async def test_the_newest_catalog_of_a_server_is_remembered(database: ConnectionPool) -> None:
    server = await queries.add_server(database, TIME)
    for body in ("[1]", "[2]"):
        entry = CatalogEntry(server.id, CatalogKind.TOOLS, body, "h" + body)
        await cache.save_catalogs(database, [entry, CatalogEntry("gone", entry.kind, "", "")])
    (known,) = await cache.load_catalogs(database)
    assert (known.body, known.hash) == ("[2]", "h[2]")
    assert known.fetched_at > 0


async def test_the_call_log_keeps_the_newest(database: ConnectionPool) -> None:
    calls = [CallRecord(i, "p", "s", "tools/call", f"t{i}", "ok", None, 5, 1, 2) for i in range(10)]
    await cache.save_calls(database, calls, keep=3)
    kept = await database.fetch_all("SELECT target FROM debug_logs ORDER BY id")
    assert [target for (target,) in kept] == ["t7", "t8", "t9"]


async def test_a_profile_that_is_removed_leaves_no_names_behind(database: ConnectionPool) -> None:
    await queries.add_profile(database, ProfileDefinition("other"))
    kept = await queries.get_profile(database, "other")
    gone = await queries.add_profile(database, ProfileDefinition("gone"))
    async with database.transaction() as writer:
        await writer.execute(
            "INSERT INTO gateway_settings (key, value, updated_at) VALUES (?, '{}', 0)",
            (KEPT_NAMES + "removed by an older version",),
        )
    for profile in (kept, gone):
        await cache.save_names(database, profile.id, "{}")
    await queries.remove_profile(database, "gone")
    await cache.save_names(database, gone.id, "{}")  # a write that was under way
    rows = await database.fetch_all("SELECT key FROM gateway_settings")
    assert [key for (key,) in rows] == [f"names.{kept.id}"]
    assert await cache.load_names(database) == {kept.id: "{}"}
    await cache.save_names(database, kept.id, None)
    assert await cache.load_names(database) == {}


async def test_approved_tools_are_stored_with_the_lists_and_found_by_server(
    database: ConnectionPool,
) -> None:
    server = await queries.add_server(database, TIME)
    entry = CatalogEntry(server.id, CatalogKind.TOOLS, "[]", "hash")
    approved = [(server.id, "now", "1"), (server.id, "now", "2"), ("gone", "now", "3")]
    await cache.save_catalogs(database, [entry], approved)
    assert await cache.load_approved(database) == {server.id: {"now": "2"}}
    assert await cache.get_catalog(database, server.id, CatalogKind.TOOLS) == "[]"
    assert await cache.get_catalog(database, server.id, CatalogKind.PROMPTS) is None
