"""An event as a line of JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.log.line import json_line
from local_mcp_gateway.log.redact import HIDDEN, redact

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=100)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


@given(st.dictionaries(st.text(max_size=12), values, max_size=6))
def test_a_line_is_ascii_without_breaks_and_says_what_the_redacted_fields_say(
    fields: dict[str, object],
) -> None:
    line = json_line(1_800_000_000.25, "info", "call.finished", fields)
    assert line.isascii()
    assert "\n" not in line
    first = {
        "timestamp": "2027-01-15T08:00:00.250000Z",
        "level": "info",
        "event": "call.finished",
    }
    expected = json.dumps({**redacted(fields), **first}, default=str, sort_keys=True)
    assert json.dumps(json.loads(line), sort_keys=True) == expected


def redacted(fields: dict[str, object]) -> dict[str, object]:
    shown = redact(fields)
    assert isinstance(shown, dict)
    return shown


def test_a_secret_is_hidden_by_its_key_and_by_its_look() -> None:
    line = json_line(0.0, "info", "x.happened", {"token": "abc", "text": "Bearer abcdefghij"})
    assert json.loads(line)["token"] == HIDDEN
    assert "abcdefghij" not in line
