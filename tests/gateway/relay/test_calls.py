"""The log of calls: what is kept of payloads, and while the database does not write."""

from __future__ import annotations

import json
from pathlib import Path

from local_mcp_gateway.database.serving import Database
from local_mcp_gateway.gateway.relay.calls import LARGEST_PAYLOAD, LONGEST_PAYLOAD, CallLog, payload
from local_mcp_gateway.log import ignore
from local_mcp_gateway.store.memory import list_calls
from local_mcp_gateway.store.model import CallRecord
from tests.gateway.support import create_database

CALL = CallRecord(0, "p", "s", "tools/call", "t", "ok", None, 1, 1, 1)


def test_a_payload_is_kept_without_its_secrets_and_cut_where_it_is_long() -> None:
    told = payload(json.dumps({"a": {"password": "hunter2"}, "text": "x" * 100_000}).encode())
    assert "hunter2" not in told
    assert len(told) == LONGEST_PAYLOAD
    large = json.dumps({"password": {"deep": "hunter2" * LARGEST_PAYLOAD}}).encode()
    assert payload(large) == f"[{len(large)} bytes: too much to be kept]"


async def test_the_oldest_payloads_go_while_the_database_does_not_write(tmp_path: Path) -> None:
    async with Database.open(create_database(tmp_path / "gateway.db")) as database:
        log = CallLog(database, ignore, keep=10_000)
        for number in range(1000):
            body = "x" * LONGEST_PAYLOAD
            log.add(CALL._replace(duration_us=number, request=body, response=body))
            log.add(CALL._replace(duration_us=number))
        await log.flush()
        kept = await list_calls(database, limit=10_000)
        with_payload = [call.duration_us for call in kept if call.request is not None]
        assert with_payload == list(range(999, 999 - 128, -1)), "128 pairs of 64 KiB are 16 MiB"
        assert log.counts["s", "tools/call", "ok"] == 2000
