"""A sealed value opens with its key, where it was put, unaltered; and in no other way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from local_mcp_gateway.errors import SealedValueProblem
from local_mcp_gateway.store.encryption import (
    KEY_BYTES,
    MARK,
    SealingKey,
    StoredValue,
    entries,
    has_sealed,
    open_value,
    opened_server,
    seal,
    with_values,
)
from local_mcp_gateway.store.model import ServerDefinition, ServerKind

SERVER = ServerDefinition("s", ServerKind.STDIO, command="true", id="1")
KEY, OTHER = SealingKey(bytes(KEY_BYTES)), SealingKey(b"\1" * KEY_BYTES)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).map(SealingKey)
any_text = st.text(st.characters(), max_size=60) | st.text(max_size=20).map(MARK.__add__)


def entry(value: str) -> StoredValue:
    return StoredValue(SERVER, "env", "TOKEN", value)


@given(any_text, keys)
@example("\udcff \ud800 \0", KEY)
def test_any_text_comes_back_as_it_was_also_one_that_looks_sealed(
    value: str, key: SealingKey
) -> None:
    sealed = seal(entry(value), key)
    assert (sealed.sealed, sealed.key) == (True, key.id)
    assert open_value(sealed, [OTHER, key]).value == value
    assert len(sealed.value) > len(value.encode("utf-8", "surrogatepass"))


@given(any_text, st.data())
def test_no_character_can_be_changed_after_the_mark(value: str, data: st.DataObject) -> None:
    sealed = seal(entry(value), KEY).value
    at = data.draw(st.integers(len(MARK), len(sealed) - 1))
    to = data.draw(st.sampled_from("0aA-_=:\n ") | st.characters())
    assume(to != sealed[at])
    with pytest.raises(SealedValueProblem):
        open_value(entry(sealed[:at] + to + sealed[at + 1 :]), [KEY, OTHER])


@given(any_text, st.data())
def test_nothing_can_be_cut_off_or_added(value: str, data: st.DataObject) -> None:
    sealed = seal(entry(value), KEY).value
    shorter = sealed[: data.draw(st.integers(len(MARK), len(sealed) - 1))]
    longer = sealed + data.draw(st.text(min_size=1, max_size=4))
    for altered in (shorter, longer):
        with pytest.raises(SealedValueProblem):
            open_value(entry(altered), [KEY])


HERE = entry("")


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(HERE, name="OTHER"),
        replace(HERE, column="headers"),
        replace(HERE, server=replace(SERVER, id="2")),
    ],
    ids=["under another name", "in another column", "at another server"],
)
def test_a_value_does_not_open_in_another_place(elsewhere: StoredValue) -> None:
    moved = replace(elsewhere, value=seal(entry("hunter2"), KEY).value)
    with pytest.raises(SealedValueProblem, match="altered, or belongs to another entry"):
        open_value(moved, [KEY])


def test_it_opens_after_the_server_was_renamed_or_given_another_command() -> None:
    changed = replace(SERVER, name="new", command="false", active=False)
    assert (
        open_value(replace(seal(entry("hunter2"), KEY), server=changed), [KEY]).value == "hunter2"
    )


def test_another_key_is_told_from_an_altered_value() -> None:
    sealed = seal(entry("hunter2"), KEY)
    with pytest.raises(SealedValueProblem, match=f"sealed with key {KEY.id}") as raised:
        open_value(sealed, [OTHER])
    assert raised.value.data["key"] == KEY.id


def test_a_value_of_a_version_to_come_is_refused_by_name() -> None:
    newer = seal(entry("hunter2"), KEY).value.replace(":1:", ":2:", 1)
    with pytest.raises(SealedValueProblem, match="version of the program does not know"):
        open_value(entry(newer), [KEY])


def test_one_value_is_sealed_otherwise_each_time() -> None:
    assert seal(entry("x"), KEY).value != seal(entry("x"), KEY).value


@given(st.dictionaries(st.text(max_size=5), any_text, max_size=3), st.data())
def test_a_server_is_opened_whole_with_plain_values_as_they_are(
    env: dict[str, str], data: st.DataObject
) -> None:
    assume(not any(value.startswith(MARK) for value in env.values()))
    server = replace(SERVER, env=env, headers={"A": "b"})
    chosen = [value for value in entries(server) if data.draw(st.booleans())]
    sealed = with_values(server, [seal(value, KEY) for value in chosen])
    assert has_sealed(sealed) == bool(chosen)
    assert opened_server(sealed, [KEY]) == server
    assert list(sealed.env) == list(server.env)


def test_neither_key_nor_value_is_shown_by_repr() -> None:
    shown = repr((KEY, entry("hunter2"), SealedValueProblem("x")))
    assert "hunter2" not in shown
    assert repr(KEY.raw) not in shown
