"""What a client sets for one server: time-outs, tools that it does not show, a file of variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.service.admin.client_files import Entry, read_entries
from local_mcp_gateway.store.variables import expand_variables

TIME = {"command": "uvx", "args": ["mcp-server-time"]}


def only(entry: object) -> Entry:
    (read,) = read_entries({"mcpServers": {"a": entry}})
    assert read.server is not None, read.reason
    return read


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"timeout": 60}, 60),  # Cline, Roo Code, Zed, Goose
        ({"timeout": 600_000}, 600),  # Claude Code, Gemini CLI, Copilot CLI
        ({"timeout": 10_500}, 10),
        ({"tool_timeout_sec": 90}, 90),  # Codex
        ({"tool_timeout_sec": 0.5}, 1),
        ({"tool_timeout_sec": 3600}, 3600),
        ({"timeout_s": 7}, 7),
    ],
)
def test_a_time_out_is_taken_over_in_its_unit(given: dict[str, float], seconds: int) -> None:
    found = only({**TIME, **given})
    assert found.server is not None
    assert found.server.timeout_s == seconds
    assert "timeout_s" in given or found.notes == (f"a call may take {seconds} s, as in the file",)


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        ({**TIME, "timeout": 3000}, "its timeout 3000 may be seconds or milliseconds"),
        ({**TIME, "timeout": 0}, "its timeout 0 is not a time limit"),
        ({**TIME, "timeout": -5}, "its timeout -5 is not a time limit"),
        (
            {**TIME, "tool_timeout_sec": float("nan")},
            "its tool_timeout_sec nan is not a time limit",
        ),
        (
            {**TIME, "tool_timeout_sec": float("inf")},
            "its tool_timeout_sec inf is not a time limit",
        ),
        ({**TIME, "timeout": "60"}, "not taken over: timeout"),
        ({**TIME, "timeout": True}, "not taken over: timeout"),
        ({"type": "remote", "url": "http://h", "timeout": 5000}, "not taken over: timeout"),
        ({"type": "local", "command": ["x"], "timeout": 5000}, "not taken over: timeout"),
        ({**TIME, "startup_timeout_sec": 20}, "not taken over: startup_timeout_sec"),
    ],
)
def test_a_time_out_that_is_not_certain_is_named(entry: object, note: str) -> None:
    found = only(entry)
    assert found.server is not None
    assert found.server.timeout_s is None
    assert note in " ".join(found.notes)


@pytest.mark.parametrize("key", ["disabledTools", "disabled_tools", "excludeTools"])
def test_tools_that_a_client_does_not_show_are_hidden(key: str) -> None:
    found = only({**TIME, key: ["b", "a", "b"]})
    assert (found.hidden_tools, found.notes) == (("b", "a"), ("hidden, as in the file: b, a",))


@pytest.mark.parametrize("key", ["enabled_tools", "includeTools", "available_tools", "tools"])
def test_tools_that_a_client_shows_alone_are_named(key: str) -> None:
    (note,) = only({**TIME, key: ["a", "b"]}).notes
    assert note.startswith("its client shows only these tools: a, b;")
    assert only({**TIME, key: ["*"]}).notes == ()
    assert only({**TIME, "available_tools": []}).notes == ()


def test_an_env_file_is_read_when_the_server_starts_and_the_entry_wins(tmp_path: Path) -> None:
    file = tmp_path / "my.env"
    file.write_text(
        "# mine\nA=1\nexport B = 'two # 2' # end\nC=\"x\\ny\"\nD=\n\nnonsense\nE=plain text # end\nF=f\n"
    )
    found = only({**TIME, "envFile": str(file), "env": {"F": "own"}})
    assert found.server is not None
    assert found.server.env["A"] == f"${{envFile:{file}#A}}"
    file.write_text(file.read_text().replace("A=1", "A=new"))
    expanded, used = expand_variables(found.server, {})
    assert expanded.env == {
        "A": "new",
        "B": "two # 2",
        "C": "x\ny",
        "D": "",
        "E": "plain text",
        "F": "own",
    }
    assert "plain text" in used  # so the log hides it
    file.write_text("A=1\n")
    with pytest.raises(UsageProblem, match=r"#B\} of server 'a' is not set"):
        expand_variables(found.server, {})
    file.unlink()
    with pytest.raises(UsageProblem, match="cannot be read: No such file"):
        expand_variables(found.server, {})


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (".env", "is of the project that is open: it is not read"),
        ("${workspaceFolder}/.env", "is of the project that is open: it is not read"),
        ("/nowhere/.env", "cannot be read: No such file or directory"),
        ("/", "cannot be read"),
    ],
)
def test_an_env_file_that_cannot_be_read_is_named(path: str, why: str) -> None:
    found = only({**TIME, "envFile": path})
    assert found.notes[0].startswith(f"its envFile {path} {why}")
    assert found.server is not None
    assert found.server.env == {}
