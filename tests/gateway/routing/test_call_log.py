"""The log of calls: what is kept of payloads, and while the database does not write."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.database.pool import ConnectionPool
from local_mcp_gateway.gateway.protocol.jsonrpc import Answer, failure
from local_mcp_gateway.gateway.routing.call_log import (
    LARGEST_PAYLOAD,
    LONGEST_PAYLOAD,
    SHOWN,
    CallLog,
    error_text,
    payload,
    target_text,
)
from local_mcp_gateway.log import ignore
from local_mcp_gateway.store.model import CallRecord
from tests.gateway.support import QUICK, create_database

CALL = CallRecord(0, "p", "s", "tools/call", "t", "ok", None, 1, 1, 1)


def test_a_payload_is_kept_without_its_secrets_and_cut_where_it_is_long() -> None:
    told = payload(json.dumps({"a": {"password": "hunter2"}, "text": "x" * 100_000}).encode())
    assert "hunter2" not in told
    assert len(told) == LONGEST_PAYLOAD
    large = json.dumps({"password": {"deep": "hunter2" * LARGEST_PAYLOAD}}).encode()
    assert payload(large) == f"[{len(large)} bytes: too much to be kept]"


def test_a_call_is_told_without_the_secrets_in_its_target_and_in_its_error() -> None:
    assert target_text("https://x/y?token=hunter2") == "https://x/y?token=[redacted]"
    assert len(target_text("t" * 1000) or "") == SHOWN
    told = failure(-1, "no: Authorization: Bearer hunter2hunter2, password=hunter2")
    assert error_text(told) == "-1 no: Authorization: Bearer [redacted], password=[redacted]"


@given(st.sampled_from([b"{}", b'{"message":5}', b'{"message":"' + b"x" * 1000 + b'"}']))
def test_any_error_is_told_in_a_short_text(body: bytes) -> None:
    assert len(error_text(Answer(body, failed=True))) <= 510
    deep = b'{"code":-1,"message":"m","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert error_text(Answer(deep, failed=True)) == "0 "


async def test_the_oldest_payloads_go_while_the_database_does_not_write(tmp_path: Path) -> None:
    async with ConnectionPool.open(create_database(tmp_path / "gateway.db")) as database:
        log = CallLog(database, ignore, QUICK)
        for number in range(1000):
            body = "x" * LONGEST_PAYLOAD
            log.add(CALL._replace(duration_us=number, request=body, response=body))
            log.add(CALL._replace(duration_us=number))
        await log.flush()
        rows = await database.fetch_all(
            "SELECT duration_us FROM debug_logs WHERE request IS NOT NULL ORDER BY id"
        )
        with_payload = [number for (number,) in rows]
        assert with_payload == list(range(1000 - 128, 1000)), "128 pairs of 64 KiB are 16 MiB"
        assert log.counts["s", "tools/call", "ok"] == 2000


def test_a_payload_that_is_nested_as_deep_as_json_can_be_read_is_kept() -> None:
    for depth in range(100, 1000):
        body = b'{"a":' * depth + b'{"token":"s3cret"}' + b"}" * depth
        assert "s3cret" not in payload(body)
