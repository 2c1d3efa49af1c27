"""Every situation that a person can act on has a code, an exit code and a hint of its own."""

from __future__ import annotations

import pytest

from local_mcp_gateway import errors
from local_mcp_gateway.errors import Exit, GatewayError

KINDS = sorted(
    (
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, GatewayError) and kind is not GatewayError
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_an_exit_code_and_a_hint_that_is_a_sentence(kind: type[GatewayError]) -> None:
    assert kind.code
    assert isinstance(kind.exit_code, Exit)
    hint = kind.default_hint
    assert not hint or hint.endswith(".")


def test_a_hint_that_is_given_replaces_that_of_the_kind() -> None:
    error = errors.UsageProblem("It failed.", hint="Do this.")
    assert (error.message, error.hint, str(error)) == ("It failed.", "Do this.", "It failed.")


def test_codes_are_constant_words() -> None:
    assert all(kind.code.replace("_", "").isalpha() for kind in KINDS)
    assert all(kind.code == kind.code.lower() for kind in KINDS)
