"""Settings as guard and gateway take them."""

from __future__ import annotations

from dataclasses import replace

from local_mcp_gateway.config import Settings
from local_mcp_gateway.config.settings import UpstreamSettings
from local_mcp_gateway.guard import GuardPolicy
from local_mcp_gateway.service.options import gateway_options, guard_policy


def test_the_guard_of_a_library_is_as_careful_as_the_default_settings() -> None:
    ours, theirs = guard_policy(Settings()), GuardPolicy()
    assert ours == replace(
        theirs, backup_folder=ours.backup_folder, program_version=ours.program_version
    )


def test_tools_are_held_only_where_the_settings_say_so() -> None:
    shown = gateway_options(Settings())
    assert not shown.hold_altered_tools
    assert not shown.hold_new_tools
    upstream = UpstreamSettings(altered_tools="hold", new_tools="hold")
    held = gateway_options(replace(Settings(), upstream=upstream))
    assert held.hold_altered_tools
    assert held.hold_new_tools
