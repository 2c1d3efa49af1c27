"""A client's own file gets this gateway's entry and keeps everything else; an undo takes it back."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin.client_files import (
    PLACES,
    files_of_clients,
    parse_client_file,
    read_entries,
)
from local_mcp_gateway.service.admin.connect import (
    CLIENTS,
    client_lines,
    connected,
    file_of,
    plan_connect,
    plan_undo,
)
from local_mcp_gateway.service.admin.own_address import OwnAddress

HERE = OwnAddress("0.0.0.0", 3001)
URL = f"{HERE.url}/mcp/work"
NAME = "local-gateway"
CURSOR = CLIENTS["cursor"]
TEXT = '{\r\n  // mine\r\n  "mcpServers": {"a": {"command": "x"}},\r\n}\r\n'


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_is_connected_found_and_as_it_was_after_an_undo(
    name: str, tmp_path: Path
) -> None:
    client = CLIENTS[name]
    file = file_of(client, tmp_path)
    plan_connect(client, file, NAME, URL).write()
    assert list(connected(tmp_path, HERE)) == [client.title]
    (entry,) = read_entries(parse_client_file(file.read_bytes(), file.name))
    assert entry.server is not None
    assert HERE.is_behind(entry.server)
    assert file.stat().st_mode & 0o777 == 0o600
    plan_undo(client, file, NAME).write()
    assert list(files_of_clients(tmp_path)) == []


def test_each_client_of_the_table_has_a_place() -> None:
    assert {client.title for client in CLIENTS.values()} <= PLACES.keys()


def test_the_file_that_a_client_has_is_the_one_that_is_edited(tmp_path: Path) -> None:
    windsurf = CLIENTS["windsurf"]
    other = tmp_path / PLACES["Windsurf"][1]
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    assert file_of(windsurf, tmp_path) == other
    assert file_of(CLIENTS["vscode"], tmp_path).name == "mcp.json"


def test_a_second_time_changes_nothing_and_another_address_replaces_the_first(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mcp.json"
    file.write_bytes(TEXT.encode())
    plan_connect(CURSOR, file, NAME, "http://127.0.0.1:4001/mcp").write()
    plan_connect(CURSOR, file, NAME, URL).write()
    again = plan_connect(CURSOR, file, NAME, URL)
    assert again.before == again.after
    assert (file.read_text().count("local-gateway"), "4001" in file.read_text()) == (1, False)
    plan_undo(CURSOR, file, NAME).write()
    assert file.read_bytes() == TEXT.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["mcp.json"]


def test_an_undo_after_other_changes_takes_out_the_entry_alone(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    text = TEXT.replace("\r", "")
    file.write_text(text)
    plan_connect(CURSOR, file, NAME, URL).write()
    file.write_text(file.read_text().replace('"a"', '"b"'))
    plan_undo(CURSOR, file, NAME).write()
    assert file.read_text() == text.replace('"a"', '"b"')
    nothing = plan_undo(CURSOR, file, NAME)
    assert nothing.before == nothing.after


def test_an_entry_of_that_name_that_was_there_before_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    text = f'[mcp_servers.{NAME}]\ncommand = "theirs" # mine\n\n[other]\nx = 1\n'
    file.write_text(text)
    codex = CLIENTS["codex"]
    plan_connect(codex, file, NAME, URL).write()
    assert tomllib.loads(file.read_text())["mcp_servers"][NAME] == {"url": URL}
    with file.open("a") as end:
        end.write("y = 2\n")
    plan_undo(codex, file, NAME).write()
    found = tomllib.loads(file.read_text())
    assert found == {"mcp_servers": {NAME: {"command": "theirs"}}, "other": {"x": 1, "y": 2}}


def test_a_link_stays_a_link_and_the_permissions_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    real.chmod(0o640)
    link = tmp_path / "mcp.json"
    link.symlink_to(real)
    plan_connect(CURSOR, link, NAME, URL).write()
    assert link.is_symlink()
    assert NAME in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_file_that_changes_under_the_preview_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text("{}")
    change = plan_connect(CURSOR, file, NAME, URL)
    file.write_text('{"new": 1}')
    with pytest.raises(UsageProblem, match="has changed in the meantime"):
        change.write()
    assert [path.name for path in tmp_path.iterdir()] == ["mcp.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "cannot be edited safely: it is not valid JSON"),
        (b"[]", "cannot be edited safely: it holds no object"),
        (b'{"mcpServers": 1}', "where an object belongs"),
        (b'{"mcpServers": {"a": 1, "a": 2}}', "the key 'a' is there twice"),
        (b"\xff{}", "it is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_edited_safely_is_refused_in_one_sentence(
    content: bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mcp.json"
    file.write_bytes(content)
    with pytest.raises(UsageProblem) as refused:
        plan_connect(CURSOR, file, NAME, URL)
    assert said in refused.value.message
    assert file.read_bytes() == content


@pytest.mark.parametrize("name", CLIENTS)
def test_with_a_token_each_client_starts_the_bridge_which_reads_it(
    name: str, tmp_path: Path
) -> None:
    client = CLIENTS[name]
    file = file_of(client, tmp_path)
    plan_connect(client, file, "other", URL, tmp_path / "token").write()
    (entry,) = read_entries(parse_client_file(file.read_bytes(), file.name))
    assert entry.server is not None
    assert (entry.name, entry.server.kind) == ("other", "stdio")
    assert entry.server.args[-2:] == ("--token-file", str(tmp_path / "token"))
    assert list(connected(tmp_path, HERE)) == [client.title]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ("mcp", "servers")),
        ('{"mcp": {}}', ("mcp", "servers")),
        ('{"mcp": {"servers": {"a": {"type": "local", "command": ["x"]}}}}', ("mcp", "servers")),
        ('{"mcp": {"a": {"type": "local", "command": ["x"]}}}', ("mcp",)),
    ],
)
def test_opencode_gets_the_form_that_its_file_has(
    text: str, where: tuple[str, ...], tmp_path: Path
) -> None:
    file, client = tmp_path / "opencode.jsonc", CLIENTS["opencode"]
    file.write_text(text)
    plan_connect(client, file, NAME, URL).write()
    found = json.loads(file.read_text())
    for key in (*where, NAME):
        found = found[key]
    assert found == {"type": "remote", "url": URL}
    plan_undo(client, file, NAME).write()
    assert file.read_text() == text


def test_goose_gets_an_extension_that_knows_its_name(tmp_path: Path) -> None:
    file, client = tmp_path / "config.yaml", CLIENTS["goose"]
    text = (
        "GOOSE_MODEL: x # mine\nextensions:\n  developer:\n    enabled: true\n    type: builtin\n"
    )
    file.write_text(text)
    plan_connect(client, file, "work", URL).write()
    found = parse_client_file(file.read_bytes(), file.name)
    assert isinstance(found, dict)
    assert found["extensions"]["work"] == {
        "name": "work",
        "type": "streamable_http",
        "uri": URL,
        "enabled": True,
        "description": "The servers behind Local MCP Gateway",
    }
    assert file.read_text().startswith(text)
    plan_undo(client, file, "work").write()
    assert file.read_text() == text


def test_the_lines_to_paste_are_what_the_files_get() -> None:
    lines = [line.strip() for line in client_lines(URL)]
    pasted = {
        line.removesuffix(":"): lines[i + 1] for i, line in enumerate(lines) if line.endswith(":")
    }
    assert json.loads(f"{{{pasted['Cursor, Zed']}}}") == {NAME: CURSOR.entry(URL)}
    bridge = json.loads(f"{{{pasted['Claude Desktop']}}}")[NAME]
    assert bridge["args"][-4:] == ["--url", HERE.url, "--profile", "work"]
