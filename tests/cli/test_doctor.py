"""`completion`, as a shell runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Place


def test_a_shell_is_taught_the_commands(place: Place) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_LOCAL_MCP_GATEWAY_COMPLETE" in place.run("completion", shell).stdout
    asked = {
        "_LOCAL_MCP_GATEWAY_COMPLETE": "bash_complete",
        "COMP_WORDS": "x ser",
        "COMP_CWORD": "1",
    }
    command = str(Path(sys.executable).with_name("local-mcp-gateway"))
    done = subprocess.run([command], env=asked, capture_output=True, text=True, check=False)
    assert {"plain,serve", "plain,server", "plain,service"} <= set(done.stdout.split())


LOADED = {
    "bash": """
        eval "$(local-mcp-gateway completion bash)"
        COMP_WORDS=(local-mcp-gateway db migr) COMP_CWORD=2
        _local_mcp_gateway_completion local-mcp-gateway
        echo "${COMPREPLY[@]}"
    """,
    "fish": """
        local-mcp-gateway completion fish | source
        complete -C 'local-mcp-gateway db migr'
    """,
    "zsh": """
        compdef() { registered="$*" }
        eval "$(local-mcp-gateway completion zsh)"
        compadd() { print -r -- "$@" }
        _describe() { print -r -- ${(P)3} }
        words=(local-mcp-gateway db migr) CURRENT=3
        [[ $registered == *local-mcp-gateway ]] && _local_mcp_gateway_completion
    """,
}


@pytest.mark.parametrize("shell", [shell for shell in LOADED if shutil.which(shell)])
def test_a_shell_that_has_loaded_the_completion_completes(place: Place, shell: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    home = {"HOME": str(place.home), "PATH": path}
    done = subprocess.run(
        [shell, "-c", LOADED[shell]], env=home, capture_output=True, text=True, check=True
    )
    assert "migrate" in done.stdout.split()[0]
