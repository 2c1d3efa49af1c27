"""Which checks may end otherwise through the gateway, and for how long."""

from __future__ import annotations

from tests.conformance.sides import AT_FIRST, DIRECT, OVER_HTTP, OVER_STDIO, sentences
from tests.conformance.suite import Check

LOGGING, PING = "tools-call-with-logging", "ping"


def test_the_first_log_line_of_a_shared_child_is_known_over_stdio_and_only_when_it_first_runs() -> (
    None
):
    passed, failed = (
        {Check(name, name, 0): status for name in (LOGGING, PING)}
        for status in ("SUCCESS", "FAILURE")
    )
    found = {DIRECT: passed, OVER_HTTP: failed, OVER_STDIO: failed}
    differing = {
        (side, name): f"r {side}: {name}, {name}: SUCCESS directly, FAILURE there"
        for side in (OVER_HTTP, OVER_STDIO)
        for name in (LOGGING, PING)
    }
    assert set(sentences("r", found)) == set(differing.values())
    del differing[OVER_STDIO, LOGGING]
    assert set(sentences("r", found, AT_FIRST)) == set(differing.values())
