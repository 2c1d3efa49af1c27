"""Jinja templates and filters: how times, sizes, JSON, SQL and differences look on a page.

Everything is escaped by the templates; the functions here that return markup escape what they mark.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from difflib import SequenceMatcher
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from local_mcp_gateway import formats
from local_mcp_gateway.sql import RESERVED, tokens
from local_mcp_gateway.studio.http import address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE: Final = Path(__file__).parent
KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
LONGEST_MARKED: Final = 200_000
"""A longer text is shown without marks."""
MOST_WORDS: Final = 1_500
"""Texts of more words are compared line by line: the time grows with the square."""
_JSON: Final = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<s>"(?:[^"\\]|\\.)*")|(?P<m>-?\d[\d.eE+-]*|true|false|null)'
)
_UNSEEN: Final = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""What a person does not see and a model reads: controls, marks of direction, spaces of no width, tags."""
_WORDS: Final = re.compile(r"\s+|\w+|[^\w\s]")


@cache
def environment() -> Environment:
    """Return the templates; made at the first page.

    All are read then, and compiled when they are needed: an upgrade may replace the files of a daemon that
    runs, and its pages have to fit its code.
    """
    sources = {file.name: file.read_text("utf-8") for file in (HERE / "templates").iterdir()}
    made = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    names: dict[str, Any] = {
        "address": address,
        "asset": asset_address,
        "counted": formats.counted,
        "compared": compared,
        "equals": equals,
        "zip": zip,
    }
    filters: dict[str, Any] = {
        "size": formats.size,
        "duration": formats.duration,
        "number": lambda value: f"{value:,}",
        "moment": moment,
        "ago": ago,
        "sql": sql_markup,
        "json": json_markup,
        "pretty": pretty,
        "revealed": revealed,
    }
    made.globals.update(names)
    made.filters.update(filters)
    return made


def equals(column: str, value: object) -> str:
    """Return the condition that a column has a value, as the address of a list carries it."""
    return json.dumps([column, "=", str(value)], ensure_ascii=False)


@cache
def _assets() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (HERE / "static").iterdir()}


def asset(name: str) -> bytes | None:
    """Return a file of `static/`; None if there is none of that name."""
    return _assets().get(name)


@cache
def asset_address(name: str) -> str:
    """Return the address of a static file, which changes when the file does."""
    version = sha256(asset(name) or b"").hexdigest()[:12]
    return f"/studio/static/{name}?v={version}"


# --- times --------------------------------------------------------------------------------------


def as_time(value: object) -> datetime | None:
    """Read milliseconds since 1970 or ISO 8601 as a time."""
    try:
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value / 1000, UTC)
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def moment(value: object, form: str = "long") -> Markup:
    """Return a time as an element: local to this machine, and exact for a machine."""
    at = as_time(value)
    if at is None:
        return Markup('<span class="soft">–</span>')
    local = at.astimezone()
    now = datetime.now().astimezone()
    today = form != "full" and local.date() == now.date()
    # In a narrow column it breaks before the year and before the clock.
    year = "" if form == "clock" and local.year == now.year else f" {local.year}"
    day = "" if today else f"{local.day}\xa0{local:%b}{year}, "
    clock = local.strftime("%H:%M" if form == "long" else "%H:%M:%S")
    exact, second = formats.iso(at), formats.iso(at, "seconds")
    # Not with `format`: a page of rows has many times, and none of these parts needs escaping.
    return Markup(f'<time datetime="{exact}" title="{second}">{day}{clock}</time>')  # noqa: S704


def ago(value: object) -> str:
    """Return how long ago a time was, in one unit."""
    at = as_time(value)
    if at is None:
        return "at an unknown time"
    seconds = (datetime.now(UTC) - at).total_seconds()
    for size, noun in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{formats.counted(int(seconds // size), noun)} ago"
    return "just now"


# --- JSON and SQL -------------------------------------------------------------------------------


def pretty(value: Any) -> str:
    """Return a JSON value as indented text; text that is JSON is taken as such."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return str(value)
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return "(nested too deep to be shown)"


def json_markup(value: Any) -> Markup:
    """Return a JSON value as indented markup: names, strings and numbers apart."""
    text = pretty(value)
    if len(text) > LONGEST_MARKED:
        return escape(text)
    classes = {"key": "k", "s": "s", "m": "m"}
    return Markup("").join(_marked(text, _JSON, classes))


def _marked(text: str, pattern: re.Pattern[str], classes: dict[str, str]) -> Iterator[Markup]:
    end = 0
    for found in pattern.finditer(text):
        yield escape(text[end : found.start()])
        yield Markup('<span class="{}">{}</span>').format(
            classes[found.lastgroup or ""], found.group()
        )
        end = found.end()
    yield escape(text[end:])


def sql_markup(text: str) -> Markup:
    """Return SQL as markup: keywords, strings, numbers and comments apart."""
    if len(text) > LONGEST_MARKED:
        return escape(text)
    parts: list[Markup] = []
    end = 0
    for token in tokens(text):
        parts.append(_between(text[end : token.start]))
        end = token.start + len(token.text)
        kind = {"string": "s", "blob": "s", "number": "m"}.get(token.kind)
        if (token.kind == "word" and token.text.lower() in RESERVED) or (
            token.kind == "word" and token.upper in {"INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC"}
        ):
            kind = "k"
        mark = Markup('<span class="{}">{}</span>')
        parts.append(escape(token.text) if kind is None else mark.format(kind, token.text))
    return Markup("").join([*parts, _between(text[end:])])


def _between(text: str) -> Markup:
    """Return what stands between two tokens: white space and comments."""
    return Markup('<span class="c">{}</span>').format(text) if text.strip() else escape(text)


# --- differences --------------------------------------------------------------------------------


def compared(old: str, new: str) -> tuple[Markup, Markup]:
    """Return both texts, with what only one of them has marked in it."""
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    if len(before) + len(after) > MOST_WORDS:
        before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    left: list[Markup] = []
    right: list[Markup] = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        left += _part("del", before[i1:i2], marked=kind != "equal")
        right += _part("ins", after[j1:j2], marked=kind != "equal")
    return Markup("").join(left), Markup("").join(right)


def revealed(text: str) -> Markup:
    """Return a text with the characters that nobody sees named in it."""
    return Markup(_UNSEEN.sub(_name_of_unseen, escape(text)))  # noqa: S704  escaped; the names are ours


def _name_of_unseen(found: re.Match[str]) -> str:
    code, count = f"U+{ord(found[0][0]):04X}", len(found[0])
    more = f", {count} invisible characters" if count > 1 else ""
    return f'<span class="tag warn">{code}{more}</span>'


def _part(tag: str, words: Sequence[str], *, marked: bool) -> list[Markup]:
    text = "".join(words)
    if not text:
        return []
    shown = revealed(text)
    return [Markup("<{0}>{1}</{0}>").format(Markup(tag), shown) if marked else shown]  # noqa: S704
