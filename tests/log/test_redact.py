"""Secrets never reach the log: known values, fields by their name, texts by their pattern."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from html import escape
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_mcp_gateway.log import (
    HIDDEN,
    beginning,
    configure,
    learn,
    redact_arguments,
    redact_text,
    redact_url,
    redact_value,
    secrets_in,
    secrets_in_url,
)
from local_mcp_gateway.log.redact import PART, _Known, is_secret_key
from tests.harness import DEADLINE_S


@given(
    st.sampled_from(
        [
            *("lmg_0123456789abcdef_", "ghp_", "github_pat_", "sk-", "sk-ant-", "xoxb-", "xapp-"),
            *("glpat-", "lin_api_", "lin_oauth_", "ntn_", "sntrys_", "sk_live_", "rk_test_", "hf_"),
            *("npm_", "ya29.", "GOCSPX-", "ATATT", "-----BEGIN RSA PRIVATE KEY-----\n"),
        ]
    ),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=20, max_size=40),
    st.text(max_size=20),
)
def test_a_token_is_hidden_wherever_it_stands(prefix: str, body: str, around: str) -> None:
    assert body not in redact_text(f"{around} {prefix}{body} {around}") or body in around


@pytest.mark.parametrize(
    "part",
    [
        *(
            "a-",
            "-",
            "a--",
            "token",
            "--token",
            "eyJ-",
            "eyJaaaaaaaaaaaa-",
            "sk-",
            "://a:",
            "basic ",
        ),
        *("PRIVATE KEY-----", "lmg_0123456789abcdef_", "secret_", "\\", '\\"', "%5c", "abc\\&#92;"),
    ],
)
def test_a_long_line_of_a_server_is_looked_through_once(part: str) -> None:
    """The interpreter's lock is held meanwhile: what grew with the square stopped every call."""
    code = (
        "import sys; from local_mcp_gateway.log.redact import learn, redact_text;"
        r"learn([r'abc\\\\\\\\\\\"\\\"\\\"x', '\\\\\\\\\"\"\"\"', '    ++++&&&&']); redact_text(sys.argv[1])"
    )
    line = part * (100_000 // len(part))
    subprocess.run([sys.executable, "-c", code, line], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    "text",
    [
        "x--token S3CRETS",
        "--my-api-key-2 S3CRETS",
        "MY_TOKEN_FOR_ME=S3CRETS",
        "TOKEN=…S3CRETS",
        "-token: S3CRETS",
        "run--eyJhbGciOi01.eyJzdWIiOi02.S3CRETS",
        "eyJhbGciOi01.eyJzdWIiOi02.S3CRETS",
    ],
)
def test_a_name_is_found_wherever_it_begins(text: str) -> None:
    assert "S3CRETS" not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "Failed to set up credentials: Permission denied",
        "token: expired",
        "Invalid token: unexpected end of input.",
        "API key: missing",
        "secret: ENOENT, no such file",
        "bearer tokens are required",
        "Basic authentication failed",
        "the option --token is required",
        "git+ssh://git@github.com/a/b",
        "--api-key ${KEY} --auth-token=${env:TOKEN}",
        "`server edit time --env TOKEN=…`, and `reload`",
    ],
)
def test_a_sentence_about_a_secret_and_the_name_of_one_are_no_secrets(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter2",
        "password: Pa$$word",
        "password=hunter",
        "secret:hunter",
        '"password": "hunter"',
        "--token hunter",
        "api_key: ABCDEFgh",
        "Bearer dXNlcjpwYXNz",
        "https://hunter@host.example/x",
        "${KEY}x?token=hunter",
    ],
)
def test_what_is_not_part_of_a_sentence_is_hidden(text: str) -> None:
    (secret,) = secrets_in(text)
    assert redact_text(text) == text.replace(secret, HIDDEN)


def test_a_command_and_a_url_are_shown_without_their_secrets() -> None:
    given = ["--api-key", "x1y2", "-v", "token", "--pass-token=hunter", "two\nlines", "${KEY}"]
    shown = ["--api-key", HIDDEN, "-v", "token", f"--pass-token={HIDDEN}", "two\nlines", "${KEY}"]
    assert redact_arguments(given[:5]) == shown[:5]
    assert redact_arguments(given[2:]) == shown[2:]
    url = "https://me:pass%40word@a.example/mcp?key=1&b=${B}&c=long-enough#top"
    shown_url = f"https://{HIDDEN}@a.example/mcp?key={HIDDEN}&b=${{B}}&c={HIDDEN}#top"
    assert redact_url(url) == shown_url
    assert secrets_in_url(url) == ["pass@word", "long-enough"]
    assert secrets_in_url("https://a.example/mcp?debug=true") == []
    assert secrets_in_url("https://me:password@[a/mcp?c=long-enough") == ["password", "long-enough"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
    )
)
def test_redaction_keeps_the_shape_of_what_it_is_given(value: object) -> None:
    assert json.dumps(redact_value(redact_value(value))) == json.dumps(redact_value(value))


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "access_token",
        "Authorization",
        "client_secret",
        "API-KEY",
        "db_password",
        "Set-Cookie",
        "refreshToken",
    ],
)
def test_a_field_named_like_a_secret_is_hidden(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["path", "tag", "tokens_found", "duration_ms", "author", "keys", "bytes", "progress"]
)
def test_a_field_with_a_harmless_name_is_shown(key: str) -> None:
    assert not is_secret_key(key)


def test_the_token_of_a_progress_notification_is_shown() -> None:
    line = '{"progressToken": "7", "accessToken": "7"}'
    assert redact_text(line) == '{"progressToken": "7", "accessToken": "[redacted]"}'
    assert not is_secret_key("progressToken")


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


WAYS: dict[str, Callable[[str], str]] = {
    "JSON": json.dumps,
    "JSON with letters": lambda value: json.dumps(value, ensure_ascii=False),
    "JSON in JSON": lambda value: json.dumps(json.dumps(value)),
    "Python": repr,
    "bytes": lambda value: repr(value.encode()),
    "URL": lambda value: quote(value, safe=""),
    "path": quote,
    "small letters": lambda value: re.sub("%..", lambda found: found[0].lower(), quote(value)),
    "form": quote_plus,
    "browser": lambda value: quote(value, safe="!'()*"),
    "HTML": escape,
    "shell": shlex.quote,
    "base64": lambda value: b64encode(value.encode()).decode(),
    "base64 for URLs": lambda value: urlsafe_b64encode(value.encode()).decode(),
    "user": lambda value: b64encode(f"me:{value}".encode()).decode(),
    "client": lambda value: b64encode(f"client:{quote(value, safe='')}".encode()).decode(),
    "longer name": lambda value: b64encode(f"somebody:{value}!".encode()).decode(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "value", ['pa ss"w\\ö/rd+=&x9', "it's%41😀<b>\n\\\\nine", "Tr0ub4dor+3/=="]
)
def test_a_known_value_is_hidden_however_it_is_written(way: str, value: str) -> None:
    learn([value])
    written = WAYS[way](value)
    shown = redact_text(f"it said {written} twice: {written}.")
    assert shown.count(HIDDEN) == 2


@given(st.text(min_size=8, max_size=40), st.text(max_size=20))
def test_any_known_value_is_hidden_and_nothing_else_is_lost(value: str, around: str) -> None:
    known = _Known()
    known.add([value])
    for written in (value, json.dumps(value)[1:-1], quote(value.encode(), safe="")):
        if len(value.strip()) >= PART:  # a shorter one is hidden as a word only
            assert value.strip() not in known.hide(f"{around}{written}{around}")
    assert known.hide("nothing of it") == "nothing of it"


@given(st.integers(0, 90), st.integers(1, 80))
def test_of_a_known_value_across_the_end_no_part_is_left(before: int, most: int) -> None:
    value = "0123456789qwertzuiopasdfghjklyxcvbnm"
    learn([value])
    text = "." * before + value + "." * 500
    shown = beginning(text, most)
    assert len(shown) <= most
    assert shown == ("." * before + HIDDEN + "." * 500)[:most]
