"""The errors of Litestream in plain words; a running one is in `test_replication.py`."""

from __future__ import annotations

from local_mcp_gateway.service.replica.litestream import plain_words


def test_what_a_store_says_is_told_without_what_differs_each_time() -> None:
    said = (
        "close l1 iterator: operation error S3: ListObjectsV2, https response error StatusCode: {}, RequestID: r1,"
        " HostID: h/2=, {}: The words."
    )
    for code in ("NoSuchBucket", "api error AccessDenied"):
        name = code.rpartition(" ")[2]
        assert plain_words(said.format(404, code)) == f"The words ({name})."
    assert plain_words("Error: no matching backup files") == "no matching backup files"
