"""What a row of the original says, whichever of its versions wrote it."""

from __future__ import annotations

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.store.original_rows import (
    document_of,
    flag_of,
    ms_of,
    number_of,
    read_server,
)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000_000, 1_700_000_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("soon", 7),
        (None, 7),
        (float("nan"), 0),
    ],
)
def test_a_time_is_read_in_every_form_that_it_had(value: object, ms: int) -> None:
    assert ms_of(value, 7) == ms


def test_a_configuration_may_be_json_inside_json() -> None:
    assert document_of('{"a": 1}') == {"a": 1}
    assert document_of('"{\\"a\\": 1}"') == {"a": 1}
    assert document_of("{") is None
    assert document_of('"\\ud800"') is None


def test_a_flag_that_is_not_there_is_on() -> None:
    assert [flag_of(value) for value in (None, 1, 0, "0", "false", "yes")] == [1, 1, 0, 0, 0, 1]


def test_a_number_fits_a_column() -> None:
    assert [number_of(value) for value in ("7", 7.9, 1e300)] == [0, 7, 1 << 53]


def server(kind: str, config: str, **columns: object) -> list[str]:
    notes: list[str] = []
    row = {"id": "1", "type": kind, "config": config, **columns}
    found = read_server(row, notes, always_bearer=True)
    return [*notes, *found.headers.values(), found.url or found.command or ""]


def test_a_server_is_read_with_its_key_as_its_setting_says() -> None:
    key = '{"apiKey": "k", "headerName": "X-Key", "headerValue": "{apiKey}"}'
    note, value, url = server("sse", '{"url": "https://a.example"}', api_key_config=key)
    assert (value, url) == ("k", "https://a.example")
    assert "the original sent it as `Bearer KEY`" in note


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        ("builtin", "{}", "built into the original"),
        ("stdio", "[]", "not a JSON object"),
        ("stdio", "{}", "has no command"),
        ("sse", '{"url": "ftp://a"}', "not a web address"),
        ("other", "{}", "not known here"),
    ],
)
def test_a_server_without_a_place_here_says_why(kind: str, config: str, why: str) -> None:
    with pytest.raises(UsageProblem, match=why):
        server(kind, config)
