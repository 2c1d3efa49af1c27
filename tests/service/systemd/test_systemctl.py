"""What systemctl answers becomes facts, or one sentence with systemd's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_mcp_gateway.errors import NoServiceManager
from local_mcp_gateway.service.systemd import systemctl


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only program on the PATH, not yet written."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "systemctl"


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_properties_are_read_line_by_line(program: Path) -> None:
    write(program, 'echo ActiveState=active; echo "StatusText=serving a=b"; echo; echo Result=')
    found = systemctl.properties("x.service")
    assert found == {"ActiveState": "active", "StatusText": "serving a=b", "Result": ""}
    assert systemctl.is_active("x.service")


def test_a_failure_is_told_while_systemd_tries_again_too(program: Path) -> None:
    """It forgets the exit status as it begins the next attempt."""
    asked = program.with_name("asked")
    write(
        program,
        f'echo ActiveState=activating; echo NRestarts=7; read -r n <{asked}; echo "$((n + 1))" >{asked}\n'
        "if [ $n -lt 3 ]; then echo ExecMainStatus=0; else echo ExecMainStatus=226; fi",
    )
    asked.write_text("0\n")
    failed = systemctl.set_up_failed(systemctl.properties("x.service"))
    assert failed is not None
    assert "its namespaces (status 226)" in failed.message


def test_a_start_that_reports_what_it_does_is_not_waited_for(program: Path) -> None:
    write(
        program,
        'echo ActiveState=activating; echo NRestarts=1; echo ExecMainStatus=0; echo "StatusText=backup"',
    )
    assert systemctl.properties("x.service")["StatusText"] == "backup"


def test_a_command_that_fails_is_told_in_systemds_words(program: Path) -> None:
    write(program, 'echo "Unit x.service  not found." >&2; exit 5')
    with pytest.raises(NoServiceManager) as refused:
        systemctl.systemctl("start", "x.service")
    message = "`systemctl --user start x.service` failed: Unit x.service not found."
    assert refused.value.message == message


def test_without_a_user_manager_no_unit_is_active(program: Path) -> None:
    write(program, 'echo "Failed to connect to bus" >&2; exit 1')
    with pytest.raises(NoServiceManager, match="does not answer: Failed to connect to bus"):
        systemctl.properties("x.service")
    assert not systemctl.is_active("x.service")


def test_where_there_is_no_systemd_it_is_said(program: Path) -> None:
    with pytest.raises(NoServiceManager, match="`systemctl` is not installed here"):
        systemctl.version()
    assert systemctl.lingers() is None


@pytest.mark.parametrize(("text", "version"), [("systemd 252 (252.22-1)", 252), ("odd", 0)])
def test_the_version_is_the_number_in_its_first_line(
    program: Path, text: str, version: int
) -> None:
    write(program, f"echo '{text}'")
    assert systemctl.version() == version


@pytest.mark.parametrize(
    ("status", "what", "hint"),
    [("226", "its namespaces", "PrivateUsers=no"), ("203", "no longer exists", "systemctl --user")],
)
def test_what_systemd_could_not_set_up_has_a_name(status: str, what: str, hint: str) -> None:
    failed = systemctl.set_up_failed({"ExecMainStatus": status})
    assert failed is not None
    assert what in failed.message
    assert hint in failed.hint


def test_a_program_that_failed_by_itself_was_set_up() -> None:
    assert systemctl.set_up_failed({"ExecMainStatus": "1"}) is None
    assert systemctl.set_up_failed({}) is None
