"""What the process knows to be secret is in nothing that it tells."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.log import configure
from local_mcp_gateway.log.known_secrets import HIDDEN, learn
from local_mcp_gateway.log.redact import beginning


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_value_that_is_known_is_hidden_in_every_form_and_the_gateways_names_stay(
    format: str,
) -> None:
    stream = io.StringIO()
    log = configure(format, "debug", stream)
    short = f"p-{format[0]}-7"
    log("upstream.lost", server=short, reason=f"It is {short}")
    blue, fish, first = f"blue42{format}", f'say "swordfish{format}!"\n', f"first-{format}/of+it"
    learn([fish, f"Bearer {blue}", f"---A\n{first}\n", short, "no", "w1n"])
    for text in (
        json.dumps({"a": fish}),
        f"it is {blue}",
        f"GET /?x={first.replace('/', '%2F').replace('+', '%2B')}",
        f"{short} is not {short}7",
        "no w1ndow",
    ):
        log("upstream.lost", server=short, reason=text)
    before, *after = stream.getvalue().rstrip("\n").split("\n")
    assert before.count(short) == 2
    written = "\n".join(after)
    for part in ("swordfish", blue, f"first-{format}"):
        assert part not in written
    assert written.count(short) == 6  # five servers, and the beginning of another word
    assert f"is not {short}7" in written
    assert "no w1ndow" in written


@given(st.integers(0, 90), st.integers(1, 80))
def test_of_a_known_value_across_the_end_no_part_is_left(before: int, most: int) -> None:
    value = "0123456789qwertzuiopasdfghjklyxcvbnm"
    learn([value])
    text = "." * before + value + "." * 500
    shown = beginning(text, most)
    assert len(shown) <= most
    assert shown == ("." * before + HIDDEN + "." * 500)[:most]
