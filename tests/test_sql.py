"""SQL is tokenized and quoted as SQLite does it."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.sql import (
    copied,
    fold,
    literal,
    normal,
    normal_tokens,
    quote,
    spelled,
    tokens,
    unquote,
)

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@given(NAMES)
def test_a_quoted_name_is_that_name_to_sqlite(name: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE t ({quote(name)} TEXT)")
    [row] = connection.execute("PRAGMA table_info(t)").fetchall()
    connection.close()
    assert row[1] == name


@given(NAMES)
def test_a_literal_is_that_text_to_sqlite(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    [(found,)] = connection.execute(f"SELECT {literal(text)}").fetchall()
    connection.close()
    assert found == text


@given(NAMES)
def test_quoting_and_unquoting_a_name_gives_it_back(name: str) -> None:
    assert unquote(quote(name)) == name


@given(st.text(max_size=40))
def test_any_text_is_cut_into_tokens_and_nothing_but_spaces_and_comments_is_lost(text: str) -> None:
    tokens = normal_tokens(text)
    assert all(start < end for _, _, start, end in tokens)
    assert sorted(tokens, key=lambda token: token[2]) == tokens


@given(
    st.lists(
        st.sampled_from(["a", "'x y'", "(", ")", "+", "1.5", '"b c"', "<=", "x'0f'"]), max_size=8
    )
)
def test_normal_text_is_normal_already(words: list[str]) -> None:
    once = normal(normal_tokens(" ".join(words)))
    assert normal(normal_tokens(once)) == once


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT  1", "select 1"),
        ("a<>b", "a != b"),
        ("a==b", "a = b"),
        ("[A]", '"a"'),
        ("`a``b`", '"a`b"'),
        ("(x)", "((x))"),
        ("a /* c */ + b -- d", "a+b"),
        ("0XfF", "0xff"),
        ("1E3", "1e3"),
    ],
)
def test_two_spellings_have_the_same_tokens(one: str, other: str) -> None:
    assert normal(normal_tokens(one)) == normal(normal_tokens(other))


@pytest.mark.parametrize(
    ("one", "other"), [("'A'", "'a'"), ("'x'", "x"), ("(a) + (b)", "a) + (b"), ("1", "1.0")]
)
def test_what_differs_keeps_differing(one: str, other: str) -> None:
    assert normal(normal_tokens(one)) != normal(normal_tokens(other))


def test_only_ascii_letters_are_folded() -> None:
    assert fold("ÄBc") == "Äbc"


@pytest.mark.parametrize("cut", [normal_tokens, lambda sql: list(tokens(sql))])
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


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("INSERT INTO t SELECT * FROM s", ("t", None, False)),
        (
            'insert or ignore into main.[T] as x (a, "b c") select a, b from s',
            ("T", ("a", "b c"), False),
        ),
        ("REPLACE INTO 't' (a) SELECT a FROM s", ("t", ("a",), False)),
        (
            "WITH c(n) AS (SELECT 'INTO' FROM s) INSERT INTO t (n) SELECT n FROM c",
            ("t", ("n",), False),
        ),
        ("INSERT INTO t VALUES ((SELECT max(a) FROM s))", ("t", None, False)),
        ("CREATE TABLE IF NOT EXISTS main.t AS SELECT * FROM s", ("t", None, True)),
        ("CREATE TEMP TABLE t AS SELECT * FROM s", ("t", None, True)),
        ("INSERT INTO t VALUES (1)", None),
        ("CREATE TABLE t (a CHECK (a <> 'FROM'))", None),
        ("CREATE VIEW v AS SELECT * FROM s", None),
        ("UPDATE t SET a = 1 FROM s", None),
        ("INSERT FROM", None),
    ],
)
def test_what_a_statement_copies_is_read(sql: str, read: tuple[object, ...] | None) -> None:
    assert copied(sql) == read


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16be"])
@pytest.mark.parametrize("text", ["", "it's", "\0", "a\0\0b", "\0é🐘" * 3_000, "\0" * 3_000])
def test_a_text_is_spelled_for_a_database_of_any_encoding(text: str, encoding: str) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        found = connection.execute(f"SELECT CAST({spelled(text, str.isprintable)} AS BLOB)")
        assert found.fetchone()[0].decode(encoding) == text
