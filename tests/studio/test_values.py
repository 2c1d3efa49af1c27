"""Values: what is typed, and the key of a row as an address carries it."""

from __future__ import annotations

import pytest

from local_mcp_gateway.database import Connection
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.studio.tables import Column, read_table
from local_mcp_gateway.studio.values import key_text, key_values, typed


def test_a_key_comes_back_as_it_was_and_another_is_refused(connection: Connection) -> None:
    keyed = read_table(connection, "keyed", frozenset())
    assert keyed is not None
    for key in (["a", 1], [b"\x00\xff", None], ["ü", 2.5]):
        assert key_values(keyed, key_text(key)) == key
    for text in ("", "[1]", "[[1], 2]", '[{"y": 1}, 2]', f"[{2**70}, 1]", "{}", "1"):
        with pytest.raises(UsageProblem, match="names no row"):
            key_values(keyed, text)


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("INTEGER", " 12 ", 12),
        ("INTEGER", "1.5", 1.5),
        ("INTEGER", "abc", "abc"),
        ("INTEGER", str(2**70), float(2**70)),
        ("TEXT", "12", "12"),
        ("REAL", "inf", "inf"),
        ("", "7", 7),
        ("BLOB", "7", "7"),
    ],
)
def test_what_is_typed_becomes_what_the_column_takes(
    declared: str, text: str, value: object
) -> None:
    column = Column("a", declared, False, None, 0, False, False)
    assert typed(column, text) == value
