"""The official Python SDK's own interaction tests, with a gateway between their client and their server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from tests.fetched import pip, source

RUNNER: Final = Path(__file__).with_name("interaction.py")
LIBRARY: Final = ("inline-snapshot==0.36.1",)
OTHERWISE: Final = {
    "the gateway fetches all pages of a list, and serves the list of all servers in one": (
        "test_next_cursor_round_trips_through_the_client",
        "test_paginating_until_next_cursor_is_absent_yields_every_page",
        "test_the_client_follows_opaque_cursors_through_pages_of_varying_sizes",
        "test_an_unrecognized_pagination_cursor_is_rejected_with_invalid_params",
        "test_resources_list_supports_cursor_pagination",
        "test_resource_templates_list_supports_cursor_pagination",
        "test_prompts_list_supports_cursor_pagination",
    ),
    "the gateway lists by itself, and answers from what it knows": (
        "test_call_tool_populates_the_output_schema_cache_via_an_implicit_tools_list[sse streamable-http-2025-11-25]",
        "test_every_request_on_a_modern_session_carries_the_three_key_meta_envelope",
        "test_adding_and_removing_tools_does_not_notify_connected_clients",
    ),
    "ids and progress tokens are unique for a connection, so that the server sees other ones": (
        (
            "test_progress_token_visible_to_handler"
            "[in-memory sse? streamable-http streamable-http-stateless]"
        ),
        "test_cancellation_stops_in_flight_handler[in-memory sse? streamable-http]",
        "test_session_serves_requests_after_cancellation[in-memory sse? streamable-http]",
    ),
    "an update goes to clients that subscribe to the resource": (
        "test_resource_updated_notification_reaches_client",
    ),
    "a change is announced once the new list is there, and this server fails to list": (
        "test_prompt_list_changed_notification",
    ),
    "progress is passed on for requests that run: the specification allows no other": (
        "test_client_progress_notification_reaches_server_handler",
        "test_progress_sent_after_the_response_is_not_delivered_to_the_callback",
    ),
    "the gateway refuses in place of a client that cannot, in its own words": (
        "test_elicit_form_without_callback_is_error",
        "test_create_message_without_callback_is_error",
        "test_list_roots_without_callback_is_error",
    ),
    "a server is told who the gateway is, and gets ids of its own": (
        "test_initialize_server_sees_client_info",
        "test_context_exposes_request_id_and_client_info_to_a_tool",
    ),
    "a connection of a client's own begins with its first call, with the roots of that moment": (
        "test_roots_list_changed_reaches_server_handler[sse streamable-http streamable-http-stateless]",
    ),
    "the gateway says who it is, and announces the lists of all servers": (
        "test_initialize_returns_server_info",
        "test_initialize_capabilities_reflect_registered_handlers",
    ),
    "a subscription is the gateway's own, for all servers, and outlives what one of them ends": (
        "test_a_graceful_server_close_ends_iteration_after_buffered_events",
        "test_a_stream_dropped_after_the_ack_raises_subscription_lost",
        "test_the_subscription_id_is_the_listen_request_id_the_server_saw",
        "test_concurrent_listen_streams_each_receive_their_own_ack",
        "test_listen_surfaces_the_ack_and_iterates_typed_events",
    ),
    "the gateway keeps to log levels for servers that do not": (
        "test_set_logging_level_is_rejected_and_messages_are_never_filtered",
    ),
    "names that model APIs refuse are made fit": (
        "test_registering_a_tool_with_a_spec_invalid_name_warns_but_does_not_reject",
    ),
}
"""Why something is otherwise through a gateway → the tests that find it so.

On each transport that a test has, or on those in brackets, some in one revision. With `?` only now and then: the gateway's id of
a request may happen to be the client's own.
"""


@pytest.mark.nightly
async def test_the_official_interaction_tests_pass_but_where_it_is_said_why(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    package = f"mcp=={version('mcp')}"
    sdk = await asyncio.to_thread(source, pytestconfig, "mcp-source", package)
    library = await asyncio.to_thread(pip, pytestconfig, "interaction", LIBRARY)
    report = tmp_path / "report.json"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(RUNNER), str(sdk), str(library), str(report), "-q",
        cwd=sdk, env={**os.environ, "PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert await child.wait() == 0
    outcomes: dict[str, str] = json.loads(report.read_text())
    found = {_cell(identity): outcome for identity, outcome in outcomes.items()}
    assert len(outcomes) > 600
    assert set(found.values()) <= {"passed", "failed"}
    failed = {cell for cell, outcome in found.items() if outcome == "failed"}
    told, now_and_then = _told(found)
    assert failed - now_and_then == told


def _cell(identity: str) -> tuple[str, str, str]:
    """Return the test, transport and revision of `FILE::TEST[asyncio-TRANSPORT-YYYY-MM-DD]`."""
    name, _, cell = identity.rpartition("::")[2].removesuffix("]").partition("[asyncio-")
    transport, *revision = cell.rsplit("-", 3)
    return name, transport, "-".join(revision)


def _told(cells: Collection[tuple[str, str, str]]) -> tuple[set[tuple[str, str, str]], ...]:
    """Return the cells in which a test fails by `OTHERWISE`, and those in which it may."""
    sure, now_and_then = set(), set()
    for entry in (entry for entries in OTHERWISE.values() for entry in entries):
        name, _, chosen = entry.removesuffix("]").partition("[")
        transports = chosen.split()
        for cell in cells:
            ways = {cell[1], f"{cell[1]}-{cell[2]}"}
            if cell[0] == name and (not transports or ways.intersection(transports)):
                sure.add(cell)
            elif cell[0] == name and f"{cell[1]}?" in transports:
                now_and_then.add(cell)
    return sure, now_and_then
