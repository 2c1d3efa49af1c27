"""Secrets never reach the log: hidden by the name of a field, or by the look of a text."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.log.redact import is_secret_key, redact, redact_text
from tests.harness import DEADLINE_S


@given(
    st.sampled_from(["ghp_", "github_pat_", "sk-", "sk-ant-", "xoxb-", "glpat-"]),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=20, max_size=40),
    st.text(max_size=20),
)
def test_a_token_is_hidden_wherever_it_stands(prefix: str, body: str, around: str) -> None:
    assert body not in redact_text(f"{around} {prefix}{body} {around}") or body in around


@pytest.mark.parametrize(
    "part",
    ["a-", "-", "a--", "token", "--token", "eyJ-", "eyJaaaaaaaaaaaa-", "sk-", "://a:", "basic "],
)
def test_a_long_line_of_a_server_is_looked_through_once(part: str) -> None:
    """The interpreter's lock is held meanwhile: what grew with the square stopped every call."""
    code = (
        "import sys; from local_mcp_gateway.log.redact import redact_text; redact_text(sys.argv[1])"
    )
    line = part * (100_000 // len(part))
    subprocess.run([sys.executable, "-c", code, line], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    "text",
    [
        "x--token S3CRETS",
        "--my-api-key-2 S3CRETS",
        "MY_TOKEN_FOR_ME=S3CRETS",
        "-token: S3CRETS",
        "run--eyJhbGciOi01.eyJzdWIiOi02.S3CRETS",
        "eyJhbGciOi01.eyJzdWIiOi02.S3CRETS",
    ],
)
def test_a_name_is_found_wherever_it_begins(text: str) -> None:
    assert "S3CRETS" not in redact_text(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
    )
)
def test_redaction_keeps_the_shape_of_what_it_is_given(value: object) -> None:
    assert json.dumps(redact(redact(value))) == json.dumps(redact(value))


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "access_token",
        "Authorization",
        "client_secret",
        "API-KEY",
        "db_password",
        "Set-Cookie",
        "refreshToken",
    ],
)
def test_a_field_named_like_a_secret_is_hidden(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["path", "tag", "tokens_found", "duration_ms", "author", "keys", "bytes", "progress"]
)
def test_a_field_with_a_harmless_name_is_shown(key: str) -> None:
    assert not is_secret_key(key)


def test_the_token_of_a_progress_notification_is_shown() -> None:
    line = '{"progressToken": "7", "accessToken": "7"}'
    assert redact_text(line) == '{"progressToken": "7", "accessToken": "[redacted]"}'
    assert not is_secret_key("progressToken")
