"""One entry of a YAML file is set and removed; every other line stays as it is."""

from __future__ import annotations

import pytest

from local_mcp_gateway.service.admin.yaml_file import (
    parse_yaml,
    remove_from_yaml,
    set_in_yaml,
)
from local_mcp_gateway.text_edit import CannotEdit

PATH = ("extensions", "gw")
ENTRY = {"type": "streamable_http", "enabled": True, "args": ["a: b", "# no"], "envs": {}}
ADDED = '  gw:\n    type: "streamable_http"\n    enabled: true\n    args: ["a: b", "# no"]\n    envs: {}\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"extensions:\n{ADDED}"),
        ("# mine\n", f"# mine\nextensions:\n{ADDED}"),
        ("a: 1", f"a: 1\nextensions:\n{ADDED}"),
        ("---\na: |+\n  x\n\n", f"---\na: |+\n  x\n\nextensions:\n{ADDED}"),
        ("extensions:\nz: 1\n", f"extensions:\n{ADDED}z: 1\n"),
        ("extensions: {} # none\nz: 1\n", f"extensions: # none\n{ADDED}z: 1\n"),
        ("extensions: ~\n", f"extensions:\n{ADDED}"),
        ("extensions:\n  a:\n    x: 1 # one\n\n# end\nz: 1\n",
         f"extensions:\n  a:\n    x: 1 # one\n{ADDED}\n# end\nz: 1\n"),
        ("extensions:\n  a:\n    x: |\n      long\n      text\n\nz: 1\n",
         f"extensions:\n  a:\n    x: |\n      long\n      text\n{ADDED}\nz: 1\n"),
        ("extensions:\n  a: {x: [1, 2]}\n", f"extensions:\n  a: {{x: [1, 2]}}\n{ADDED}"),
        ("\ufeffextensions:\n  a:\n  - 1\n", f"\ufeffextensions:\n  a:\n  - 1\n{ADDED}"),
    ],
)  # fmt: skip
def test_an_entry_is_added_behind_the_others_and_taken_out_again(before: str, after: str) -> None:
    assert set_in_yaml(before, PATH, ENTRY) == after
    assert set_in_yaml(after, PATH, ENTRY) == after
    left, old = remove_from_yaml(after, PATH), parse_yaml(before) or {}
    assert isinstance(old, dict)
    assert left == before or parse_yaml(left) == {**old, "extensions": {}}


def test_an_entry_of_that_name_is_replaced_where_it_is() -> None:
    text = "extensions:\r\n    gw: # old\r\n        type: sse\r\n    z:\r\n        on: 1\r\n"
    edited = set_in_yaml(text, PATH, {"uri": "http://x"})
    assert edited == (
        'extensions:\r\n    gw:\r\n      uri: "http://x"\r\n    z:\r\n        on: 1\r\n'
    )
    assert remove_from_yaml(edited, PATH) == "extensions:\r\n    z:\r\n        on: 1\r\n"
    assert remove_from_yaml("a: 1\n", PATH) == "a: 1\n"


@pytest.mark.parametrize("name", ["no", "0x1f", "1.5", "a: b", "#", "null", "ä"])
def test_a_name_that_yaml_would_read_otherwise_is_quoted(name: str) -> None:
    edited = set_in_yaml("", ("extensions", name), {"x": 1})
    assert parse_yaml(edited) == {"extensions": {name: {"x": 1}}}
    assert f'  "{name}":' in edited or name == "ä"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("extensions: {a: {x: 1}}\n", "in a form that this program does not know"),
        ("{extensions: {}}\n", "in a form that this program does not know"),
        ("extensions: [1]\n", "its 'extensions' is not an object"),
        ("extensions:\n  a: &x {y: 1}\n  b: *x\n", "it is not valid YAML (aliases"),
        ("- 1\n", "it holds no mapping"),
        ("a: 1\n...\n", "in a form that this program does not know"),
        ("a: [\n", "it is not valid YAML"),
    ],
)
def test_what_cannot_be_edited_safely_is_told(text: str, why: str) -> None:
    with pytest.raises(CannotEdit) as refused:
        set_in_yaml(text, PATH, ENTRY)
    assert why in str(refused.value)
