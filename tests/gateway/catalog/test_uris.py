"""Resource templates, as a pure function."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.gateway.catalog.uris import Template, with_shown_uris

TEMPLATES = st.lists(st.sampled_from(["a", "b", "ab", "{x}", "{", "}"]), max_size=7).map("".join)


def reference(template: str, uri: str) -> bool:
    """Judge with a regular expression, which is slow where many expressions stand in a row."""
    parts = re.split(r"(\{[^}]*\})", template)
    pattern = "".join(
        ".*" if part[:1] == "{" and part[-1:] == "}" else re.escape(part) for part in parts
    )
    return re.fullmatch(pattern, uri, re.DOTALL) is not None


@given(TEMPLATES, st.text("ab{}x\n", max_size=9))
def test_a_template_matches_as_its_regular_expression_would(template: str, uri: str) -> None:
    assert Template.of(template).matches(uri) == reference(template, uri)


@given(TEMPLATES, st.data())
def test_a_template_matches_all_that_it_expands_to(template: str, data: st.DataObject) -> None:
    expanded = re.sub(r"\{[^}]*\}", lambda _: data.draw(st.text("ab", max_size=3)), template)
    assert Template.of(template).matches(expanded)


def test_templates_match_what_they_expand_to() -> None:
    assert Template.of("note://{id}/x").matches("note://a%20b/x")
    assert Template.of("file:///{+path}").matches("file:///a/b")
    assert not Template.of("note://{id}/x").matches("note://a/y")


def test_a_template_of_many_expressions_is_judged_at_once() -> None:
    assert not Template.of("a{x}" * 5_000 + "!").matches("a" * 100_000)
    assert Template.of("{" * 1_000_000).literals == ("{" * 1_000_000,)


@given(st.text('uri\\"/:n ', max_size=9), st.text('a\\"', max_size=4), st.booleans())
def test_an_address_is_replaced_however_its_member_is_written(
    before: str, after: str, indented: bool
) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in "resourceUri")
    raw = json.dumps(
        {before: [before, {after: before}], "x": {"uri": "a:1"}}, indent=indented or None
    )
    raw = raw[:-1].rstrip() + f',"{escaped}" : "a:1", "last": "a:1"}}'
    shown = json.loads(with_shown_uris(raw.encode(), {"a:1": "a:2"}))
    expected = json.loads(raw)
    expected["x"]["uri"] = expected["resourceUri"] = "a:2"
    assert shown == expected


def test_a_long_text_full_of_quotes_is_searched_once() -> None:
    raw = json.dumps({"text": '"uri": \\ ' * 100_000}).encode()
    assert with_shown_uris(raw, {"": "x"}) == raw
