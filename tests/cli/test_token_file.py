"""Where a command finds a token, and which texts it refuses as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.cli.token_file import TOKEN_VARIABLE, given_token
from local_mcp_gateway.errors import UsageProblem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    return path


@pytest.mark.parametrize(
    "content", [b"lmg_1", b"lmg_1\n", b"\xef\xbb\xbflmg_1\r\n", b"  lmg_1\t\n\n"]
)
def test_a_token_is_read_from_what_an_editor_has_saved(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert given_token(file) == "lmg_1"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"a b", b"a\nb", b"lmg_\xff", b"l\x00", "lmg_é".encode(), b"a" * 100_000],
    ids=lambda content: repr(content[:8]),
)
def test_what_no_header_takes_is_no_token(
    file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageProblem, match=r"token holds no token\."):
        given_token(file)
    if content.strip() and b"\0" not in content:
        monkeypatch.setenv(TOKEN_VARIABLE, content.decode("utf-8", "surrogateescape"))
        with pytest.raises(UsageProblem, match="The variable LMG_TOKEN holds no token"):
            given_token(None)


def test_without_a_file_the_variable_has_it_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, found in (("", None), (" \n", None), (" lmg_1\n", "lmg_1")):
        monkeypatch.setenv(TOKEN_VARIABLE, given)
        assert given_token(None) == found
    monkeypatch.delenv(TOKEN_VARIABLE)
    assert given_token(None) is None
