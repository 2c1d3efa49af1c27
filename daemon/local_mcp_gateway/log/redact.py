"""Redact secrets in output: known values, fields by their name, texts by their pattern.

Arguments and results of calls are never passed to an Emit. This is a second safeguard, for error
messages, URLs and command lines. When in doubt it redacts.

The known values belong to the process, as its log does (ADR 37). Call `learn` before a value reaches
anything that may print it: every text that is redacted from then on is without it.
"""

from __future__ import annotations

import json
import re
import threading
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, cached_property, lru_cache
from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

HIDDEN: Final = "[redacted]"
SHORTEST: Final = 4
"""Minimum length of a known value: `1` or `yes` cannot be redacted everywhere."""
PART: Final = 8
"""Minimum length at which a known value is also redacted inside a word, and a part of it alone."""


class _Secret:
    """A known value, found however its characters are escaped."""

    def __init__(self, value: str) -> None:
        self._value = value
        self.run = max(_RUNS.findall(value), key=len, default="")
        """Its longest run of letters and digits, which every escape leaves as it is."""

    def hide(self, text: str) -> str:
        """Return a text that has the run without the value."""
        if self.run == self._value and len(self.run) >= PART:
            return text.replace(self.run, HIDDEN)
        return self._pattern.sub(HIDDEN, text)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        found = "".join(_written(part) for part in _PARTS.findall(self._value))
        return re.compile(found if len(self._value) >= PART else rf"(?<!\w){found}(?!\w)")


class _Known:
    """The known secret values, longest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._secrets: Mapping[str, _Secret] = {}
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        """Add values."""
        with self._lock:
            found = {form for value in values for form in _forms(value)}
            if not found.issubset(self._secrets):
                all_of_them = sorted(found.union(self._secrets), key=len, reverse=True)
                self._secrets = {
                    value: self._secrets.get(value) or _Secret(value) for value in all_of_them
                }
                redact_short.cache_clear()  # cached texts may contain a new value

    def hide(self, text: str) -> str:
        """Return the text without them."""
        for secret in self._secrets.values():
            if secret.run in text:
                text = secret.hide(text)
        return text


_RUNS: Final = re.compile(r"[A-Za-z0-9]+")
_PARTS: Final = re.compile(r"[A-Za-z0-9]+|\\+|.", re.DOTALL)
"""What is escaped alike: letters and digits not at all, backslashes by more of them, and each other character."""
_SLASHES: Final = r"\\{1,4}"
"""The backslashes in front of an escaped character: JSON may be in JSON."""


_OTHER_WAYS: Final = {" ": (r"\+",), "'": (r"'\\''", "'\"'\"'")}
"""In a form, and in a shell."""


def _written(part: str) -> str:
    """Return a pattern of the ways to write a part of a value: in JSON, a URL, HTML, a shell or Python."""
    if part.isascii() and part.isalnum():
        return part
    if part[0] == "\\":
        count = len(part)
        return rf"(?:\\{{{count},{8 * count}}}|(?i:(?:%5c|&#92;|&#x5c;){{{count}}}))"
    utf8 = part.encode("utf-8", "surrogatepass")
    in_json = "".join(_SLASHES if c == "\\" else re.escape(c) for c in json.dumps(part)[1:-1])
    ways = (
        rf"\\{{0,4}}{re.escape(part)}",
        in_json,
        "".join(rf"%{byte:02x}" for byte in utf8),
        "".join(rf"{_SLASHES}x{byte:02x}" for byte in utf8),
        re.escape(escape(part)),
        rf"&#(?:{ord(part)}|x0*{ord(part):x});",
        *_OTHER_WAYS.get(part, ()),
    )
    return f"(?i:{'|'.join(dict.fromkeys(ways))})"


def _forms(value: str) -> Iterator[str]:
    """Yield what a value may be printed as: whole, by line, what follows `Bearer`; and each in base64."""
    scheme, _, credentials = value.strip().partition(" ")
    parts = [
        *value.splitlines(),
        credentials if scheme.isalpha() and " " not in credentials else "",
    ]
    for part in (value.strip(), *(part.strip() for part in parts if len(part.strip()) >= PART)):
        if len(part) >= SHORTEST:
            yield part
        if len(part) >= PART:
            utf8 = part.encode("utf-8", "surrogatepass")
            yield from _in_base64(utf8)
            yield from _in_base64(quote(utf8, safe="").encode())  # as a client secret is sent


def _in_base64(value: bytes) -> Iterator[str]:
    """Yield the characters that stand for a value alone, wherever it begins, as after `user:` in `Basic`."""
    for before in range(3):
        encoded = b2a_base64(bytes(before) + value, newline=False).decode()
        alone = encoded[(before * 8 + 5) // 6 : (before + len(value)) * 8 // 6]
        yield alone
        yield alone.translate(_FOR_URLS)


_FOR_URLS: Final = str.maketrans("+/", "-_")


_KNOWN: Final = _Known()
learn: Final = _KNOWN.add

SHORT: Final = 64
"""Maximum length of a text that is cached."""
LOOKED_AT: Final = 65_536
"""How many characters beyond the beginning of a text are searched for known values."""
NAMES: Final = frozenset(
    (
        *("backup", "database", "folders", "guard", "kind", "method", "migrations"),
        *("path", "profile", "protocol", "python", "server", "sqlite", "start"),
        *("state", "status", "tag", "url", "verb", "version"),
    )
)
"""Fields of events with the gateway's own names, which are not searched for known values."""

_SECRET_KEY = re.compile(
    r"authori[sz]ation|cookie|password|passwd|passphrase|secret|credential|bearer"
    r"|(?:^|[_\-.])(?:token|pwd|api[_\-]?key|access[_\-]?key|private[_\-]?key|client[_\-]?key|auth)(?:$|[_\-.])"
    r"|apikey|accesstoken|refreshtoken|(?<!progress)token$",
    re.IGNORECASE,
)
_NAME = r"(?:(?<!progress)token|secret|passw(?:or)?d|passphrase|api[_\-]?key|access[_\-]?key|credential)[\w\-]{0,128}"
"""The end of a name, where a search may begin: a name may be as long as a line that a server writes, and
a search from each of its characters would take minutes. MCP's `progressToken` is not a secret."""
_WORD = r"(?:[A-Za-z]?[a-z]{0,19}|[A-Z]{1,20})(?:[\s.,;:!?)\]}\"']|$)"
"""A word of a sentence, as opposed to a secret: few letters, and no capitals within."""
_DONE = r"\[redacted\]|…(?!\w)|\$\{[^}\s]{1,128}\}(?:[\s\"'&,;/@]|$)"
"""What may be in the place of a secret: what is redacted already, a "…", or the name of a variable that has it."""
_SECRET_TEXT: Final = (
    (
        r"\b(?:bearer|basic)\s+(?!(?:auth(?:entication|orization)?|credentials?|headers?|schemes?|tokens?)\b)"
        r"(?P<secret>[A-Za-z0-9._~+/\-]{6,}=*)"
    ),
    # user:password@ and user@ in a URL
    rf"(?<=://)(?!git@|{_DONE})(?P<secret>[^/\s@]+)(?=@)",
    # NAME=value, --name=value, ?name=value, "name": "value"
    rf"{_NAME}(?:[\"']?\s*=\s*[\"']?|[\"']\s*:\s*[\"']?|:[\"']?)(?!{_DONE})(?P<secret>[^\s\"'&,;}}\])]+)",
    # name: value, unless that is a sentence
    rf"{_NAME}\s*:\s*[\"']?(?!{_DONE}|(?-i:{_WORD}))(?P<secret>[^\s\"'&,;}}\])]+)",
    # a private key
    r"(?<=PRIVATE KEY-----)(?P<secret>[^\-]{16,})",
    # --name value
    (
        rf"(?:(?<![\w\-])--[\w\-]*|(?<=\w)--[\w\-]{{0,64}}){_NAME}\s+"
        rf"(?!-|{_DONE}|(?:is|was|are|or|and|must|needs|cannot|has|to|for|not)\s)(?P<secret>\S+)"
    ),
    # tokens with a known prefix: ours, GitHub, GitLab, OpenAI and Anthropic, Slack, AWS, Google, Linear, Notion,
    # Sentry, Stripe, Hugging Face, npm, Atlassian; JWT
    (
        r"(?P<secret>\b(?:lmg_[0-9a-f]{16}_[\w\-]{16,}"
        r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w\-]{16,}|sk-[\w\-]{16,}"
        r"|xox[abeoprs]-[\w\-]{10,}|xapp-[\w\-]{16,}|AKIA[0-9A-Z]{16}|AIza[\w\-]{30,}"
        r"|GOCSPX-[\w\-]{16,}|ya29\.[\w\-]{16,}|lin_(?:api|oauth)_\w{16,}|ntn_\w{16,}|secret_[a-z0-9]{32,}"
        r"|sntry[su]_[\w=+/\-]{16,}|[sr]k_(?:live|test)_\w{16,}|hf_[a-z0-9]{16,}|npm_[a-z0-9]{16,}|ATATT[\w\-=]{16,}"
        r"|(?:(?<!-)eyJ[\w\-]{8,}|eyJ[\w\-]{8,512})\.[\w\-]{8,}\.[\w\-]*))"
    ),
)


@cache
def _secret_text() -> tuple[re.Pattern[str], ...]:
    """Return the patterns; compiled when something is printed, since that takes as long as a small import."""
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in _SECRET_TEXT)


@lru_cache(maxsize=1024)
def is_secret_key(key: str) -> bool:
    """Return whether a field of this name holds a secret, whatever its value."""
    return _SECRET_KEY.search(key) is not None


def redact_text(text: str) -> str:
    """Return the text with everything redacted that is a known secret, or looks like one."""
    return redact_short(text) if len(text) <= SHORT else _redact_any(text)


@lru_cache(maxsize=1024)
def redact_short(text: str) -> str:
    """Return a text of at most SHORT characters redacted: each call's line has the same server, tool and method."""
    return _redact_any(text)


def _redact_any(text: str) -> str:
    return _redact_by_look(_KNOWN.hide(text))


def _redact_by_look(text: str) -> str:
    return _short_by_look(text) if len(text) <= SHORT else _search(text)


@lru_cache(maxsize=1024)
def _short_by_look(text: str) -> str:
    """Cache these separately: the pattern of a text does not depend on the known values."""
    return _search(text)


def _search(text: str) -> str:
    for pattern in _secret_text():
        text = pattern.sub(_hidden, text)
    return text


def _hidden(found: re.Match[str]) -> str:
    before, after = found.start("secret") - found.start(), found.end("secret") - found.start()
    return f"{found[0][:before]}{HIDDEN}{found[0][after:]}"


def redact_arguments(arguments: Iterable[str]) -> list[str]:
    """Return the arguments of a command: one that is a secret follows an option's name, or its own."""
    given = list(arguments)
    redacted = redact_text("\n".join(given)).split("\n")
    return redacted if len(redacted) == len(given) else [redact_text(one) for one in given]


_QUERY: Final = re.compile(rf"(?<=[?&])([^=&#\s]*=)(?!{_DONE})[^&#\s]+")


def redact_url(url: str) -> str:
    """Return a URL without user and password, and without the values of its query."""
    return redact_text(_QUERY.sub(rf"\1{HIDDEN}", url))


def secrets_in_url(url: str) -> list[str]:
    """Return user, password and long values of the query; a short one, such as `true`, is not a secret."""
    # Not by `urlsplit`: a URL that it refuses has secrets too.
    address, _, query = url.partition("#")[0].partition("?")
    netloc = address.partition("://")[2].partition("/")[0]
    user, _, password = netloc.rpartition("@")[0].partition(":")
    given = [password or user, *(value for _, value in parse_qsl(query))]
    return [unquote(value) for value in given if len(value) >= PART]


def secrets_in(text: str) -> list[str]:
    """Return what looks like a secret in a text that a person has written, so that it can be learned."""
    return [found["secret"] for pattern in _secret_text() for found in pattern.finditer(text)]


def beginning(text: str, most: int) -> str:
    """Return the first `most` characters, redacted; of a secret across the end, no part is left."""
    return _redact_by_look(_KNOWN.hide(text[: most + LOOKED_AT])[: most + SHORT])[:most]


def redact_value(value: object) -> object:
    """Return the value with secrets redacted at any depth; numbers, booleans and None as they are."""
    match value:
        case str():
            return redact_text(value)
        case None | bool() | int() | float():
            return value
        case Mapping():
            return redact_fields(value)
        case list() | tuple() | set() | frozenset():
            return [redact_value(item) for item in value]
        case _:
            return redact_text(str(value))


def redact_fields(fields: Mapping[Any, object]) -> dict[str, object]:
    """Return the fields redacted: by their name whatever they hold, else by their pattern."""
    return {str(key): _redact_field(str(key), value) for key, value in fields.items()}


def redact_events(
    events: Iterable[tuple[str, Mapping[str, object]]],
) -> list[tuple[str, dict[str, object]]]:
    """Return the events with their fields redacted; one whose fields are nested too deep is left out.

    The gateway's own names are not searched for known values.
    """
    redacted = []
    for event, fields in events:
        with suppress(Exception):  # one event costs itself, not those after it
            redacted.append((event, _redact_event(fields)))
    return redacted


def _redact_event(fields: Mapping[str, object]) -> dict[str, object]:
    return {
        key: _redact_by_look(value)
        if key in NAMES and isinstance(value, str)
        else _redact_field(key, value)
        for key, value in fields.items()
    }


def _redact_field(key: str, value: object) -> object:
    return HIDDEN if is_secret_key(key) and value is not None else redact_value(value)
