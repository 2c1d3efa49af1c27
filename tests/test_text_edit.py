"""An edit of somebody's file changes one entry and no other byte, whatever the file looks like."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.json_input import parse_jsonc
from local_mcp_gateway.text_edit import (
    CannotEdit,
    remove_from_json,
    remove_from_toml,
    set_in_json,
    set_in_toml,
)

ENTRY = {"type": "http", "url": "http://127.0.0.1:3001/mcp"}
PATH = ("mcpServers", "local-gateway")
COMMENTS = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
NAMES = st.sampled_from(["mcpServers", "servers", "a", "b", "local-gateway", "ü", 'q"q', "// no"])
GAPS = st.sampled_from(["", " ", "\n", "\n    ", "\r\n\t", " // c\n", "/* , } */", "\n  // {\n  "])
LEAVES = st.sampled_from(["1", "null", "true", '"x"', '"// }"', '"\\\\"', '"\\""', "-2.5e3", "[]"])


@st.composite
def objects(draw: st.DrawFn, depth: int = 2) -> str:
    """Text of an object with comments, trailing commas and any layout."""
    members = []
    for name in draw(st.lists(NAMES, unique=True, max_size=3)):
        deeper = bool(depth) and draw(st.integers(0, 1))
        value = draw(objects(depth - 1) if deeper else LEAVES)
        gaps = [draw(GAPS) for _ in range(4)]
        members.append(f"{gaps[0]}{json.dumps(name)}{gaps[1]}:{gaps[2]}{value}{gaps[3]}")
    comma = draw(st.sampled_from(["", ","])) if members else ""
    return "{" + ",".join(members) + comma + draw(GAPS) + "}"


def is_within(text: str, longer: str) -> bool:
    """Tell whether every character of a text is in another one, in its order."""
    rest = iter(longer)
    return all(character in rest for character in text)


def expected(document: dict[str, Any], value: object) -> dict[str, Any]:
    holder = document.get(PATH[0]) or {}
    return {**document, PATH[0]: {**holder, PATH[1]: value}}


@given(objects())
def test_an_entry_is_set_in_any_json_and_everything_else_stays(text: str) -> None:
    before = parse_jsonc(text)
    null = before.get(PATH[0], {}) is None
    holder = {} if null else before.get(PATH[0], {})
    if not isinstance(holder, dict):
        with pytest.raises(CannotEdit, match="an object belongs"):
            set_in_json(text, PATH, ENTRY)
        return
    edited = set_in_json(text, PATH, ENTRY)
    assert parse_jsonc(edited) == expected(before, ENTRY)
    assert list(parse_jsonc(edited))[: len(before)] == list(before)
    assert set_in_json(edited, PATH, ENTRY) == edited
    if PATH[1] not in holder:
        assert null or is_within(text, edited)
        removed = remove_from_json(edited, PATH)
        assert parse_jsonc(removed) == {**before, PATH[0]: holder}
        assert is_within("".join(COMMENTS.findall(text)), removed)


@given(objects())
def test_what_is_removed_from_json_is_gone_alone(text: str) -> None:
    before = parse_jsonc(text)
    edited = remove_from_json(text, PATH)
    if not isinstance(before.get(PATH[0]), dict) or PATH[1] not in before[PATH[0]]:
        assert edited == text
        return
    del before[PATH[0]][PATH[1]]
    assert parse_jsonc(edited) == before
    assert is_within(edited, text)


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("", '{\n  "s": {\n    "g": {\n      "u": 1\n    }\n  }\n}\n'),
        ("{}", '{\n  "s": {\n    "g": {\n      "u": 1\n    }\n  }\n}'),
        ('{\n  "s": null // none\n}', '{\n  "s": {"g": {"u": 1}} // none\n}'),
        ('{"a": 1}', '{"a": 1, "s": {"g": {"u": 1}}}'),
        (
            '{\n\t"s": {\n\t\t"a": {}, // mine\n\t\t// end\n\t}\n}\n',
            '{\n\t"s": {\n\t\t"a": {}, // mine\n\t\t"g": {\n\t\t\t"u": 1\n\t\t},\n\t\t// end\n\t}\n}\n',
        ),
        (
            '\ufeff{\r\n    "s": {\r\n        "a": 1 // last\r\n    }\r\n}',
            '\ufeff{\r\n    "s": {\r\n        "a": 1, // last\r\n        "g": {\r\n            "u": 1\r\n        }\r\n    }\r\n}',
        ),
        (
            '{\n  "s": {"g": [1, {"x": "}"}] /* old */}\n}',
            '{\n  "s": {"g": {"u": 1} /* old */}\n}',
        ),
    ],
)  # fmt: skip
def test_json_keeps_its_layout(text: str, edited: str) -> None:
    assert set_in_json(text, ("s", "g"), {"u": 1}) == edited


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds no object"),
        ('{"s": []}', "where an object belongs"),
        ('{"s": {}, "s": {}}', "is there twice"),
    ],
)
def test_json_that_cannot_be_edited_safely_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CannotEdit, match=reason):
        set_in_json(text, ("s", "g"), 1)


TABLES = st.sampled_from(
    ["mcp_servers.gw", "mcp_servers.other", "mcp_servers.gw.env", "a", '"x.y"']
)
TOML_KEYS = st.sampled_from(["url", "command", "b-c", '"q # q"'])
TOML_VALUES = st.sampled_from(
    ["1", '"a # b"', "'''\n[mcp_servers.gw]\n'''", "[\n  1, # one\n  2,\n]", "{ x = 1 }"]
)
TOML_GAPS = st.sampled_from(["", "\n", "# a comment\n", "  # [mcp_servers.gw]\n\n"])


@st.composite
def toml_texts(draw: st.DrawFn) -> str:
    parts = [draw(TOML_GAPS), draw(st.sampled_from(["", "model = 'x' # mine\n"]))]
    for table in draw(st.lists(TABLES, unique=True, max_size=4)):
        parts.append(f"[{table}]{draw(st.sampled_from(['', ' # its own']))}\n")
        parts += [
            f"{key} = {draw(TOML_VALUES)}\n{draw(TOML_GAPS)}"
            for key in draw(st.lists(TOML_KEYS, unique=True, max_size=2))
        ]
        parts.append(draw(TOML_GAPS))
    return "".join(parts)


def edits(value: object) -> Mapping[str, Any]:
    return {"mcp_servers": {"gw": value}}


@given(toml_texts())
def test_a_table_is_set_in_any_toml_or_it_is_refused_whole(text: str) -> None:
    before = tomllib.loads(text)
    try:
        edited = set_in_toml(text, ("mcp_servers", "gw"), {"url": "http://x"})
    except CannotEdit:
        assert "'''" in text  # a text that looks like a header
        return
    after = tomllib.loads(edited)
    assert after["mcp_servers"]["gw"] == {"url": "http://x"}
    before.setdefault("mcp_servers", {}).pop("gw", None)
    del after["mcp_servers"]["gw"]
    assert after == before
    assert set_in_toml(edited, ("mcp_servers", "gw"), {"url": "http://x"}) == edited
    if "[mcp_servers.gw]" not in text and "[mcp_servers.gw." not in text:
        assert edited.startswith(text)
        assert remove_from_toml(edited, ("mcp_servers", "gw")) == text


@given(toml_texts(), TABLES, st.sampled_from(["url", "port"]))
def test_a_key_is_set_in_any_toml_and_comments_stay(text: str, table: str, key: str) -> None:
    path = tuple(table.split(".")) if '"' not in table else ("x.y",)
    try:
        edited = set_in_toml(text, (*path, key), "new")
    except CannotEdit:
        assert "'''" in text
        return
    holder = tomllib.loads(edited)
    for name in path:
        holder = holder[name]
    assert holder[key] == "new"
    comments = [line for line in text.splitlines() if line.startswith(("#", "  #"))]
    assert is_within("\n".join(comments), edited)


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("", '[g]\nport = "n"\n'),
        ("# c\n[g]\n# port = 3001\n# host = 1", '# c\n[g]\n# port = 3001\nport = "n"\n# host = 1'),
        ("[g]\nport = 1 # mine\n[h]\n", '[g]\nport = "n" # mine\n[h]\n'),
        ("[g]\r\nport = [\r\n1,\r\n]\r\nb = 1\r\n", '[g]\r\nport = "n"\r\nb = 1\r\n'),
    ],
)
def test_toml_keeps_its_layout(text: str, edited: str) -> None:
    assert set_in_toml(text, ("g", "port"), "n") == edited


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = ", "not valid TOML"),
        ("mcp_servers = 1\n", "is not an object"),
        ("mcp_servers = { gw = {} }\n", "a form that this program does not know"),
        ("mcp_servers.gw.x = 1\n", "a form that this program does not know"),
    ],
)
def test_toml_that_cannot_be_edited_safely_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CannotEdit, match=reason):
        set_in_toml(text, ("mcp_servers", "gw"), {"url": "x"})
