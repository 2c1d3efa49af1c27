"""Set or remove one entry of a JSON or TOML document and leave every other byte as it is.

Only spans of the text are inserted or cut, so comments, order, indentation, line ends and a byte order
mark stay. Each result is parsed and compared with what the edit should make; a form that these functions
do not know (a key given twice, a table written in dotted keys) therefore raises CannotEdit and is never
guessed at. Pure.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from local_mcp_gateway.json_input import parse_jsonc

_TOKEN: Final = re.compile(
    r'(?P<gap>\s+|//[^\n]*|/\*.*?\*/|\ufeff)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{}\[\],:])|(?P<word>[^\s{}\[\],:"/]+)',
    re.DOTALL,
)
_REST_OF_LINE: Final = re.compile(r"(?:[ \t]|(?>/\*[^\n]*?\*/))*(?://[^\r\n]*)?(?=\r?\n)")
_HEADER: Final = re.compile(r"\s*\[(?!\[)")
_ANY_HEADER: Final = re.compile(r"\s*\[")
MISSING: Final = object()


class CannotEdit(ValueError):
    """Why the document cannot be edited, as the end of a sentence."""


def set_in_json(text: str, path: Sequence[str], value: object) -> str:
    """Return the document, which may have comments, with `value` at `path`; missing objects are made."""
    if not text.strip("\ufeff \t\r\n"):
        return json.dumps(_nested(path, value), indent=2, ensure_ascii=False) + "\n"
    before = _document(text)
    if value_at(before, path) == value:
        return text
    edited = _Json(text).with_value(path, value)
    return checked(edited, _document, with_value(before, path, value))


def remove_from_json(text: str, path: Sequence[str]) -> str:
    """Return the document without the member at `path`; the same text if there is none."""
    before = _document(text)
    if value_at(before, path) is MISSING:
        return text
    edited = _Json(text).without(path)
    return checked(edited, _document, without_value(before, path))


def set_in_toml(text: str, path: Sequence[str], value: object) -> str:
    """Return the document with `value` at `path`: a mapping is a table, anything else a key of one."""
    before = _toml(text)
    if value_at(before, path) == value:
        return text
    if isinstance(value, Mapping):
        edited = _Toml(text).with_table(path, value)
    else:
        edited = _Toml(text).with_key(path[:-1], path[-1], _toml_value(value))
    return checked(edited, _toml, with_value(before, path, value))


def remove_from_toml(text: str, path: Sequence[str]) -> str:
    """Return the document without the table at `path`; the same text if there is none."""
    before = _toml(text)
    if value_at(before, path) is MISSING:
        return text
    edited, expected = _Toml(text).without_table(path), without_value(before, path)

    def read(text: str) -> object:
        # An empty parent that only the table's own header made is gone with it.
        return with_value(_toml(text), path[:-1], value_at(expected, path[:-1]))

    return checked(edited, read, expected)


def _document(text: str) -> dict[str, Any]:
    try:
        document = parse_jsonc(text.lstrip("\ufeff"))
    except ValueError as error:
        raise CannotEdit(f"it is not valid JSON ({error})") from None
    if not isinstance(document, dict):
        raise CannotEdit("it holds no object")
    return document


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.lstrip("\ufeff").replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CannotEdit(f"it is not valid TOML ({error})") from None


def checked(edited: str, read: Callable[[str], object], expected: object) -> str:
    """Return the edited text; raises CannotEdit if it does not say what the edit should make."""
    with suppress(CannotEdit):
        if read(edited) == expected:
            return edited
    raise CannotEdit("it is written in a form that this program does not know")


def _nested(path: Sequence[str], value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


def value_at(document: object, path: Sequence[str]) -> object:
    """Return what is at `path`, or MISSING."""
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return MISSING
        document = document[key]
    return document


def with_value(document: dict[str, Any], path: Sequence[str], value: object) -> dict[str, Any]:
    """Return a copy with `value` at `path`; raises CannotEdit if something else is on the way."""
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        if holder.get(key) is None:  # null is nothing, as none is
            holder[key] = {}
        holder = holder[key]
        if not isinstance(holder, dict):
            raise CannotEdit(f"its {key!r} is not an object")
    if path:
        holder[path[-1]] = value
    return changed


def without_value(document: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return a copy without the member at `path`, which is there."""
    changed = copy.deepcopy(document)
    holder = value_at(changed, path[:-1])
    assert isinstance(holder, dict), "the member is there"
    del holder[path[-1]]
    return changed


class _Member(NamedTuple):
    """A member of an object, by the places of its text."""

    start: int
    value: int
    end: int
    """Where its value ends."""
    comma: int | None
    """Where the comma behind it stands, if there is one."""


class _Json:
    """A JSON text and its tokens."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._tokens = [
            (match.start(), match.end(), match.group())
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "gap"
        ]

    def with_value(self, path: Sequence[str], value: object) -> str:
        """Replace the value at `path`, or insert the member in the deepest object that is there."""
        opening = 0
        for depth, key in enumerate(path):
            members, closing = self._members(opening)
            found = members.get(key)
            if found is None:
                return self._inserted(
                    opening, members, closing, key, _nested(path[depth + 1 :], value)
                )
            old = self._text[found.value : found.end]
            if depth == len(path) - 1 or old == "null":
                inner = _nested(path[depth + 1 :], value)
                new = self._rendered(inner, self._indent_of(found.start), flat="\n" not in old)
                return self._text[: found.value] + new + self._text[found.end :]
            opening = self._token_at(found.value)
        raise AssertionError("a path has a key")

    def without(self, path: Sequence[str]) -> str:
        """Cut the member at `path` and the comma that it leaves over."""
        opening = 0
        for key in path[:-1]:
            opening = self._token_at(self._members(opening)[0][key].value)
        members, _ = self._members(opening)
        order = list(members.values())
        at = order.index(members[path[-1]])
        found = order[at]
        start, end = self._whole_lines(found.start, (found.comma or found.end - 1) + 1)
        text = self._text[:start] + self._text[end:]
        before = order[at - 1].comma if at else None
        if found.comma is None and before is not None:
            text = text[:before] + text[before + 1 :]
        return text

    def _members(self, opening: int) -> tuple[dict[str, _Member], int]:
        """Return the members of the object at a token, and where its closing brace is."""
        if self._tokens[opening][2] != "{":
            raise CannotEdit("it has something else where an object belongs")
        members: dict[str, _Member] = {}
        at = opening + 1
        while self._tokens[at][2] != "}":
            key = str(json.loads(self._tokens[at][2]))
            if key in members:
                raise CannotEdit(f"the key {key!r} is there twice")
            value = at + 2
            last = self._end_of(value)
            comma = self._tokens[last + 1][0] if self._tokens[last + 1][2] == "," else None
            members[key] = _Member(
                self._tokens[at][0], self._tokens[value][0], self._tokens[last][1], comma
            )
            at = last + (1 if comma is None else 2)
        return members, self._tokens[at][0]

    def _end_of(self, at: int) -> int:
        """Return the last token of the value that begins at a token."""
        depth = 0
        while True:
            mark = self._tokens[at][2]
            depth += (mark in ("{", "[")) - (mark in ("}", "]"))
            if depth == 0:
                return at
            at += 1

    def _token_at(self, place: int) -> int:
        return next(i for i, token in enumerate(self._tokens) if token[0] == place)

    def _inserted(
        self, opening: int, members: dict[str, _Member], closing: int, key: str, value: object
    ) -> str:
        """Insert a member as the last one, each on a line of its own unless the object is on one line."""
        text, brace = self._text, self._tokens[opening][0]
        last = list(members.values())[-1] if members else None
        flat = last is not None and "\n" not in text[brace:closing]
        outer = self._indent_of(brace)
        indent = self._indent_of(last.start) if last else outer + self._unit()
        member = (
            f"{json.dumps(key, ensure_ascii=False)}: {self._rendered(value, indent, flat=flat)}"
        )
        if last is None:
            at = brace + 1 + len(text[brace + 1 : closing].rstrip())
            gap = "" if "\n" in text[at:closing] else self._newline + outer
            return text[:at] + self._newline + indent + member + gap + text[at:]
        comma = "" if last.comma is None else ","
        behind = last.end if last.comma is None else last.comma + 1
        rest = _REST_OF_LINE.match(text, behind)
        at = rest.end() if rest and not flat else behind
        before = " " if flat else self._newline + indent
        needed = "," if last.comma is None else ""
        return text[: last.end] + needed + text[last.end : at] + before + member + comma + text[at:]

    def _rendered(self, value: object, indent: str, *, flat: bool) -> str:
        if flat:
            return json.dumps(value, ensure_ascii=False)
        lines = json.dumps(value, indent=self._unit(), ensure_ascii=False).split("\n")
        return (self._newline + indent).join(lines)

    def _unit(self) -> str:
        """Return the indentation of one level: that of the first member, else two blanks."""
        members, _ = self._members(0)
        return (self._indent_of(next(iter(members.values())).start) if members else "") or "  "

    def _indent_of(self, place: int) -> str:
        """Return the white space that begins the line of a place."""
        line = self._text[self._text.rfind("\n", 0, place) + 1 : place]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def _whole_lines(self, start: int, end: int) -> tuple[int, int]:
        """Return the span with its lines if nothing else is on them, else with the blanks before it."""
        begin = start - len(self._text[:start]) + len(self._text[:start].rstrip(" \t"))
        rest = re.compile(r"[ \t]*\r?\n").match(self._text, end)
        if rest and (begin == 0 or self._text[begin - 1] == "\n"):
            return begin, rest.end()
        return begin, end


class _Toml:
    """A TOML text in lines, and the table that each header begins."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines(keepends=True)
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._headers = [
            (number, _path_of(line))
            for number, line in enumerate(self._lines)
            if _ANY_HEADER.match(line)
        ]

    def with_table(self, path: Sequence[str], table: Mapping[str, object]) -> str:
        """Replace the table and those below it where it is, or append it."""
        pairs = (f"{_toml_key(key)} = {_toml_value(value)}" for key, value in table.items())
        body = self._newline.join(pairs)
        cut = self._lines_of(path)
        if not cut:
            return _appended("".join(self._lines), path, body, self._newline)
        kept = [line for number, line in enumerate(self._lines) if number not in cut]
        text = f"{_header(path)}{self._newline}{body}{self._newline}"
        return "".join([*kept[: min(cut)], text, *kept[min(cut) :]])

    def without_table(self, path: Sequence[str]) -> str:
        """Cut the table and those below it, and the blank line before it."""
        cut = self._lines_of(path)
        kept = [line for number, line in enumerate(self._lines) if number not in cut]
        before = kept[: min(cut, default=0)]
        if before and not before[-1].strip() and "".join(before).strip("\ufeff\r\n\t "):
            del kept[min(cut) - 1]
        return "".join(kept)

    def _lines_of(self, path: Sequence[str]) -> set[int]:
        """Return the lines of a table and those below it, each from its header to its last key."""
        cut: set[int] = set()
        for at, (number, found) in enumerate(self._headers):
            if found[: len(path)] == tuple(path):
                cut.update(range(number, self._last_key(at) + 1))
        return cut

    def with_key(self, table: Sequence[str], key: str, value: str) -> str:
        """Replace the key's value, or add the key behind its commented form or the table's last key."""
        at = next((i for i, found in enumerate(self._headers) if found[1] == tuple(table)), None)
        if at is None:
            body = f"{_toml_key(key)} = {value}"
            return _appended("".join(self._lines), table, body, self._newline)
        first, last = self._headers[at][0], self._last_key(at)
        for number in range(first + 1, last + 1):
            if _path_of_key(self._lines[number]) == key:
                end = self._end_of_value(number, last)
                return self._spliced(number, end + 1, self._replaced(number, end, value))
        commented = re.compile(rf"#\s*{re.escape(key)}\s*=")
        stop = self._headers[at + 1][0] if at + 1 < len(self._headers) else len(self._lines)
        behind = next((n for n in range(first, stop) if commented.match(self._lines[n])), last)
        return self._spliced(behind + 1, behind + 1, f"{_toml_key(key)} = {value}")

    def _spliced(self, start: int, end: int, line: str) -> str:
        before = "".join(self._lines[:start])
        if before and not before.endswith("\n"):
            before += self._newline
        return before + line + self._newline + "".join(self._lines[end:])

    def _replaced(self, number: int, end: int, value: str) -> str:
        """Return the key's line with another value and the comment that stood behind the old one."""
        line = "".join(self._lines[number : end + 1]).rstrip("\r\n")
        marks = [match.start() for match in re.finditer("#", line)]
        comment = next((mark for mark in marks if _is_toml(line[:mark])), len(line))
        code = line[:comment].rstrip()
        return f"{line[: line.index('=')].rstrip()} = {value}{line[len(code) :]}"

    def _end_of_value(self, number: int, last: int) -> int:
        for end in range(number, last + 1):
            if _is_toml("".join(self._lines[number : end + 1])):
                return end
        raise CannotEdit("a value in it has no end")

    def _last_key(self, at: int) -> int:
        """Return the last line of a table that is neither blank nor a comment."""
        stop = self._headers[at + 1][0] if at + 1 < len(self._headers) else len(self._lines)
        return max(
            number
            for number in range(self._headers[at][0], stop)
            if self._lines[number].strip() and not self._lines[number].lstrip().startswith("#")
        )


def _path_of(header: str) -> tuple[str, ...]:
    """Return the names of a table's header; an array of tables, and what is no header, has none."""
    found: object = None
    if _HEADER.match(header) and _is_toml(header):
        found = tomllib.loads(header.strip("\r\n"))
    names: list[str] = []
    while isinstance(found, dict) and found:
        (name, found), *_ = found.items()
        names.append(name)
    return tuple(names)


def _path_of_key(line: str) -> str | None:
    """Return the key that a line begins to set; None for any other line."""
    name, equals, _ = line.partition("=")
    if equals and _is_toml(f"{name.strip()} = 0"):
        (key,) = tomllib.loads(f"{name.strip()} = 0")
        return key
    return None


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text.replace("\r\n", "\n").rstrip("\r\n"))
    except tomllib.TOMLDecodeError:
        return False
    return True


def _appended(text: str, path: Sequence[str], body: str, newline: str) -> str:
    if text and not text.endswith("\n"):
        text += newline
    gap = newline if text.strip("\ufeff\r\n\t ") else ""
    return f"{text}{gap}{_header(path)}{newline}{body}{newline}"


def _header(path: Sequence[str]) -> str:
    return f"[{'.'.join(map(_toml_key, path))}]"


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(key)} = {_toml_value(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
