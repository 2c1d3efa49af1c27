"""The options that say what may be done, as a person writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_mcp_gateway.cli.policy import policy_of, policy_text, sandbox_of
from local_mcp_gateway.errors import UsageProblem
from local_mcp_gateway.gateway.upstreams import sandbox as kernel
from local_mcp_gateway.service.admin import servers

UNSAID: dict[str, Any] = {
    "allowed": (), "denied": (), "read_only": None, "calls_per_minute": None, "calls_at_once": None,
}  # fmt: skip
"""What click passes on for options that are not given."""


def test_options_that_are_not_given_change_nothing_of_a_policy() -> None:
    assert policy_of(UNSAID) == {}


def test_a_policy_is_emptied_by_the_signs_for_everything() -> None:
    all_of_it = {"allowed": ("*",), "denied": ("-",), "calls_per_minute": 0, "calls_at_once": 0}
    assert policy_of({**UNSAID, **all_of_it}) == {
        "allowed": [], "denied": [], "calls_per_minute": None, "calls_at_once": None,
    }  # fmt: skip


def test_a_policy_is_told_in_words() -> None:
    given = {
        **UNSAID,
        "allowed": ("git_*",),
        "denied": ("git_push", "git_reset"),
        "read_only": True,
    }
    policy = policy_of({**given, "calls_per_minute": 60, "calls_at_once": 1})
    said = "read-only; only git_*; not git_push, git_reset; 60 calls a minute; 1 call at once"
    assert policy_text(policy) == said


def sandbox(
    *folders: Path, wanted: bool | None = None, no_network: bool = False
) -> dict[str, Any] | bool | None:
    options = {"sandbox": wanted, "writable": folders, "no_network": no_network, "other": 1}
    found = sandbox_of(options)
    assert options == {"other": 1}, "what else is given goes on"
    return found


def test_a_sandbox_is_kept_made_or_taken_away() -> None:
    assert sandbox() is None
    assert sandbox(wanted=False) is False
    assert sandbox(Path("/a"), wanted=True) == {"write": ["/a"], "network": True}
    assert sandbox(wanted=True, no_network=True) == {"write": [], "network": False}


@pytest.mark.parametrize("wanted", [None, False])
def test_what_belongs_to_a_sandbox_is_refused_without_one(wanted: bool | None) -> None:
    with pytest.raises(UsageProblem, match="belong to a sandbox"):
        sandbox(Path("/a"), wanted=wanted)


def test_what_the_kernel_cannot_do_is_told_as_a_sandbox_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel, "version", lambda: 1)
    assert sandbox(wanted=True)
    said = capsys.readouterr().err
    assert "in the sandbox files that you may write can be emptied" in said
    assert "in the sandbox signals can be sent to your other programs" in said
    monkeypatch.setattr(kernel, "version", lambda: 0)
    with pytest.raises(
        UsageProblem, match=r"no sandbox on this machine: the kernel has no Landlock"
    ):
        servers._sandbox({"write": [], "network": True})
