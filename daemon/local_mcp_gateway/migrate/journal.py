"""Read and write `meta/_journal.json`, Drizzle's list of the migrations in order."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from local_mcp_gateway.database import flush
from local_mcp_gateway.errors import Problem, ProblemCode
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.regular_file import open_file, read_bytes

INDEX_DIGITS = 4
"""Digits of the number that Drizzle begins a name with, unless it is told to write a time."""

# What Drizzle Kit writes for databases that speak SQLite.
_DIALECTS = frozenset({"sqlite", "turso", "libsql", "d1"})


PRISMAS_LOCK = "migration_lock.toml"
"""What Prisma writes next to its migrations."""

# A tag is a file's name in the folder: not empty, not hidden, not outside of it.
_MOST_MS = (1 << 63) - 1  # the range of a SQLite integer
_NO_NAME = re.compile(r"\A\.|\A\Z|[/\\\0]")


class Entry(NamedTuple):
    """One line of the journal. A tuple, since thousands are made at each start."""

    idx: int
    tag: str
    when: int


class Journal(NamedTuple):
    """The journal's entries in their order, and what is wrong with it."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def read_journal(folder: Path) -> Journal:
    """Read the journal of a folder that has one."""
    try:
        found = parse_json(read_bytes(folder / "meta" / "_journal.json"))
    except OSError as error:
        return Journal((), (_malformed(f"cannot be read: {error.strerror}"),))
    except ValueError as error:
        return Journal((), (_malformed(f"is not valid JSON: {error}"),))
    if not isinstance(found, dict) or not isinstance(found.get("entries"), list):
        return Journal((), (_malformed("has no list `entries`"),))
    dialect = found.get("dialect", "sqlite")
    if dialect not in _DIALECTS:
        return Journal((), (_wrong_dialect(folder, str(dialect)),))
    entries: list[Entry] = []
    for position, item in enumerate(found["entries"]):
        try:
            entry = Entry(item.get("idx", position), item["tag"], item["when"])
            sound = (
                type(entry.idx) is type(entry.when) is int
                and -_MOST_MS <= entry.when <= _MOST_MS
                and _NO_NAME.search(entry.tag) is None
            )
        except (AttributeError, KeyError, TypeError):
            sound = False
        if not sound:  # check again, slowly: a date may be a float, and the message names the fault
            wrong = _what_is_wrong(item)
            if wrong:
                return Journal((), (_malformed(f"has an entry {position} {wrong}"),))
            entry = Entry(item.get("idx", position), item["tag"], int(item["when"]))
        entries.append(entry)
    return Journal(tuple(entries), tuple(_repeated(entries)))


def write_journal(folder: Path, added: Iterable[Entry]) -> None:
    """Append entries to the journal: temporary file, fsync, rename, fsync of the folder.

    Other keys and entries stay as they are. A crash leaves the old journal or the new one.
    """
    file = folder / "meta" / "_journal.json"
    try:
        journal = parse_json(file.read_bytes())
    except FileNotFoundError:
        journal = {"version": "7", "dialect": "sqlite", "entries": []}
    journal["entries"] += [
        {
            "idx": entry.idx,
            "version": "6",
            "when": entry.when,
            "tag": entry.tag,
            "breakpoints": True,
        }
        for entry in added
    ]
    file.parent.mkdir(exist_ok=True)
    replace_durably(file, json.dumps(journal, indent=2, ensure_ascii=False).encode())


def replace_durably(file: Path, data: bytes) -> None:
    """Write a file so that a power cut leaves the old content or the new one, whole; keep its permissions."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(open_file(temporary, flags, mode=0o666, follow=False), "wb") as handle:
            with suppress(FileNotFoundError):
                os.fchmod(handle.fileno(), stat.S_IMODE(file.stat().st_mode))
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    flush(file.parent)


def _what_is_wrong(item: object) -> str | None:
    """Say why an entry is invalid; a tag is a file's name, so it may not lead out of the folder."""
    if not isinstance(item, dict):
        return "that is not an object"
    tag, when, idx = item.get("tag"), item.get("when"), item.get("idx", 0)
    if not isinstance(tag, str) or not tag:
        return "without a `tag`"
    if _NO_NAME.search(tag):
        return f"whose tag {tag!r} is not a file name"
    if type(when) is not int and not (type(when) is float and when.is_integer()):
        return f"({tag}) whose `when` is not a number of milliseconds"
    if not -_MOST_MS <= when <= _MOST_MS:
        return f"({tag}) whose `when` is beyond any date"
    if type(idx) is not int:
        return f"({tag}) whose `idx` is not a number"
    return None


def prefix_of(tag: str) -> str:
    """Return the digits that a tag begins with, up to its underscore: a number or a time; or nothing."""
    prefix, underscore, _ = tag.partition("_")
    return prefix if underscore and prefix.isdecimal() else ""


def places_of(idx: int, tag: str) -> list[object]:
    """Return what no other migration should have too: its idx, and the number of four digits in its name.

    Two migrations may have the same date in their names.
    """
    number = prefix_of(tag)
    return [*([idx] if idx >= 0 else []), *([number] if len(number) == INDEX_DIGITS else [])]


def _repeated(entries: list[Entry]) -> Iterable[Problem]:
    tags = [entry.tag for entry in entries]
    if len(set(tags)) == len(tags):
        return
    for tag in sorted({tag for tag in tags if tags.count(tag) > 1}):
        yield Problem(
            ProblemCode.DUPLICATE,
            f"The journal lists {tag} more than once.",
            "Take the second entry out of meta/_journal.json.",
            tag,
        )


def _malformed(what: str) -> Problem:
    return Problem(
        ProblemCode.BAD_JOURNAL,
        f"meta/_journal.json {what}.",
        "Bring meta/_journal.json back from version control, and merge it by hand if two branches"
        " changed it; `db check` checks it again.",
    )


def prisma_problems(folder: Path) -> tuple[Problem, ...]:
    """Return why a folder of Prisma's is not for SQLite, as its lock file says."""
    text = (folder / PRISMAS_LOCK).read_text(errors="replace")
    provider = re.search(r'^\s*provider\s*=\s*"(\w+)"', text, re.MULTILINE)
    if provider is None or provider[1] in _DIALECTS:
        return ()
    return (_wrong_dialect(folder, provider[1]),)


def _wrong_dialect(folder: Path, dialect: str) -> Problem:
    return Problem(
        ProblemCode.DIALECT,
        f"{folder} is a folder of {dialect} migrations, and the database is SQLite.",
        "Give the folder of the SQLite migrations with --migrations.",
    )
