"""What an event looks like: as a JSON line, on a console and in the journal."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.log import AT, LEVEL, configure
from local_mcp_gateway.log.formatters import as_word, formatter
from local_mcp_gateway.log.redact import HIDDEN, redact_fields


def lines_of(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_time_level_and_name_first() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)("guard.ready", state="current", durations_ms={"probe": 1.25})
    (line,) = lines_of(stream)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(line["timestamp"]))
    assert line["event"] == "guard.ready"
    assert line["level"] == "info"
    assert line["durations_ms"] == {"probe": 1.25}


def test_text_with_line_breaks_and_odd_values_stays_one_valid_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)(
        "guard.refused", message="a\nb \u2028 é", path=Path("/x"), odd=object()
    )
    (line,) = lines_of(stream)
    assert line["message"] == "a\nb \u2028 é"
    assert line["path"] == "/x"


def test_an_event_that_the_table_lacks_is_shown_all_the_same() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)("something.unforeseen")
    assert lines_of(stream)[0]["level"] == "info"


def test_a_stream_that_is_no_terminal_gets_json_when_the_format_is_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = io.StringIO()
    configure("auto", "info", stream)("guard.ready")
    assert lines_of(stream)


def test_the_console_shows_a_line_that_a_person_can_read() -> None:
    stream = io.StringIO()
    configure("console", "info", stream)("backup.created", path="/a b.db", bytes=12)
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3}   backup\.created +path="/a b\.db" bytes=12\n', stream.getvalue()
    )


def test_a_console_line_fits_a_hundred_columns_and_loses_nothing() -> None:
    stream = io.StringIO()
    fields = {f"phase_{number}_ms": number * 1.5 for number in range(20)}
    configure("console", "info", stream)("guard.ready", hash="ab" * 32, gone=None, **fields)
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])
    text = stream.getvalue()
    assert all(f"{key[:-3]}={value:g}ms" in text for key, value in fields.items())
    assert "hash=abababababab…" in text
    assert "gone" not in text


def test_one_use_of_an_event_may_be_quieter_than_the_table_says() -> None:
    stream = io.StringIO()
    emit = configure("json", "info", stream)
    emit("guard.ready", _level="debug")
    emit("guard.ready", _level="warning")
    assert [line["level"] for line in lines_of(stream)] == ["warning"]
    assert "_level" not in lines_of(stream)[0]


def test_secrets_never_reach_the_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)(
        "upstream.lost",
        headers={"Authorization": "Bearer abcdef", "X-Trace": "1"},
        reason="GET http://me:pw@host/?api_key=k1&x=1 failed: Bearer abcdefgh; TOKEN=abc",
        command=["npx", "--api-key", "--github-token=ghx"],
    )
    (line,) = lines_of(stream)
    assert line["headers"] == {"Authorization": HIDDEN, "X-Trace": "1"}
    text = stream.getvalue()
    for secret in ("abcdef", "me:pw", "k1", "abc", "ghx"):
        assert secret not in text
    assert "x=1" in text


def test_an_event_that_waited_is_shown_with_the_time_when_it_happened() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)("guard.ready", _at=1_800_000_000.25)
    assert lines_of(stream)[0]["timestamp"] == "2027-01-15T08:00:00.250000Z"
    assert "_at" not in lines_of(stream)[0]


def test_a_list_that_is_longer_than_a_line_shows_its_ends() -> None:
    tags = [f"{number:04d}_a_migration" for number in range(30)]
    assert as_word(tags, "/home/a") == "0000_a_migration,…(+28),0029_a_migration"
    assert as_word(tags[:3], "/home/a") == ",".join(tags[:3])


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=5,
)


names = st.text(max_size=12).filter(lambda name: name not in {AT, LEVEL, "event", "timestamp"})


@given(st.dictionaries(names, values, max_size=4))
def test_a_line_is_ascii_without_breaks_and_says_what_the_redacted_fields_say(
    fields: dict[str, object],
) -> None:
    (line,) = formatter("json")([("call.finished", {**fields, AT: 1_800_000_000.25})])
    assert line.isascii()
    assert "\n" not in line
    first = {
        "timestamp": "2027-01-15T08:00:00.250000Z",
        "level": "info",
        "event": "call.finished",
    }
    expected = json.dumps({**first, **redact_fields(fields)}, default=str)
    assert json.dumps(json.loads(line)) == expected


def test_a_secret_is_hidden_by_its_key_and_by_its_look() -> None:
    (line,) = formatter("json")([("x.happened", {"token": "abc", "text": "Bearer abcdefghij"})])
    assert json.loads(line)["token"] == HIDDEN
    assert "abcdefghij" not in line


def test_a_value_is_never_broken_over_lines_and_none_can_steer_the_terminal() -> None:
    stream = io.StringIO()
    text = "two words " * 7
    configure("console", "debug", stream)(
        "upstream.logged", server="a" * 40, text=text, odd="\x1b[2J"
    )
    first, second = stream.getvalue().splitlines()
    assert first.endswith(f"server={'a' * 40}")
    assert second == f'    text="{text}" odd="\\u001b[2J"'


def test_sentences_stand_below_the_line_folded_at_blanks() -> None:
    stream = io.StringIO()
    configure("console", "info", stream)(
        "guard.refused", message="word " * 30, hint="hint " * 30, traceback="Traceback:\n  File"
    )
    _, *below = stream.getvalue().splitlines()
    assert all(len(line) <= 100 for line in below)
    assert [line[:10] for line in below] == [
        "    word w",
        "    word w",
        "    → hint",
        "      hint",
        "    Traceb",
        "      File",
    ]


def test_colours_are_for_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown(stream: io.StringIO) -> str:
        configure("console", "info", stream)("guard.ready", state="current")
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = shown(Terminal())
    assert "\x1b[36mstate\x1b[0m=current" in coloured
    assert "\x1b" not in shown(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown(Terminal())
    assert re.sub(r"\x1b\[\d+m", "", coloured)[12:] == plain[12:]


def test_the_journals_message_has_the_words_of_the_console_and_the_fields_have_all() -> None:
    digest = "ab" * 32
    (entry,) = formatter("journal")(
        [
            (
                "service.failed",
                {"hash": digest, "message": "two words", "traceback": "Traceback:\n  File"},
            )
        ]
    )
    assert entry.message == (
        "service.failed hash=abababababab…\n    two words\n    Traceback:\n      File"
    )
    assert entry.urgent
    assert f"HASH={digest}\n".encode() in entry.datagram
