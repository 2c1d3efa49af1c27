"""Convert other tools' plain migration folders in place: write a journal, separate ups and downs.

    plain    NNNN_name.sql                       the files stay as they are
    journal  ours, with files beside the journal  their entries are written
    updown   name.up.sql, name.down.sql          golang-migrate and others
    dbmate   -- migrate:up … -- migrate:down
    goose    -- +goose Up … -- +goose Down; sql-migrate's `-- +migrate Up … Down` is the same

A down file with another tool's name (Flyway's `U1__x.sql`) becomes `<tag>.down.sql`; files that are not
migrations (see `other_files`) are refused. Replaced files, and down files without a migration, are kept
in `meta/adopted/`. The journal is written last, so a crash in between leaves a folder that is still
refused as unjournaled, and the same command starts over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from local_mcp_gateway.errors import ForbiddenStatement, ProblemCode, UsageProblem
from local_mcp_gateway.migrate.folder import Migration, read_folder
from local_mcp_gateway.migrate.journal import Entry, replace_durably, write_journal
from local_mcp_gateway.migrate.no_transaction import checked_statements
from local_mcp_gateway.migrate.other_files import (
    in_order,
    not_run_here,
    program,
    way_back_inside,
    ways_back,
)
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
    r"transaction:[ \t]*false|\+goose[ \t]+no[ \t]+transaction|\+migrate[ \t]+up[ \t]+notransaction",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[Vv]?(\d+)")
_EARLIEST_MS = 946_684_800_000  # the year 2000: a smaller number is a sequence number, not a time


class FolderFormat(StrEnum):
    """The format of a folder before its conversion."""

    PLAIN = "plain"
    JOURNAL = "journal"
    UPDOWN = "updown"
    DBMATE = "dbmate"
    GOOSE = "goose"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A migration as it will be in the folder; None if its file stays as it is."""

    tag: str
    source: str
    up: bytes | None
    down: bytes | None = None


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
    files = _files(path)
    if any(file.name.endswith(".up.sql") for file in files):
        return FolderFormat.UPDOWN
    for name, pattern in _UP.items():
        if any(pattern.search(_read_whole(file).decode(errors="replace")) for file in files):
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
    names = [file.name for file in path.iterdir()]
    back = {n: of for n, of in ways_back(names).items() if not n.endswith(".down.sql")}
    extra = {file.name for file in folder.unjournaled}
    files = [
        file for file in _files(path) if form is not FolderFormat.JOURNAL or file.name in extra
    ]
    _refuse_others(names, files if form not in (FolderFormat.DBMATE, FolderFormat.GOOSE) else ())
    if not files and not back:
        raise UsageProblem(
            f"There are no files in {path} that would need it.", hint="See `db status`."
        )
    new = sorted((_read(file, form) for file in files), key=lambda file: in_order(file.tag))
    entries = tuple(_entries(new, known, now_ms))
    for file in new:
        _place(path, file)
    tags = {file.source: file.tag for file in new} | {m.name: m.tag for m in known}
    left_out = [n for n, of in back.items() if not _place_back(path, n, tags.get(of or ""))]
    if entries:
        write_journal(path, entries)
    return Converted(entries, tuple(sorted(left_out)))


def _read_whole(file: Path) -> bytes:
    try:
        return read_bytes(file)
    except OSError as error:
        raise UsageProblem(
            f"{file} cannot be read: {error.strerror}.",
            hint="Make it a readable file, or move it out of the folder.",
        ) from None


def _refuse_others(names: Iterable[str], as_they_are: Iterable[Path]) -> None:
    """Raise UsageProblem for files that must not run, or that would wrongly be left out."""
    for name in sorted(names):
        problem = not_run_here(name) or program(name)
        if problem is not None:
            raise UsageProblem(problem.message, hint=problem.hint)
    for file in as_they_are:
        text = _read_whole(file).decode(errors="replace")
        problem = way_back_inside(file.name, text)
        if problem is not None:
            form = next((name for name, pattern in _UP.items() if pattern.search(text)), None)
            apart = f"Take the files apart with `db adopt --format {form}`, in a folder without a journal."
            raise UsageProblem(problem.message, hint=apart if form else problem.hint)


def _files(path: Path) -> list[Path]:
    files = {file.name: file for file in path.glob("*.sql")}
    return [files[name] for name in files.keys() - ways_back(files)]


def _read(file: Path, form: FolderFormat) -> NewFile:
    if form is FolderFormat.UPDOWN and file.name.endswith(".up.sql"):
        return NewFile(file.name.removesuffix(".up.sql"), file.name, _read_whole(file))
    if form not in (FolderFormat.DBMATE, FolderFormat.GOOSE):
        return NewFile(file.stem, file.name, None)
    text = _read_whole(file).decode(errors="surrogateescape")
    up, down = _UP[form].search(text), _DOWN[form].search(text)
    if up is None:
        return NewFile(file.stem, file.name, None)
    if down is None:
        forward, backward = text[up.end() :], None
    elif down.start() > up.start():
        forward, backward = text[up.end() : down.start()], text[down.end() :]
    else:
        forward, backward = text[up.end() :], text[down.end() : up.start()]
    forward = forward.strip("\r\n") + "\n"
    if _NO_TRANSACTION.search(text[: up.end()]) and _may_leave_transaction(file, forward):
        forward = "-- guard: no-transaction\n" + forward
    return NewFile(
        file.stem,
        file.name,
        forward.encode(errors="surrogateescape"),
        (backward.strip("\r\n") + "\n").encode(errors="surrogateescape")
        if backward and backward.strip()
        else None,
    )


def _may_leave_transaction(file: Path, sql: str) -> bool:
    """Return whether every statement may run without a transaction; else the file runs inside ours."""
    try:
        return bool(checked_statements(Migration(file.stem, 0, 0, "", sql, str(file))))
    except ForbiddenStatement:
        return False


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
    """Parse `20240131120000` or milliseconds since 1970 from the beginning of a name."""
    match = _NUMBER.match(tag)
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
    _keep(path, file.source)
    if file.down is not None:
        replace_durably(path / f"{file.tag}.down.sql", file.down)
    replace_durably(path / f"{file.tag}.sql", file.up)
    if file.source != f"{file.tag}.sql":
        (path / file.source).unlink()


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
