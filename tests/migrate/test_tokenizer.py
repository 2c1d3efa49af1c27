"""The look into a statement costs no more than the statement."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence

import pytest

from local_mcp_gateway.migrate.tokenizer import tokens
from local_mcp_gateway.schema.tokenizer import tokenize


@pytest.mark.parametrize("cut", [tokenize, lambda sql: list(tokens(sql))])
@pytest.mark.parametrize("quote", ["'", '"', "`"])
def test_a_long_literal_takes_no_memory_of_its_own(
    cut: Callable[[str], Sequence[object]], quote: str
) -> None:
    sql = f"SELECT {quote}{'word, ' * 200_000}{quote}"
    cut("SELECT 1")  # compiles the grammar
    tracemalloc.start()
    try:
        found = cut(sql)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 2
    assert peak < 8 * len(sql)
