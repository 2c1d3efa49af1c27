"""Take over other tools' migration folders: recognise their files, and convert plain folders in place.

    plain    NNNN_name.sql                       the files stay as they are
    journal  ours, with files next to the journal  their entries are written
    updown   name.up.sql, name.down.sql          golang-migrate and others
    dbmate   -- migrate:up … -- migrate:down
    goose    -- +goose Up … -- +goose Down; sql-migrate's `-- +migrate Up … Down` is the same
    diesel   name/up.sql, name/down.sql

A down file (`x.down.sql`, Flyway's `U1__x.sql`, Diesel's `down.sql` and the like) must never run as an up
migration: it would drop what the migration made. It becomes `<tag>.down.sql`. Repeatable migrations,
hooks and programs of other tools cannot be run here, and are refused by name. Replaced files, and down
files without a migration, are kept in `meta/adopted/`. The journal is written last, so a crash in between
leaves a folder that is still refused as unjournaled, and the same command starts over.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from sqlite3 import complete_statement
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import ForbiddenStatement, ProblemCode, UsageProblem
from local_mcp_gateway.migrate.file_kinds import (
    down_files,
    down_part_inside,
    in_order,
    not_run_here,
    program,
)
from local_mcp_gateway.migrate.folder import Migration, holds_nul, not_utf8, read_folder
from local_mcp_gateway.migrate.journal import Entry, replace_durably, write_journal
from local_mcp_gateway.migrate.no_transaction import checked_statements
from local_mcp_gateway.migrate.statements import split
from local_mcp_gateway.regular_file import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


_UP = {
    "dbmate": re.compile(r"^--[ \t]*migrate:up\b(?P<options>[^\n]*)", re.MULTILINE),
    "goose": re.compile(
        r"^--[ \t]*\+(?:goose|migrate)[ \t]+up\b(?P<options>[^\n]*)", re.MULTILINE | re.IGNORECASE
    ),
}
_DOWN = {
    "dbmate": re.compile(r"^--[ \t]*migrate:down\b[^\n]*", re.MULTILINE),
    "goose": re.compile(
        r"^--[ \t]*\+(?:goose|migrate)[ \t]+down\b[^\n]*", re.MULTILINE | re.IGNORECASE
    ),
}
_NO_TRANSACTION = re.compile(
    r"^--[ \t]*(?:migrate:up\b.*\btransaction:[ \t]*false|\+goose[ \t]+no[ \t]+transaction"
    r"|\+migrate[ \t]+up[ \t]+notransaction)\b",
    re.MULTILINE | re.IGNORECASE,
)
_STATEMENT_END = re.compile(
    r"^(?=--[ \t]*\+(?:goose|migrate)[ \t]+StatementEnd\b)", re.MULTILINE | re.IGNORECASE
)
_NUMBERED_STEP = re.compile(r"(\d+)_(.*)\.(up|down)\.sql")
_NUMBER = re.compile(r"[Vv]?(\d+)")
_DIESELS_STAMP = re.compile(r"\A(\d{4})-(\d\d)-(\d\d)-(?=\d{6}_)")
_DIESELS_NO_TRANSACTION = re.compile(r"^\s*run_in_transaction\s*=\s*false", re.MULTILINE)
_ENVSUB = re.compile(r"^--[ \t]*\+goose[ \t]+envsub[ \t]+on\b", re.MULTILINE | re.IGNORECASE)
_EARLIEST_MS = 946_684_800_000  # the year 2000: a smaller number is a sequence number, not a time


class FolderFormat(StrEnum):
    """The format of a folder before its conversion."""

    PLAIN = "plain"
    JOURNAL = "journal"
    UPDOWN = "updown"
    DBMATE = "dbmate"
    GOOSE = "goose"
    DIESEL = "diesel"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A migration as it will be in the folder; None if its file stays as it is."""

    tag: str
    source: str
    up: bytes | None
    down: bytes | None = None
    others: tuple[str, ...] = ()
    """Further files that the new ones replace."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The result of a conversion."""

    entries: tuple[Entry, ...]
    """The journal entries that were written."""
    left_out: tuple[str, ...]
    """Down files without a migration in this folder: moved to `meta/adopted`."""


def detect(path: Path) -> FolderFormat:
    """Return the folder's format, by names and by markers in its files."""
    if (path / "meta" / "_journal.json").exists():
        return FolderFormat.JOURNAL
    if _files(path, FolderFormat.DIESEL):
        return FolderFormat.DIESEL
    files = _files(path)
    if any(file.name.endswith(".up.sql") for file in files):
        return FolderFormat.UPDOWN
    for name, pattern in _UP.items():
        if any(
            pattern.search(_read_whole(file).decode("utf-8-sig", errors="replace"))
            for file in files
        ):
            return FolderFormat(name)
    return FolderFormat.PLAIN


def convert(path: Path, form: FolderFormat, *, now_ms: int) -> Converted:
    """Convert the folder.

    Raises UsageProblem for a folder that is converted already, has nothing to convert, or holds what
    cannot be a migration here; then nothing was written.
    """
    folder = read_folder(path)
    broken = any(problem.code != ProblemCode.UNJOURNALED for problem in folder.problems)
    if form is not FolderFormat.JOURNAL and (folder.migrations or broken):
        raise UsageProblem(
            f"{path} has a journal already.",
            hint="Use `db adopt --format journal` to write the entries of files that it does not list.",
        )
    known = folder.migrations
    names = [file.name for file in path.iterdir() if not file.name.startswith(".")]
    back = {n: of for n, of in down_files(names).items() if not n.endswith(".down.sql")}
    alone = _downs_alone(names) if form is FolderFormat.UPDOWN else {}
    back |= {name: of for name, of in alone.items() if of is not None}
    extra = {file.name for file in folder.unjournaled}
    files = [
        file
        for file in _files(path, form)
        if form is not FolderFormat.JOURNAL or file.name in extra
    ]
    _refuse_others(names, files if form not in (FolderFormat.DBMATE, FolderFormat.GOOSE) else ())
    if not files and not back:
        raise UsageProblem(
            f"There are no files in {path} that would need it.", hint="See `db status`."
        )
    read = [_read(file, form) for file in files]
    read += [_without_an_up(name) for name, of in alone.items() if of is None]
    new = sorted(read, key=lambda file: _place_of(file, form))
    entries = tuple(_entries(new, known, now_ms))
    for file in new:
        _place(path, file)
    tags = {file.source: file.tag for file in new} | {m.name: m.tag for m in known}
    left_out = [n for n, of in back.items() if not _place_back(path, n, tags.get(of or ""))]
    if entries:
        write_journal(path, entries)
    return Converted(entries, tuple(sorted(left_out)))


def _place_of(file: NewFile, form: FolderFormat) -> tuple[bool, tuple[int, ...], str]:
    """Return the sort key of a migration: dbmate and Diesel go by the text, the others by the number."""
    match form:
        case FolderFormat.DBMATE:
            return False, (), file.source
        case FolderFormat.DIESEL:
            return False, (), file.tag.partition("_")[0].replace("-", "")
        case _:
            return in_order(file.tag)


def _read_whole(file: Path) -> bytes:
    try:
        return read_bytes(file)
    except OSError as error:
        raise UsageProblem(
            f"{file} cannot be read: {error.strerror}.",
            hint="Make it a readable file, or move it out of the folder.",
        ) from None


def _read_text(file: Path, name: str) -> str:
    """Return the text of a file that is taken apart; raises UsageProblem unless it is UTF-8."""
    try:
        text = _read_whole(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = not_utf8(file.stem, name, error)
        raise UsageProblem(problem.message, hint=problem.hint) from None
    if "\0" in text:
        problem = holds_nul(file.stem, name)
        raise UsageProblem(problem.message, hint=problem.hint)
    return text


def _refuse_others(names: Iterable[str], as_they_are: Iterable[Path]) -> None:
    """Raise UsageProblem for files that must not run, or that would wrongly be left out."""
    for name in sorted(names):
        problem = not_run_here(name) or program(name)
        if problem is not None:
            raise UsageProblem(problem.message, hint=problem.hint)
    for file in as_they_are:
        text = _read_whole(file).decode("utf-8-sig", errors="replace")
        problem = down_part_inside(file.name, text)
        if problem is not None:
            form = next((name for name, pattern in _UP.items() if pattern.search(text)), None)
            apart = f"Take the files apart with `db adopt --format {form}`, in a folder without a journal."
            raise UsageProblem(problem.message, hint=apart if form else problem.hint)


def _files(path: Path, form: FolderFormat = FolderFormat.PLAIN) -> list[Path]:
    if form is FolderFormat.DIESEL:
        return list(path.glob("[!.]*/up.sql"))
    files = {file.name: file for file in path.glob("[!.]*.sql")}
    return [files[name] for name in files.keys() - down_files(files)]


def _read(file: Path, form: FolderFormat) -> NewFile:
    if form is FolderFormat.DIESEL:
        return _read_diesel(file)
    if form is FolderFormat.UPDOWN and file.name.endswith(".up.sql"):
        return NewFile(file.name.removesuffix(".up.sql"), file.name, _read_whole(file))
    if form not in (FolderFormat.DBMATE, FolderFormat.GOOSE):
        return NewFile(file.stem, file.name, None)
    if form is FolderFormat.DBMATE and not file.name[0].isdecimal():
        raise UsageProblem(
            f"{file.name} has no number in front, so dbmate has never applied it.",
            hint="Give it one if it is a migration, or move it out of the folder.",
        )
    text = _read_text(file, file.name)
    if form is FolderFormat.GOOSE and _ENVSUB.search(text):
        raise UsageProblem(
            f"{file.name} has goose fill in environment variables (ENVSUB), which a migration here cannot.",
            hint="Write their values into the file, and take that mark out.",
        )
    up, down = _UP[form].search(text), _DOWN[form].search(text)
    if up is None:
        return NewFile(file.stem, file.name, None)
    if down is None:
        forward, backward = text[up.end() :], None
    elif down.start() > up.start():
        forward, backward = text[up.end() : down.start()], text[down.end() :]
    else:
        forward, backward = text[up.end() :], text[down.end() : up.start()]
    forward = _with_semicolons(forward)
    if _NO_TRANSACTION.search(text):
        forward = _without_transaction(file, forward)
    backward = _with_semicolons(backward or "")
    return NewFile(
        file.stem,
        file.name,
        forward.encode(),
        backward.encode() if any(split(backward)) else None,
    )


def _downs_alone(names: Iterable[str]) -> dict[str, str | None]:
    """Return golang-migrate's down files without an up file of their name, and the one of their version."""
    steps = [(match, name) for name in names if (match := _NUMBERED_STEP.fullmatch(name))]
    ups = {int(match[1]): name for match, name in steps if match[3] == "up"}
    return {
        name: ups.get(int(match[1]))
        for match, name in steps
        if match[3] == "down" and f"{match[1]}_{match[2]}.up.sql" not in ups.values()
    }


def _without_an_up(name: str) -> NewFile:
    """Return the migration of a version that has a way back only: golang-migrate applies it as nothing."""
    return NewFile(name.removesuffix(".down.sql"), name, b"SELECT 1; -- there is only a way back\n")


def _with_semicolons(sql: str) -> str:
    """End each statement with a semicolon: before goose's mark `StatementEnd` it needs none."""
    *marked, rest = _STATEMENT_END.split(sql.strip("\r\n") + "\n")
    ended = (part if complete_statement(part) else f"{part};\n" for part in marked)
    return "".join((*ended, rest))


def _read_diesel(file: Path) -> NewFile:
    folder = file.parent
    texts = {
        name: _read_text(folder / name, f"{folder.name}/{name}")
        for name in ("up.sql", "down.sql", "metadata.toml")
        if (folder / name).exists()
    }
    up, down = texts.pop("up.sql"), texts.get("down.sql", "")
    if _DIESELS_NO_TRANSACTION.search(texts.get("metadata.toml", "")):
        up = _without_transaction(file, up)
    others = tuple(f"{folder.name}/{name}" for name in texts)
    back = down.encode() if any(split(down)) else None
    return NewFile(folder.name, f"{folder.name}/up.sql", up.encode(), back, others)


def _without_transaction(file: Path, sql: str) -> str:
    """Mark a file to run without a transaction if each statement may; else it runs inside ours."""
    try:
        may = checked_statements(Migration(file.stem, 0, 0, "", sql, str(file)))
    except ForbiddenStatement:
        return sql
    return f"-- guard: no-transaction\n{sql}" if may else sql


def _entries(new: list[NewFile], known: tuple[Migration, ...], now_ms: int) -> list[Entry]:
    """Date each file: by the time in its name if there is one, later than the one before it."""
    idx = 1 + max((migration.idx for migration in known), default=-1)
    newest = max((migration.when for migration in known), default=0)
    entries = []
    base = now_ms - len(new)
    for offset, file in enumerate(new):
        when = max(_time_in(file.tag) or base + offset, newest + 1)
        entries.append(Entry(idx + offset, file.tag, when))
        newest = when
    return entries


def _time_in(tag: str) -> int | None:
    """Parse `20240131120000`, `2024-01-31-120000` or milliseconds since 1970 at the beginning."""
    match = _NUMBER.match(_DIESELS_STAMP.sub(r"\1\2\3", tag))
    if match is None:
        return None
    digits = match.group(1)
    if len(digits) == 13 and int(digits) > _EARLIEST_MS:
        return int(digits)
    if len(digits) == 14:
        import calendar
        import time

        try:
            return calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S")) * 1000
        except ValueError:
            return None
    return None


def _place(path: Path, file: NewFile) -> None:
    """Write the files of one migration; keep the original first."""
    if file.up is None:
        return
    ours = (f"{file.tag}.sql", f"{file.tag}.down.sql")
    replaced = [name for name in (file.source, *file.others) if name not in ours]
    for name in {file.source, *replaced}:
        _keep(path, name)
    if file.down is not None:
        replace_durably(path / f"{file.tag}.down.sql", file.down)
    replace_durably(path / f"{file.tag}.sql", file.up)
    for name in replaced:
        (path / name).unlink()
    if "/" in file.source:
        with suppress(OSError):  # somebody keeps other files there
            (path / file.tag).rmdir()


def _place_back(path: Path, name: str, tag: str | None) -> bool:
    """Rename a down file to our format; False if no migration without one matches it."""
    _keep(path, name)
    ours = path / f"{tag}.down.sql"
    placed = tag is not None and not ours.exists()
    if placed:
        replace_durably(ours, _read_whole(path / name))
    (path / name).unlink()
    return placed


def _keep(path: Path, name: str) -> None:
    kept = path / "meta" / "adopted" / name
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        replace_durably(kept, _read_whole(path / name))
