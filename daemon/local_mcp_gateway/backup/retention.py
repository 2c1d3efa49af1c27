"""Which backups are kept: a pure rule, and the careful removal of the others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from local_mcp_gateway.backup import names
from local_mcp_gateway.backup.durable import flush, named_failures
from local_mcp_gateway.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from local_mcp_gateway.backup.manifest import Backup


@frozen
class Retention:
    """How many backups a person wants to keep."""

    keep_last: int = 10
    """The newest ones."""
    keep_daily_days: int = 14
    """Besides, the newest of each UTC day, for this many days."""


def retained(
    backups: Sequence[Backup], policy: Retention, now: datetime, *, good: str | None = None
) -> tuple[Backup, ...]:
    """Return the backups to keep, newest first. Pure.

    Whatever the policy says these stay: the newest, the newest made before a migration, and the
    newest from before the newest migration that any backup holds (later ones may all be of attempts
    that failed). `good` names the newest that was just read back whole, which stays too: the newest
    may have been damaged since it was made.
    """
    ordered = sorted(backups, key=_age, reverse=True)
    kept: set[str | None] = {backup.name for backup in ordered[: max(policy.keep_last, 1)]}
    kept |= {backup.name for backup in _one_a_day(ordered, policy.keep_daily_days, now)}
    kept |= {
        backup.name for backup in ordered if backup.before is not None and _first(ordered, backup)
    }
    kept |= {backup.name for backup in _before_the_newest_migration(ordered)}
    kept |= {good}
    return tuple(backup for backup in ordered if backup.name in kept)


def _age(backup: Backup) -> tuple[datetime, str]:
    return datetime.fromisoformat(backup.created_at), backup.name


def _first(ordered: Sequence[Backup], backup: Backup) -> bool:
    """Tell whether it is the newest of those that were made before a migration."""
    return backup is next(item for item in ordered if item.before is not None)


def _one_a_day(ordered: Sequence[Backup], days: int, now: datetime) -> Iterable[Backup]:
    seen: set[str] = set()
    for backup in ordered:
        day = backup.created_at[:10]
        if day not in seen and datetime.fromisoformat(backup.created_at) > now - timedelta(
            days=days
        ):
            seen.add(day)
            yield backup


def _before_the_newest_migration(ordered: Sequence[Backup]) -> Iterable[Backup]:
    newest = next((backup.applied[-1] for backup in ordered if backup.applied), None)
    yield from [backup for backup in ordered if newest not in backup.applied][:1]


def prune(
    backups: Sequence[Backup], policy: Retention, now: datetime, *, good: str | None = None
) -> tuple[Backup, ...]:
    """Remove the backups that the policy does not keep; return them.

    A backup is taken off the list first; killed after that, the next sweep removes its file.
    """
    kept = {backup.name for backup in retained(backups, policy, now, good=good)}
    removed = []
    for backup in backups:
        if backup.name in kept:
            continue
        with named_failures("remove the backup", backup.path):
            delisted = backup.manifest.with_name(f".{backup.manifest.name}{names.DELISTED}")
            backup.manifest.rename(delisted)
            flush(backup.path.parent)
            backup.path.unlink(missing_ok=True)
            delisted.unlink(missing_ok=True)
        removed.append(backup)
    return tuple(removed)
