"""What becomes of the original's rows: all are counted, and what changes or stays behind is named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.errors import VerificationFailed
from local_mcp_gateway.store import (
    SealingKey,
    ServerDefinition,
    ServerKind,
    StoredValue,
    TakenOver,
    open_value,
    take_over,
)
from tests.harness import REPOSITORY
from tests.originals import MS, PLAIN, SECRETS, STATES, make_original

KEY = SealingKey(b"k" * 32)


class Taken:
    """A take-over of one state, and the new database."""

    def __init__(self, old: sqlite3.Connection, new: sqlite3.Connection) -> None:
        self.old, self.new = old, new

    def run(self, *changes: str, logs: bool = False) -> TakenOver:
        for change in changes:
            self.old.execute(change)
        return take_over(self.old, self.new, lambda: KEY, logs=logs)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.new.execute(sql).fetchall()


@pytest.fixture
def new() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        for file in sorted((REPOSITORY / "migrations").glob("[0-9]*.sql")):
            if not file.name.endswith(".down.sql"):
                database.executescript(file.read_text())
        database.execute("PRAGMA foreign_keys = ON")
        yield database


@pytest.fixture
def taken(
    request: pytest.FixtureRequest, tmp_path: Path, new: sqlite3.Connection
) -> Iterator[Taken]:
    state = getattr(request, "param", "E")
    file = make_original(state, tmp_path / "old.db")
    with closing(sqlite3.connect(file, isolation_level=None)) as old:
        yield Taken(old, new)


def opened(server: str, column: str, name: str, value: bytes) -> str:
    there = ServerDefinition("any", ServerKind.HTTP, id=server)
    return open_value(StoredValue(there, column, name, value.decode()), [KEY]).value


@pytest.mark.parametrize("taken", STATES, indirect=True)
def test_each_state_gives_the_same_profiles_servers_and_order(taken: Taken) -> None:
    done = taken.run(logs=True)
    counted = {count.what: (count.there, count.here) for count in done.counts}
    example = (
        1
        if ("server", "Memory MCP", "it is an example that no profile uses") in done.left_out
        else 0
    )
    assert counted["servers"] == (6 + example, 4)
    assert counted["profiles"] == (3, 3)
    assert counted["places in profiles"] == (7, 4)
    assert counted["log rows"] == (3, 2)
    assert all(count.there == count.here + count.left_out for count in done.counts)
    assert taken.rows("SELECT id, name, created_at FROM profiles ORDER BY id") == [
        ("p1", "default", MS),
        ("p2", "work-desk", MS),
        ("p3", "work-desk-2", MS),
    ]
    assert taken.rows("SELECT id, name, kind, url FROM mcp_servers ORDER BY id") == [
        ("s1", "Notes", "stdio", None),
        ("s2", "Notes-2", "http", "https://notes.example/mcp"),
        ("s3", "Tickets", "sse", "https://tickets.example/sse"),
        ("s5", "Twice", "http", "https://twice.example/mcp"),
    ]
    off = 1 if taken.rows("SELECT 1 FROM profile_mcp_servers WHERE active = 0") == [] else 0
    assert taken.rows(
        "SELECT mcp_server_id, position, active FROM profile_mcp_servers WHERE profile_id = 'p2'"
        " ORDER BY position"
    ) == [("s3", 0, 1), ("s1", 1, 1), ("s2", 2, off)]
    assert json.loads(taken.rows("SELECT args FROM mcp_servers WHERE id = 's1'")[0][0]) == PLAIN
    assert ("profile", "work desk", "work-desk") in done.renamed
    assert ("server", "Notes", "Notes-2") in done.renamed
    assert {name for what, name, _ in done.left_out if what == "server"} - {"Memory MCP"} == {
        "Own module",
        "Broken",
    }
    assert [server for server, _ in done.starts] == ["Notes"]


@pytest.mark.parametrize("taken", ["B", "C", "E"], indirect=True)
def test_hidden_and_renamed_tools_are_found_through_their_place(taken: Taken) -> None:
    done = taken.run()
    assert taken.rows(
        "SELECT profile_id, mcp_server_id, tool_name, enabled, custom_name, custom_description"
        " FROM profile_mcp_server_tools ORDER BY tool_name"
    ) == [("p2", "s1", "add", 0, None, None), ("p2", "s1", "echo", 1, "say", "Says it.")]
    assert (
        "Notes",
        "the schema that was written for its tool echo has no place here",
    ) in done.notes


def test_every_secret_is_sealed_and_opens(taken: Taken) -> None:
    taken.run(logs=True)
    assert not any(secret in "\n".join(taken.new.iterdump()) for secret in SECRETS)
    ((access, refresh, expires),) = taken.rows(
        "SELECT sealed_access_token, sealed_refresh_token, expires_at FROM oauth_tokens"
    )
    assert opened("s3", "oauth_tokens", "access_token", access) == SECRETS[2]
    assert opened("s3", "oauth_tokens", "refresh_token", refresh) == SECRETS[3]
    assert expires == MS
    registered = taken.rows(
        "SELECT issuer, client_id, sealed_client_secret FROM oauth_client_registrations ORDER BY issuer"
    )
    assert [row[:2] for row in registered] == [
        ("https://by-hand.example", "by-hand"),
        ("https://login.example", "registered"),
    ]
    for issuer, _, secret in registered:
        name = f"{issuer} client_secret"
        assert opened("s3", "oauth_client_registrations", name, secret) == SECRETS[4]
    headers = json.loads(taken.rows("SELECT headers FROM mcp_servers WHERE id = 's2'")[0][0])
    assert opened("s2", "headers", "X-Key", headers["X-Key"].encode()) == SECRETS[0]


def test_a_registrations_own_token_is_told_to_be_left_out(taken: Taken) -> None:
    taken.old.execute("UPDATE oauth_client_registrations SET registration_access_token = 'its own'")
    notes = [note for _, note in taken.run().notes]
    assert (
        "the token that manages its registration at https://login.example has no place here"
        in notes
    )
    assert "its own" not in "".join(taken.new.iterdump())


def test_nothing_to_seal_asks_for_no_key(tmp_path: Path, new: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(make_original("A", tmp_path / "old.db"))) as old:
        old.execute("DELETE FROM mcp_servers WHERE id IN ('s1', 's2', 's3')")
        old.execute("DELETE FROM oauth_tokens")
        old.execute("DELETE FROM oauth_client_registrations")
        done = take_over(old, new, lambda: pytest.fail("nobody needs it"))
    assert [count.here for count in done.counts if count.what == "servers"] == [1]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1768901400", 1_768_901_400_000),
        ("1768901400123", MS),
        ("'2026-01-20 09:30:00'", 1_768_901_400_000),
        ("'2026-01-20T10:30:00.123+01:00'", MS),
        ("1e300", 1 << 53),
    ],
)
def test_a_time_is_read_by_what_it_is(taken: Taken, written: str, read: int) -> None:
    taken.run(f"UPDATE profiles SET created_at = {written} WHERE id = 'p1'")
    assert taken.rows("SELECT created_at FROM profiles WHERE id = 'p1'") == [(read,)]


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("external", "{}", "it has no command"),
        ("external", "[]", "its configuration is not a JSON object"),
        ("external", '{"command": "\\ud800"}', "its configuration is not a JSON object"),
        ("remote_http", "{}", "it has no URL"),
        ("remote_http", '{"url": "file:///etc"}', "'file:///etc' is not a web address"),
        ("builtin", '{"builtinId": "merk"}', "it is built into the original"),
        ("mystery", '{"command": "x"}', "its type 'mystery' is not known here"),
    ],
)  # fmt: skip
def test_a_server_without_a_place_is_named_with_its_reason(
    taken: Taken, kind: str, config: str, reason: str
) -> None:
    taken.old.execute("UPDATE mcp_servers SET type = ?, config = ? WHERE id = 's1'", (kind, config))
    assert ("server", "Notes", reason) in taken.run().left_out


def test_values_of_other_types_become_text_and_none_is_not_set(taken: Taken) -> None:
    config = {"command": "run", "args": [1, True, None, "${HOME}"], "env": {"A": 2, "B": None}}
    taken.old.execute("UPDATE mcp_servers SET config = ? WHERE id = 's1'", (json.dumps(config),))
    taken.run()
    ((args, env),) = taken.rows("SELECT args, env FROM mcp_servers WHERE id = 's1'")
    assert json.loads(args) == ["1", "true", "$${HOME}"]
    assert list(json.loads(env)) == ["A"]


@pytest.mark.parametrize(
    ("api_key", "note"),
    [
        ('{"apiKey": "k", "headerName": "Host"}', "the header 'Host' cannot be sent"),
        ('{"apiKey": "a\\nb"}', "the header 'Authorization' cannot be sent"),
        ('{"apiKey": "k", "headerValue": "Key {apiKey}"}', "the original sent it as `Bearer KEY`"),
        ('{"apiKey": "k"}', ""),
        ('"null"', ""),
        ("[", ""),
    ],
)
def test_an_api_key_is_one_header_or_is_told(taken: Taken, api_key: str, note: str) -> None:
    taken.old.execute("UPDATE mcp_servers SET api_key_config = ? WHERE id = 's2'", (api_key,))
    told = [text for server, text in taken.run().notes if server == "Notes-2"]
    assert [note in text for text in told] == ([True] if note else [])


def test_text_that_is_no_utf8_is_taken_as_far_as_it_can_be_read(taken: Taken) -> None:
    taken.run("UPDATE mcp_servers SET name = CAST(x'4ec3' AS TEXT) WHERE id = 's1'")
    assert taken.rows("SELECT name FROM mcp_servers WHERE id = 's1'") == [("N",)]


def test_the_default_profile_is_told_by_its_new_name(taken: Taken) -> None:
    assert taken.run().default_profile == "work-desk"


def test_a_row_that_is_neither_here_nor_left_out_stops_it(taken: Taken) -> None:
    taken.new.execute(
        "CREATE TRIGGER lose AFTER INSERT ON profiles WHEN new.id = 'p3'"
        " BEGIN DELETE FROM profiles WHERE id = 'p3'; END"
    )
    with pytest.raises(VerificationFailed, match="Of 3 profiles, 2 came over"):
        taken.run()
