"""Names and paths of the files around a database: backups, manifests, temporary and replaced files.

Finished files have plain names. Everything that a crash may leave behind begins with a dot and the
database's name and ends with one of three suffixes, so `cleanup` can tell it from a user's file.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

TEMPORARY = ".tmp"
"""Being written (backup, manifest, staged database, scratch copy); its writer holds a flock on it."""
DELISTED = ".pruned"
"""A delisted manifest, whose backup is about to be removed."""
SIDE_FILES = ("-wal", "-shm", "-journal")
"""The suffixes of the files that SQLite keeps beside a database."""
LONGEST_TAG_BYTES = 100
"""How many bytes of a migration's tag the name of a backup holds."""
DEFAULT_KEEP_ASIDE = 3
"""How many replaced databases stay beside the one in use."""


def backup_folder(database: Path, folder: Path | None = None) -> Path:
    """Return where the backups of a database are: the given folder, or `backups` beside its real path."""
    return folder if folder is not None else database.resolve().parent / "backups"


def stamp(moment: datetime) -> str:
    """Return a UTC timestamp for file names, in milliseconds, that sorts by time."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"


def backup_name(database: Path, moment: datetime, before: str | None) -> str:
    """Return the name (no suffix) of a backup: `<database>-<stamp>[-before-<tag>]`.

    A tag may be longer than a file name, which holds 255 bytes with what comes before and after.
    """
    if before is None:
        return f"{database.resolve().stem}-{stamp(moment)}"
    tag = re.sub(r"[^\w.-]", "_", before).encode()[:LONGEST_TAG_BYTES].decode(errors="ignore")
    return f"{database.resolve().stem}-{stamp(moment)}-before-{tag}"


def backup_pattern(database: Path) -> re.Pattern[str]:
    """Return the pattern of this database's backup names; `app-two` does not match for `app`."""
    return re.compile(
        re.escape(database.resolve().stem) + r"-(?P<stamp>\d{8}T\d{6}(\.\d+)?Z)(-.*)?"
    )


def next_moment(database: Path, folder: Path, now: datetime) -> datetime:
    """Return the time for the next backup's name: now, or just after the newest if that is later.

    So a clock that was set back does not make the newest backup look like the oldest.
    """
    ours = backup_pattern(database)
    names = (ours.fullmatch(path.stem) for path in folder.iterdir())
    stamps = [found["stamp"] for found in names if found]
    newest = max(map(_moment, stamps), default=None)
    return now if newest is None else max(now, newest + timedelta(milliseconds=1))


def is_moment(text: str) -> bool:
    """Return whether a text is an ISO 8601 time with its offset from UTC."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _moment(stamp: str) -> datetime:
    # A name that the user chose may look like a timestamp.
    return datetime.fromisoformat(stamp) if is_moment(stamp) else datetime.min.replace(tzinfo=UTC)


def temporary(target: Path) -> Path:
    """Return the name under which the target is written before it is renamed."""
    return target.with_name(f".{target.name}{TEMPORARY}")


def staged(database: Path) -> Path:
    """Return the name of the file that is about to replace the database."""
    return temporary(database.resolve())


def set_aside(database: Path, moment: datetime) -> Path:
    """Return the dated name under which a replaced database is kept, beside the new one."""
    real = database.resolve()
    return real.with_name(f"{real.stem}.replaced-{stamp(moment)}{real.suffix}")


def asides(database: Path) -> tuple[Path, ...]:
    """Return the replaced databases that are kept beside this one, newest first.

    Empty if the folder does not exist or cannot be listed: a command that needs one reports it by name.
    """
    real = database.resolve()
    pattern = re.compile(
        re.escape(real.stem) + r"\.replaced-\d{8}T\d{6}\.\d{3}Z" + re.escape(real.suffix)
    )
    try:
        found = [path for path in real.parent.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return ()
    return tuple(sorted(found, reverse=True))


def side_files(database: Path) -> tuple[Path, ...]:
    """Return where SQLite's own files of a database are, whether they exist or not."""
    return tuple(database.with_name(database.name + suffix) for suffix in SIDE_FILES)
