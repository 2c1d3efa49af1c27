"""The ten commonest failures of OAuth clients, and odd input: each has a test by name, and it is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
TOKENS, LOGIN, WEB = (f"gateway/oauth/test_{part}.py" for part in ("tokens", "login", "web"))
COMMAND, PROCESSES = "cli/test_login.py", "e2e/test_sign_in.py"
ODD = (LOGIN, "test_what_is_wrong_ends_the_login_with_one_sentence")

COMMONEST = {
    "a refresh token is kept and not used": [
        (TOKENS, "test_callers_at_the_end_of_a_token_wait_for_one_refresh"),
        (TOKENS, "test_a_token_that_is_revoked_is_replaced_and_the_call_repeated"),
    ],
    "several refresh at once": [
        (PROCESSES, "test_processes_that_use_an_expired_token_at_once_make_one_refresh"),
        (PROCESSES, "test_a_restart_during_a_refresh_takes_over_its_tokens"),
    ],
    "a restart loses expiry, endpoint or client": [
        (COMMAND, "test_a_login_outlives_a_killed_gateway_and_no_secret_is_in_its_file"),
    ],
    "a rotated token is not stored": [
        (PROCESSES, "test_killed_before_and_after_the_write_of_a_token_what_is_stored_decides"),
        (PROCESSES, "test_killed_at_any_step_of_a_refresh_what_is_stored_decides"),
    ],
    "an issuer that is down is taken for a sign-out": [
        (TOKENS, "test_an_issuer_that_is_down_is_not_taken_for_a_refusal"),
    ],
    "a client registers although an id is set": [
        (LOGIN, "test_a_document_comes_before_a_registration_and_an_own_client_before_both"),
    ],
    "a registration that is gone is used again": [
        (LOGIN, "test_a_registration_that_the_issuer_has_forgotten_is_made_again"),
        (
            TOKENS,
            "test_a_registration_that_a_refresh_finds_forgotten_is_made_again_at_the_next_login",
        ),
    ],
    "the redirect has another host or port": [
        (LOGIN, "test_a_client_is_used_again_as_long_as_its_redirect_fits"),
        (COMMAND, "test_a_client_that_a_person_has_registered_keeps_its_port"),
    ],
    "a refresh has another resource or scope": [
        (TOKENS, "test_callers_at_the_end_of_a_token_wait_for_one_refresh"),
        (LOGIN, "test_an_issuer_that_takes_no_resource_is_told_none_from_the_login_on"),
    ],
    "a running process misses a login": [
        (TOKENS, "test_a_login_during_a_refresh_wins"),
        (
            TOKENS,
            "test_a_server_that_wants_a_token_only_after_its_handshake_needs_a_sign_in",
        ),
    ],
}
INPUT = {
    "a redirect to another port or state": [
        (COMMAND, "test_only_the_redirect_of_this_login_ends_the_waiting"),
    ],
    "a state that is replayed": [
        (LOGIN, "test_an_answer_belongs_to_one_login_and_is_taken_once"),
    ],
    "metadata that points to files, loopback or private addresses": [
        ODD,
        (WEB, "test_an_address_that_a_public_server_cannot_mean_is_refused"),
        (WEB, "test_a_name_is_looked_at_as_it_resolves"),
    ],
    "a registration that answers 500 or a web page": [ODD],
    "tokens of 64 KiB": [
        ODD,
        ("gateway/clients/test_admission.py", "test_without_a_right_token_a_client_is_told_what_to_do"),
    ],
    "a clock that is wrong by a day": [
        (TOKENS, "test_a_clock_that_was_a_day_wrong_costs_one_refresh"),
        (TOKENS, "test_a_clock_that_is_set_back_does_not_prolong_a_pause"),
    ],
    "a browser that never comes back": [
        (COMMAND, "test_a_browser_that_never_comes_back_is_told_and_leaves_nothing"),
    ],
    "two logins at once": [(LOGIN, "test_an_answer_belongs_to_one_login_and_is_taken_once")],
}  # fmt: skip


@pytest.mark.parametrize("what", [*COMMONEST, *INPUT])
def test_each_has_a_test(what: str) -> None:
    assert len(COMMONEST) == 10
    for file, name in (COMMONEST | INPUT)[what]:
        tree = ast.parse((TESTS / file).read_text())
        assert name in {each.name for each in ast.walk(tree) if hasattr(each, "name")}, file
