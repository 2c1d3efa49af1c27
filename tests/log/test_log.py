"""The log as the program uses it: levels, several outputs, the table of events."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from local_mcp_gateway.log import configure, ignore, tee
from local_mcp_gateway.log.events import EVENTS, LEVELS

PACKAGE = Path(__file__).parents[2] / "daemon" / "local_mcp_gateway"


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    emit = configure("json", "warning", stream)
    emit("guard.ready")
    emit("upstream.lost", server="time")
    assert [line["event"] for line in lines_of(stream)] == ["upstream.lost"]


def test_tee_reports_to_every_target_in_order() -> None:
    seen: list[tuple[str, str]] = []
    both = tee(
        lambda event, **_: seen.append(("a", event)),
        ignore,
        lambda event, **_: seen.append(("b", event)),
    )
    both("guard.ready")
    assert seen == [("a", "guard.ready"), ("b", "guard.ready")]


def test_importing_the_log_loads_no_renderer_and_rendering_loads_no_rich() -> None:
    script = (
        "import sys; from local_mcp_gateway.log import configure; emit = configure('json', 'info');"
        "assert 'structlog' not in sys.modules; emit('guard.ready');"
        "assert 'structlog' in sys.modules and 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_table_holds_every_event_that_the_code_emits_and_no_other() -> None:
    emitted: dict[str, str] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for event in events_emitted_by(ast.parse(file.read_text(encoding="utf-8"))):
            emitted.setdefault(event, str(file.relative_to(PACKAGE)))
    assert {event: file for event, file in emitted.items() if event not in EVENTS} == {}
    assert EVENTS.keys() - emitted.keys() == set()


def events_emitted_by(module: ast.Module) -> Iterator[str]:
    """Yield every event that the module passes to an Emit, whatever the Emit is called there.

    A name holds an Emit if it is `emit` or `_emit`, or if such a name, or a `Log`, is assigned to it.
    A forwarder passes on the parameter `event`; any other event must be readable here.
    """
    emitters = {"emit", "_emit"} | {
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
