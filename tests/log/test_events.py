"""The table of events and the code hold the same events."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from local_mcp_gateway.log import EVENTS, LEVELS

PACKAGE = Path(__file__).parents[2] / "daemon" / "local_mcp_gateway"


def test_the_table_holds_every_event_that_the_code_emits_and_no_other() -> None:
    emitted: dict[str, str] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for event in events_emitted_by(ast.parse(file.read_text(encoding="utf-8"))):
            emitted.setdefault(event, str(file.relative_to(PACKAGE)))
    assert {event: file for event, file in emitted.items() if event not in EVENTS} == {}
    assert EVENTS.keys() - emitted.keys() == set()


def events_emitted_by(module: ast.Module) -> Iterator[str]:
    """Yield every event that the module passes to an Emit, whatever the Emit is called there.

    A name holds an Emit if it is `emit` or `_emit`, or if such a name, or a `Log`, is assigned to it;
    `tee(…)` returns one.
    A forwarder passes on the parameter `event`; any other event must be readable here.
    """
    emitters = {"emit", "_emit", "tee(…)"} | {
        target.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"emit", "log"}
        for target in node.targets
        if isinstance(target, ast.Attribute)
    }
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Call):
            name = f"{getattr(called.func, 'id', '')}(…)"
        else:
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name not in emitters:
            continue
        event = node.args[0]
        if isinstance(event, ast.Name) and event.id == "event":
            continue
        for choice in (event.body, event.orelse) if isinstance(event, ast.IfExp) else (event,):
            assert isinstance(choice, ast.Constant), ast.unparse(node)
            yield str(choice.value)


def test_an_event_is_named_noun_past_verb_and_has_a_level_and_a_sentence() -> None:
    for name, event in EVENTS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
        assert event.level in LEVELS
        assert event.sentence.endswith(".")
