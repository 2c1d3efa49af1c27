"""Read a migrations folder: Drizzle's with a journal, or Drizzle 1.x's with one folder a migration.

Nothing in a folder makes reading fail: each fault becomes a `Problem`, and applying refuses. Files are
hashed byte for byte (BOM and CRLF included), as Drizzle does, so each is read at each start. That is
why this loop opens files by descriptor and keeps plain values. `Migration.hashes` are those of the same
text with other line ends.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from local_mcp_gateway.errors import (
    HistoryRefused,
    MigrationsFolderProblem,
    Problem,
    ProblemCode,
    UsageProblem,
)
from local_mcp_gateway.formats import now_ms
from local_mcp_gateway.migrate.journal import (
    PRISMAS_LOCK,
    Entry,
    Journal,
    prisma_problems,
    read_journal,
)
from local_mcp_gateway.regular_file import require_kind

if TYPE_CHECKING:
    from local_mcp_gateway.migrate.statements import Directives, Script, Statement


def gone(tag: str, name: str) -> Problem:
    """Return the problem of an entry whose file is missing."""
    return Problem(
        ProblemCode.MISSING,
        f"The journal lists {tag}, but {name} is not in the folder.",
        f"Bring {name} back from version control, or take its entry out of meta/_journal.json"
        " if no database has applied it.",
        tag,
    )


def unreadable(tag: str, name: str, error: OSError) -> Problem:
    """Return the problem of a file that this user may not read."""
    return Problem(
        ProblemCode.MISSING,
        f"{name} cannot be read: {error.strerror}.",
        f"Make {name} a file that this user can read.",
        tag,
    )


def not_utf8(tag: str, name: str, error: UnicodeDecodeError) -> Problem:
    """Return the problem of a file that is not UTF-8, with the line."""
    line = error.object.count(b"\n", 0, error.start) + 1
    return Problem(
        ProblemCode.BAD_ENCODING,
        f"{name} is not valid UTF-8: byte 0x{error.object[error.start]:02x} in line {line}.",
        f"Save {name} as UTF-8.",
        tag,
    )


def holds_nul(tag: str, name: str) -> Problem:
    """Return the problem of a file with a NUL byte."""
    return Problem(
        ProblemCode.BAD_ENCODING,
        f"{name} contains a zero byte, so it is not UTF-8 text.",
        f"Save {name} as UTF-8 (it may be UTF-16).",
        tag,
    )


def bad_stamp(tag: str) -> Problem:
    """Return the problem of a Drizzle 1.x folder whose name does not begin with a date."""
    return Problem(
        ProblemCode.BAD_JOURNAL,
        f"The first 14 digits of {tag} are not a date and time.",
        "Rename the folder to <YYYYMMDDHHMMSS>_<name>.",
        tag,
    )


NEW = -1
"""`idx` of a file without a journal entry (dev mode journals it after its rehearsal)."""

SQUASHED = "meta/_squashed"
"""A folder like any other, also to Drizzle, which passes over what begins with `_` in meta."""

_CHUNK_BYTES = 1 << 15  # more costs an mmap for every file
_FILE_BYTES = 1 << 20
_BOM = "\ufeff"
_STAMPED = re.compile(r"\d{14}_.+")


class _File(NamedTuple):
    tag: str
    idx: int
    when: int
    """Integer milliseconds since 1970, the ledger's `created_at`."""
    hash: str
    """sha256 of the file's bytes, hex."""
    sql: str
    file: str
    down_file: str | None = None


class Migration(_File):
    """One migration as it stands in the folder. A tuple: thousands are made at each start.

    Its text is parsed once, on first use.
    """

    @property
    def path(self) -> Path:
        """Return the file."""
        return Path(self.file)

    @property
    def name(self) -> str:
        """Return the file's name in the folder, with the folders below it."""
        return self._in_folder(self.path)

    @property
    def down_name(self) -> str:
        """Return the name of its down file, whether there is one or not."""
        name = "down.sql" if self._has_own_folder else f"{self.tag}.down.sql"
        return self._in_folder(self.path.with_name(name))

    @property
    def is_squashed(self) -> bool:
        """Return whether another migration has replaced it."""
        return f"/{SQUASHED}/" in self.file

    @property
    def _has_own_folder(self) -> bool:
        return self.path.name == "migration.sql"

    def _in_folder(self, file: Path) -> str:
        if self.is_squashed:
            return f"{SQUASHED}/{str(file).partition(f'/{SQUASHED}/')[2]}"
        return f"{self.tag}/{file.name}" if self._has_own_folder else file.name

    @property
    def down(self) -> Path | None:
        """Return its down file, if there is one."""
        return Path(self.down_file) if self.down_file else None

    @cached_property
    def hashes(self) -> frozenset[str]:
        """Return the hashes of its text with either line end, with and without a byte order mark.

        Git changes line ends, and editors add the mark; SQLite reads the same. A carriage return alone
        does not count as a line end: in SQLite it does not end a comment.
        """
        texts = (sha256(text.encode()).hexdigest() for text in self.spellings)
        return frozenset([self.hash, *texts])

    @property
    def spellings(self) -> list[str]:
        """Return its text with either line end, with and without a byte order mark."""
        plain = self.sql.removeprefix(_BOM).replace("\r\n", "\n")
        return [mark + plain.replace("\n", end) for mark in ("", _BOM) for end in ("\n", "\r\n")]

    @cached_property
    def parsed(self) -> Script:
        """Return what its file says."""
        from local_mcp_gateway.migrate.statements import parse

        return parse(self.sql)

    @cached_property
    def directives(self) -> Directives:
        """Return the file's `-- guard:` directives."""
        return self.parsed.directives

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Return its statements, in order."""
        return self.parsed.statements

    @property
    def texts(self) -> list[str]:
        """Return the texts of its statements, in order."""
        return [statement.text for statement in self.statements]


class Folder(NamedTuple):
    """A migrations folder, in the order in which its migrations are applied."""

    path: Path
    migrations: tuple[Migration, ...]
    unjournaled: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()
    absent: tuple[Entry, ...] = ()
    """Journal entries whose file is not there; each has its problem."""
    is_v1: bool = False
    """True for Drizzle's 1.x format: one folder a migration, no journal."""

    @property
    def squashed(self) -> Folder | None:
        """Return the folder of the migrations that one has replaced, which has the tag of the last.

        Reads the disk: only a database that has some of them needs them.
        """
        if not (self.path / SQUASHED).is_dir():
            return None
        found = read_folder(self.path / SQUASHED)
        if not found.migrations:
            return None
        last = found.migrations[-1]
        if all(m.tag != last.tag or m.hash == last.hash for m in self.migrations):
            return None
        reported = (replace(one, message=f"In {SQUASHED}: {one.message}") for one in found.problems)
        return found._replace(problems=tuple(reported))

    def every_migration(self) -> Iterator[Migration]:
        """Yield every migration that a database may have applied: its own, and the squashed ones."""
        yield from self.migrations
        squashed = self.squashed
        if squashed is not None:
            yield from squashed.every_migration()

    def newest(self, tag: str | None = None) -> Migration:
        """Return the newest migration, which has to be `tag` if one is given; raises UsageProblem."""
        if not self.migrations:
            raise UsageProblem(
                f"There is no migration to drop in {self.path}.", hint="See `db status`."
            )
        found = self.migrations[-1]
        if self.squashed is not None and self.squashed.migrations[-1].tag == found.tag:
            raise UsageProblem(
                f"{found.tag} replaces other migrations, so it cannot be dropped.",
                hint="Bring the folder from before `db squash` back from version control.",
            )
        if tag is not None and tag not in {migration.tag for migration in self.migrations}:
            raise UsageProblem(
                f"There is no migration `{tag}` in {self.path}.", hint="`db status` lists the tags."
            )
        if tag not in {None, found.tag}:
            raise UsageProblem(
                f"Only the newest migration can be dropped, and that is {found.tag}.",
                hint=f"Run `db drop {found.tag}` first.",
            )
        return found

    def drop(self, newest: Migration) -> tuple[Path, ...]:
        """Remove the newest migration, which no database may have applied; return the removed files."""
        from local_mcp_gateway.migrate.folder_edits import drop_migration

        return drop_migration(self, newest)


def read_folder(path: Path, *, journal_new_files: bool = False) -> Folder:
    """Read the folder; raises (MigrationsFolderProblem) only if it does not exist.

    With `journal_new_files` a file without a journal entry is a migration at the end, with `idx` NEW
    and the present time, instead of a refusal.
    """
    names, subfolders = _listing(path)
    if "meta" not in subfolders or not (path / "meta" / "_journal.json").exists():
        folders = [name for name in subfolders if (path / name / "migration.sql").exists()]
        if folders:
            return _read_v1(path, sorted(folders), prismas=(path / PRISMAS_LOCK).exists())
        journal = Journal((), ())
    else:
        journal = read_journal(path)
    migrations, absent, problems = _read_entries(path, journal.entries, names)
    extra = [
        name
        for name in names.difference([entry.tag + ".sql" for entry in journal.entries])
        if not name.endswith(".down.sql")
    ]
    if extra:
        extra, others = _without_others(extra, names)
        problems += others
    if journal_new_files and not journal.problems:
        from local_mcp_gateway.migrate.file_kinds import down_part_inside

        new, _, more = _read_entries(path, _new_entries(extra, migrations), names)
        more += [p for m in new if (p := down_part_inside(m.name, m.sql)) is not None]
        return Folder(path, (*migrations, *new), (), (*journal.problems, *problems, *more), absent)
    unjournaled = (
        *(path / name for name in extra),
        *_files_below(path, subfolders),
    )
    if journal.problems:  # its entries are unknown, so nothing can be said about the rest
        unjournaled = ()
    return Folder(path, migrations, unjournaled, (*journal.problems, *problems), absent)


def _without_others(extra: list[str], names: set[str]) -> tuple[list[str], list[Problem]]:
    """Return the files that can be migrations, in order, and the problems of the others."""
    from local_mcp_gateway.migrate.file_kinds import (  # most folders have no other files
        down_files,
        in_order,
        not_run_here,
        unadopted_way_back,
    )

    back = down_files(names)
    problems: list[Problem] = []
    steps: list[str] = []
    for name in sorted(extra, key=in_order):
        problem = unadopted_way_back(name) if name in back else not_run_here(name)
        if problem is None:
            steps.append(name)
        else:
            problems.append(problem)
    return steps, problems


def _files_below(path: Path, subfolders: list[str]) -> Iterable[Path]:
    """Yield the migrations with a folder each (Drizzle 1.x, Prisma, Diesel), which are not ignored."""
    for name in sorted(set(subfolders) - {"meta"}):
        files = (path / name / file for file in ("migration.sql", "up.sql"))
        yield from (file for file in files if file.exists())


def read_bytes(file: str) -> bytes:
    """Read a whole file; a descriptor costs half as much as a buffered file object."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        data = os.read(descriptor, _CHUNK_BYTES)
        if not data or len(data) == _CHUNK_BYTES:  # anything but a regular file fails here
            require_kind(os.fstat(descriptor), file)
        if len(data) == _CHUNK_BYTES:
            parts = [data]
            while parts[-1]:
                parts.append(os.read(descriptor, _FILE_BYTES))
            data = b"".join(parts)
        return data
    finally:
        os.close(descriptor)


def down_text(migration: Migration) -> str | None:
    """Return the text of the down file, None if there is none; raises HistoryRefused."""
    if migration.down_file is None:
        return None
    try:
        return read_bytes(migration.down_file).decode()
    except UnicodeDecodeError as error:
        raise HistoryRefused([not_utf8(migration.tag, migration.down_name, error)]) from None


def _listing(path: Path) -> tuple[set[str], list[str]]:
    try:
        found = os.listdir(path)  # noqa: PTH208  names are enough, and cost half
    except FileNotFoundError:
        raise MigrationsFolderProblem(
            f"There is no migrations folder {path}.", path=str(path)
        ) from None
    except NotADirectoryError:
        raise MigrationsFolderProblem(
            f"{path} is a file, not a migrations folder.", path=str(path)
        ) from None
    except OSError as error:
        raise MigrationsFolderProblem(
            f"The migrations folder {path} cannot be read: {error.strerror}.", path=str(path)
        ) from error
    found = [name for name in found if not name.startswith(".")]
    names = {name for name in found if name.endswith(".sql")}
    others = [name for name in found if name not in names]
    return names, [name for name in others if (path / name).is_dir()]


def _read_entries(
    path: Path, entries: Iterable[Entry], names: set[str]
) -> tuple[tuple[Migration, ...], tuple[Entry, ...], list[Problem]]:
    """Read and hash the file of each entry; this loop is the main cost of a start with nothing pending."""
    migrations: list[Migration] = []
    absent: list[Entry] = []
    problems: list[Problem] = []
    prefix = f"{path}{os.sep}"
    downs = {name for name in names if name.endswith(".down.sql")}
    for idx, tag, when in entries:
        name = tag + ".sql"
        if name not in names:
            absent.append(Entry(idx, tag, when))
            problems.append(gone(tag, name))
            continue
        found = _read_file(tag, name, prefix + name, problems)
        if found is not None:
            down = prefix + tag + ".down.sql" if downs and tag + ".down.sql" in downs else None
            migrations.append(Migration(tag, idx, when, *found, prefix + name, down))
    return tuple(migrations), tuple(absent), problems


def _read_v1(path: Path, folders: list[str], *, prismas: bool) -> Folder:
    """Read the format of Drizzle 1.x and Prisma, `<YYYYMMDDHHMMSS>_<name>/migration.sql`, by name.

    Prisma takes any name, and its documentation begins with `0_init`: one without a date comes right after
    the one before it.
    """
    migrations: list[Migration] = []
    problems: list[Problem] = [*(prisma_problems(path) if prismas else ())]
    when = 0
    for idx, tag in enumerate(folders):
        file = path / tag / "migration.sql"
        stamp = _stamp_ms(tag) if _STAMPED.fullmatch(tag) else None
        if stamp is None and not prismas:
            problems.append(bad_stamp(tag))
            continue
        when = when + 1 if stamp is None else stamp
        found = _read_file(tag, f"{tag}/migration.sql", str(file), problems)
        if found is not None:
            down = path / tag / "down.sql"
            below = str(down) if down.exists() else None
            migrations.append(Migration(tag, idx, when, *found, str(file), below))
    return Folder(path, tuple(migrations), (), tuple(problems), is_v1=True)


def _read_file(tag: str, name: str, file: str, problems: list[Problem]) -> tuple[str, str] | None:
    """Return (hash, text) of one file; add its faults to `problems`."""
    try:
        data = read_bytes(file)
        sql = data.decode()
    except OSError as error:
        problems.append(unreadable(tag, name, error))
        return None
    except UnicodeDecodeError as error:
        problems.append(not_utf8(tag, name, error))
        sql = ""
    if "\0" in sql:
        problems.append(holds_nul(tag, name))
    return sha256(data).hexdigest(), sql


def _stamp_ms(tag: str) -> int | None:
    import calendar  # only this format needs it

    try:
        return calendar.timegm(time.strptime(tag[:14], "%Y%m%d%H%M%S")) * 1000
    except ValueError:
        return None


def _new_entries(names: list[str], migrations: tuple[Migration, ...]) -> list[Entry]:
    """Place files without a journal entry at the end, each later than all before it."""
    when = max([now_ms(), *(migration.when + 1 for migration in migrations)])
    return [
        Entry(NEW, name.removesuffix(".sql"), when + offset) for offset, name in enumerate(names)
    ]
