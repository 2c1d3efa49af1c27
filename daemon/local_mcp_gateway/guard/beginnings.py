"""From where a rewind can begin: states of the database before the migrations that are taken back.

In the order in which they are tried. The downs undo nothing but the migrations, so they come first; then
the newest backup from before; and before the first migration of all there was an empty database, so
there is always a beginning.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import list_backups
from local_mcp_gateway.backup.durable import copy_bytes, named_failures
from local_mcp_gateway.backup.snapshot import copy_online
from local_mcp_gateway.backup.verify import checked_hash, open_immutable
from local_mcp_gateway.errors import BackupDamaged, BackupFailed, GatewayError
from local_mcp_gateway.guard.down import go_back_on_copy
from local_mcp_gateway.log import ignore
from local_mcp_gateway.migrate.ledger import read_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from local_mcp_gateway.backup import Backup
    from local_mcp_gateway.guard.attempt import Attempt
    from local_mcp_gateway.guard.course import Course
    from local_mcp_gateway.migrate.folder import Migration


@dataclass(frozen=True, slots=True)
class Beginning:
    """A state from before."""

    by: str
    make: Callable[[Path, int], bool]
    """Write it into this empty file, of which one has a descriptor; False where it cannot be had."""
    led_on: tuple[Migration, ...]
    """What was applied since, as it was; nothing where that is not known."""
    fresh: bool = False
    """It is an empty database."""
    backup: str | None = None
    goes_back: bool = True
    """What happened since is not in its history."""


def beginnings(attempt: Attempt, course: Course) -> Iterator[Beginning]:
    """Yield what can be tried."""
    if course.complete:
        yield Beginning(
            "down",
            partial(_by_downs, attempt, course),
            course.texts_from(course.kept),
            goes_back=False,
        )
    for backup, held in _from_before(attempt, course):
        by = f"backup {backup.name}"
        led_on = course.texts_from(held)
        yield Beginning(by, partial(_by_backup, backup), led_on, backup=backup.name)
    yield Beginning("replay on an empty database", _from_nothing, course.texts_from(0), fresh=True)


def _by_downs(attempt: Attempt, course: Course, path: Path, descriptor: int) -> bool:
    del descriptor
    copy_online(attempt.database, path, None, stop=attempt.stop)
    try:
        on_copy = replace(attempt, database=path, emit=ignore)
        go_back_on_copy(on_copy, course.history, steps=len(course.tags))
    except GatewayError:
        return False  # one is missing, or does not lead back
    return True


def _by_backup(backup: Backup, path: Path, descriptor: int) -> bool:
    try:
        with named_failures("copy the backup to", path):
            copy_bytes(backup.path, descriptor)
            return checked_hash(path, "quick_check") == backup.sha256
    except (BackupDamaged, BackupFailed):
        return False  # damaged since: an older one may do


def _from_nothing(path: Path, descriptor: int) -> bool:
    del path, descriptor
    return True


def _from_before(attempt: Attempt, course: Course) -> Iterator[tuple[Backup, int]]:
    """Yield the backups, newest first, that hold nothing but the beginning that stays, and how much."""
    kept = [row.hash for row in course.rows[: course.kept]]
    for backup in list_backups(attempt.database, attempt.backup_folder):
        try:
            with (
                named_failures("read the backup", backup.path),
                closing(open_immutable(backup.path)) as reader,
            ):
                held = [row.hash for row in read_ledger(reader, brief=True)]
        except GatewayError:
            continue
        if held == kept[: len(held)]:
            yield backup, len(held)
