"""Whether there are tokens, and whether one is needed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from local_mcp_gateway.service.admin import has_tokens, needs_token
from tests.harness import Place


@pytest.mark.parametrize(
    ("host", "setting", "needed"),
    [("127.0.0.1", "auto", False), ("127.0.0.1", "always", True), ("0.0.0.0", "auto", True)],
)
def test_the_address_of_the_socket_decides_whoever_bound_it(
    host: str, setting: str, *, needed: bool
) -> None:
    with socket.create_server((host, 0)) as listener:
        assert needs_token(listener, setting) is needed


def test_whether_there_are_tokens_is_read_whatever_the_database_is(
    shipped: Place, tmp_path: Path
) -> None:
    assert has_tokens(shipped.database) is False
    shipped.run("server", "add", "plain", "--", "true")
    assert has_tokens(shipped.database) is False
    assert shipped.run("token", "create", "ci", "--profile", "default").code == 0
    assert has_tokens(shipped.database) is True
    refused = shipped.run("token", "create", "other", "--profile", "nothing")
    assert (refused.code, "; there is default." in refused.stderr) == (2, True)
    shipped.run("token", "revoke", "ci", "--yes")
    assert has_tokens(shipped.database) is False
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"SQLite format 3\0" + b"x" * 4096)
    assert has_tokens(broken) is False
