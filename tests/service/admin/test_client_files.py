"""The configuration files of real clients, with what each spells in its own way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin.client_files import (
    Entry,
    files_of_clients,
    parse_client_file,
    read_entries,
)
from local_mcp_gateway.store.model import ServerDefinition, ServerKind, Share

TIME = {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "UTC"}}


def only(entry: object) -> Entry:
    (read,) = read_entries({"mcpServers": {"a": entry}})
    return read


def server(entry: object) -> ServerDefinition:
    found = only(entry)
    assert found.server is not None, found.reason
    return found.server


def test_a_command_and_a_url_become_servers() -> None:
    time = server(TIME)
    assert (time.kind, time.command, time.args) == (ServerKind.STDIO, "uvx", ("mcp-server-time",))
    assert time.env == {"TZ": "UTC"}
    notes = server({"url": "http://h/mcp", "headers": {"A": "b"}})
    assert (notes.kind, notes.url, notes.command) == (ServerKind.HTTP, "http://h/mcp", None)
    assert notes.headers == {"A": "b"}


@pytest.mark.parametrize(
    "document",
    [
        {"mcpServers": {"time": TIME}},
        {"servers": {"time": {**TIME, "type": "stdio"}}, "inputs": []},
        {"mcp": {"servers": {"time": TIME}}},
        {"theme": "dark", "context_servers": {"time": TIME}},
        {"mcp_servers": {"time": TIME}},
        {"mcp": {"time": {**TIME, "type": "local"}}},
        {"mcpServers": [{**TIME, "name": "time"}]},
        {"projects": {"/home/me/shop": {"mcpServers": {"time": TIME}}}},
        {"time": TIME},
    ],
)
def test_the_list_is_found_where_each_client_keeps_it(document: object) -> None:
    assert [entry.server and entry.server.name for entry in read_entries(document)] == ["time"]


@pytest.mark.parametrize("document", [[], {}, {"mcpServers": []}, {"mcpServers": {}}, "text", None])
def test_a_file_without_servers_is_refused(document: object) -> None:
    with pytest.raises(UsageProblem, match="no list of MCP servers"):
        read_entries(document)


@pytest.mark.parametrize(
    ("entry", "command", "args", "env"),
    [
        ({"type": "local", "command": ["npx", "-y", "x"], "environment": {"A": "1"}}, "npx", ("-y", "x"), {"A": "1"}),
        ({"source": "custom", "command": {"path": "npx", "args": ["x"], "env": {"A": "1"}}}, "npx", ("x",), {"A": "1"}),
        ({"cmd": "npx", "args": ["x"], "envs": {"A": "1"}}, "npx", ("x",), {"A": "1"}),
        ({"command": "npx", "args": ["x"], "env_vars": ["A"]}, "npx", ("x",), {"A": "${A}"}),
        ({"command": "npx", "args": [8, True, 1.5, None], "env": {"A": 1, "B": None}}, "npx", ("8", "true", "1.5"), {"A": "1"}),
    ],
)  # fmt: skip
def test_each_spelling_of_a_command_is_read(
    entry: object, command: str, args: tuple[str, ...], env: dict[str, str]
) -> None:
    found = server(entry)
    assert (found.command, found.args, found.env) == (command, args, env)


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"serverUrl": "https://h/mcp"}, ServerKind.HTTP),
        ({"httpUrl": "https://h/mcp"}, ServerKind.HTTP),
        ({"type": "streamableHttp", "url": "https://h/mcp"}, ServerKind.HTTP),
        ({"type": "streamable-http", "url": "https://h/mcp"}, ServerKind.HTTP),
        ({"type": "streamable_http", "uri": "https://h/mcp"}, ServerKind.HTTP),
        ({"type": "remote", "url": "https://h/mcp"}, ServerKind.HTTP),
        ({"transportType": "sse", "url": "https://h/mcp"}, ServerKind.SSE),
    ],
)
def test_each_spelling_of_a_url_is_read(entry: object, kind: ServerKind) -> None:
    assert (server(entry).kind, server(entry).url) == (kind, "https://h/mcp")


def test_headers_of_codex_are_references_to_variables() -> None:
    found = server(
        {
            "url": "https://h",
            "bearer_token_env_var": "TOKEN",
            "env_http_headers": {"X-Team": "TEAM"},
            "http_headers": {"X-Plain": "yes"},
        }
    )
    assert found.headers == {
        "Authorization": "Bearer ${TOKEN}",
        "X-Team": "${TEAM}",
        "X-Plain": "yes",
    }


@pytest.mark.parametrize("off", [{"disabled": True}, {"enabled": False}])
def test_a_server_that_is_switched_off_stays_off(off: dict[str, bool]) -> None:
    assert not server({**TIME, **off}).active
    assert "switched off" in str(only({**TIME, **off}).notes)


def test_a_name_that_cannot_be_one_here_is_made_fit_and_stays_unique() -> None:
    names = ["Sequential Thinking", "github.com/acme/servers", "Sequential-Thinking", "äöü", "-"]
    found = read_entries({"mcpServers": dict.fromkeys(names, TIME)})
    made = [entry.server.name for entry in found if entry.server]
    assert made == [
        "Sequential-Thinking",
        "github.com-acme-servers",
        "Sequential-Thinking-2",
        "server",
        "server-2",
    ]
    assert found[0].notes == ("it was called 'Sequential Thinking'",)


BAD: list[tuple[Any, str]] = [
    (1, "not an object"),
    ({"type": "carrier pigeon"}, "carrier pigeon"),
    ({"type": "ws", "url": "ws://x"}, "type 'ws'"),
    ({"command": 5}, "command that is not text"),
    ({"command": ""}, "no command"),
    ({"command": "x", "env": ["K=V"]}, "env that is not an object"),
    ({"command": "x", "env": {"A": {}}}, r"env\.A that is not text"),
    ({"command": "npx", "args": "-y thing"}, "args that are not a list"),
    ({"url": "unix:///x"}, "URL"),
    ({**TIME, "share": "sometimes"}, "share 'sometimes'"),
    ({**TIME, "max_clients": "4"}, "max_clients that is not a whole number"),
    ({**TIME, "idle_stop_s": True}, "idle_stop_s that is not a whole number"),
]


@pytest.mark.parametrize(("entry", "why"), BAD)
def test_a_bad_entry_is_left_out_with_its_reason_and_costs_no_other(
    entry: object, why: str
) -> None:
    fine, bad, too = read_entries({"mcpServers": {"fine": TIME, "bad": entry, "too": TIME}})
    assert fine.server
    assert too.server
    assert (bad.name, bad.server) == ("bad", None)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(bad.reason)


def test_what_has_no_place_here_is_named() -> None:
    found = only({**TIME, "headersHelper": "x", "sandbox": {}, "alwaysAllow": ["x"]})
    assert found.notes == ("not taken over: headersHelper, sandbox",)
    assert only({"command": "x", "args": ["${input:key}"], "env": {"A": "{env:B}"}}).notes == (
        "filled in when it starts: ${input:key}, ${B}",
    )


def test_an_imported_server_says_how_its_clients_share_it() -> None:
    time = server({**TIME, "share": "never", "max_clients": 4, "idle_stop_s": 60})
    assert (time.share, time.max_clients, time.idle_stop_s) == (Share.NEVER, 4, 60)


@pytest.mark.parametrize(
    "text",
    [
        '// mine\n{"a": "http://x//y", "b": [1, 2]}',
        '/* mine */ {"a": "http://x//y", "b": [1, 2,]}',
        '{"a": "http://x//y", // here\n "b": [1, 2 /* two */, /* end */ ], }',
        '\ufeff{"a": "http://x//y", "b": [1, 2]}',
    ],
)
def test_comments_trailing_commas_and_a_byte_order_mark_are_no_error(text: str) -> None:
    assert parse_client_file(text.encode()) == {"a": "http://x//y", "b": [1, 2]}


def test_commas_and_comment_signs_within_a_text_are_text() -> None:
    assert parse_client_file(b'{"a": "x, ] // \\" /* */", }') == {"a": 'x, ] // " /* */'}


def test_many_comments_in_a_damaged_file_are_read_in_one_pass() -> None:
    """Each could be ended in many places; trying them all would take years."""
    for comments in ("// " * 200, "/* */ " * 200, "/* * / " * 200):
        with pytest.raises(ValueError, match=r"line [12] "):
            parse_client_file(f'{{"a": 1, {comments}\n b'.encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
MEMBERS = (
    "command", "cmd", "args", "env", "environment", "env_vars", "url", "type", "transport", "cwd",
    "headers", "http_headers", "env_http_headers", "bearer_token_env_var", "disabled", "enabled",
    "share", "max_clients",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON | st.just("stdio")))
def test_an_entry_of_any_json_is_a_server_or_is_left_out_with_a_reason(entry: object) -> None:
    found = only(entry)
    assert (found.server is None) == (found.reason is not None)


@given(JSON, st.randoms())
def test_comments_and_trailing_commas_anywhere_change_nothing(value: object, random: Any) -> None:
    comments = ("", " ", "// x, ]\n", "/* } */", "/**/", "\n")
    pieces = re.split(r'("(?:[^"\\]|\\.)*")', json.dumps(value))
    for at, piece in enumerate(pieces):
        if not piece.startswith('"'):
            trailing = re.sub(r"(?<=[\w\]}])(?=[\]}])", ",", piece)
            pieces[at] = re.sub(r"[\[\]{},:]", lambda m: random.choice(comments) + m[0], trailing)
    assert parse_client_file("".join(pieces).encode()) == value


def test_an_error_names_its_place_in_the_file_with_comments() -> None:
    with pytest.raises(ValueError, match="line 3 column 5"):
        parse_client_file(b'// mine\n{"a": 1, /* two\n */ b: 2}')


def test_toml_of_codex_is_read() -> None:
    text = b'[mcp_servers.time]\ncommand = "uvx"\nargs = ["mcp-server-time"]\n'
    (time,) = read_entries(parse_client_file(text, "config.toml"))
    assert time.server
    assert time.server.command == "uvx"


GOOSE = b"""# goose
extensions:
  developer: {type: builtin, name: developer, enabled: true, bundled: true}
  time:
    type: stdio
    cmd: uvx
    args: [mcp-server-time, --zone, no]
    envs: {SINCE: 2026-11-29, ODD: 012, N: 8, NONE: }
    env_keys: [SECRET]
    enabled: false
  far: {type: streamable_http, uri: "https://h/mcp"}
"""
CONTINUE = b"""name: mine
mcpServers:
  - name: time
    command: uvx
    env: {KEY: "${{ secrets.KEY }}"}
  - name: far
    type: sse
    url: https://h/sse
    requestOptions: {headers: {Authorization: "Bearer ${{ inputs.TOKEN }}"}}
"""


def test_yaml_of_goose_and_continue_is_read_as_they_do() -> None:
    time, far = read_entries(parse_client_file(GOOSE, "config.yaml"))
    assert time.server
    assert (time.server.command, time.server.active) == ("uvx", False)
    assert time.server.args == ("mcp-server-time", "--zone", "no")
    assert time.server.env == {
        "SINCE": "2026-11-29",
        "ODD": "012",
        "N": "8",
        "SECRET": "${SECRET}",
    }
    assert "envs.NONE is null, so it is not set" in time.notes
    assert far.server
    assert (far.server.kind, far.server.url) == (ServerKind.HTTP, "https://h/mcp")
    time, far = read_entries(parse_client_file(CONTINUE, "config.yml"))
    assert time.server
    assert time.server.env == {"KEY": "${KEY}"}
    assert far.server
    assert (far.server.kind, far.server.headers) == (
        ServerKind.SSE,
        {"Authorization": "Bearer ${TOKEN}"},
    )


def test_a_key_of_yaml_is_the_text_that_is_written() -> None:
    text = (
        b"mcpServers:\n  012:\n    command: x\n    env: {1: a, ~: b, no: c}\n    2: y\n    odd: z\n"
    )
    (entry,) = read_entries(parse_client_file(text, "config.yaml"))
    assert (entry.name, entry.notes) == ("012", ("not taken over: 2, odd",))
    assert entry.server
    assert entry.server.env == {"1": "a", "~": "b", "no": "c"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a: [1\nb: 2", "in line 2"),
        (b"a: &x [1]\nb: *x", "aliases are not read"),
        (b"a: 1\n\tb: 2", "in line 2"),
        (b"!!python/object/apply:os.system [id]", "in line 1"),
        (b"a: 1\n---\nb: 2", "in line 2"),
        (b"a: \x01", "not allowed"),
        (b"? [a]\n: 1", "in line 1"),
        (b"a: !!timestamp soon", "in line 1"),
        (b"a: 1\nb: !!bool maybe", "'maybe' is not of the kind bool in line 2"),
        (b"a: !!int ''", "'' is not of the kind int in line 1"),
        (b"- " * 5000 + b"a", "recursion"),
    ],
)
def test_yaml_that_cannot_be_read_is_a_mistake_with_its_line(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_client_file(text, "config.yaml")


def test_variables_of_gemini_and_what_it_excludes_are_read() -> None:
    document = {
        "mcpServers": {
            "a": {"command": "x", "env": {"A": "$TOKEN", "B": "pa$$WORD", "C": "$5"}},
            "b": {"command": "y"},
        },
        "mcp": {"excluded": ["b"]},
    }
    a, b = read_entries(document)
    assert a.server
    assert a.server.env == {"A": "${TOKEN}", "B": "pa$$WORD", "C": "$5"}
    assert b.server
    assert (a.server.active, b.server.active) == (True, False)


def test_a_url_that_cannot_be_is_an_entry_as_any() -> None:
    assert only({"url": "http://[a/mcp"}).notes == ()


def test_secrets_in_plain_text_are_named() -> None:
    found = only({"url": "https://h/mcp", "headers": {"Authorization": "Bearer abc"}})
    assert found.notes == ("sealed here, but plain text in the file: headers.Authorization",)
    found = only({"command": "x", "args": ["--api-key", "abcdefgh"], "env": {"MY_TOKEN": "${T}"}})
    assert found.notes == (
        "filled in when it starts: ${T}",
        "what looks like a secret in its arguments is not sealed: write ${NAME} there",
    )


def test_the_files_of_clients_on_this_machine_are_found(tmp_path: Path) -> None:
    for file in (".cursor/mcp.json", ".codex/config.toml", ".continue/mcpServers/mine.yaml"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    found = [client for client, _ in files_of_clients(tmp_path)]
    assert found == ["Cursor", "Continue", "Codex"]
