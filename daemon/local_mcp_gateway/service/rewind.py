"""Dev mode's way back: an applied migration was edited, deleted, or another branch was checked out.

What is applied and the folder have a common beginning; everything after it is taken back, then the
folder is applied as usual. The way back is the migrations' downs, which keep the rows of other tables;
where there is none, it is the backup from before, and the rows written since are lost: the console
says how many, and the replaced file stays beside the database. Never done by a production start.

The downs are run against a shadow of the folder as it was applied, since the real one says something
else by now.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_mcp_gateway.backup import list_backups
from local_mcp_gateway.backup.restore import restore, rows_lost
from local_mcp_gateway.errors import GatewayError, NoWayBack, ProblemCode
from local_mcp_gateway.guard.attempt import Attempt
from local_mcp_gateway.guard.down import go_back_held
from local_mcp_gateway.migrate.folder import read_folder
from local_mcp_gateway.migrate.functions import prepare
from local_mcp_gateway.migrate.journal import replace_durably
from local_mcp_gateway.migrate.ledger import GUARD_TABLES
from local_mcp_gateway.migrate.replay import replay

if TYPE_CHECKING:
    from local_mcp_gateway.guard.policy import GuardPolicy
    from local_mcp_gateway.log import Emit


@dataclass(frozen=True, slots=True)
class Shadow:
    """The migrations folder at a moment when all of it was applied."""

    texts: tuple[tuple[str, bytes], ...]
    """Tag and bytes of each migration, in their order."""
    journal: bytes

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the tags in their order."""
        return tuple(tag for tag, _ in self.texts)

    def without(self, tags: tuple[str, ...]) -> Shadow:
        """Return what is left when these tags are taken back."""
        journal = json.loads(self.journal)
        journal["entries"] = [entry for entry in journal["entries"] if entry["tag"] not in tags]
        texts = tuple((tag, text) for tag, text in self.texts if tag not in tags)
        return Shadow(texts, json.dumps(journal).encode())

    def write(self, folder: Path) -> None:
        """Write the shadow as a migrations folder."""
        (folder / "meta").mkdir(parents=True)
        (folder / "meta" / "_journal.json").write_bytes(self.journal)
        for tag, text in self.texts:
            (folder / f"{tag}.sql").write_bytes(text)


@dataclass(frozen=True, slots=True)
class Rewound:
    """What was taken back, and how."""

    tags: tuple[str, ...]
    by: str
    lost: tuple[str, ...]


def shadow_of(folder: Path) -> Shadow | None:
    """Remember the folder; None for one in Drizzle's 1.x format, which dev mode does not rewind."""
    found = read_folder(folder)
    if found.stamped or found.problems or not (folder / "meta/_journal.json").exists():
        return None
    texts = tuple((entry.tag, entry.path.read_bytes()) for entry in found.migrations)
    return Shadow(texts, (folder / "meta/_journal.json").read_bytes())


def to_take_back(shadow: Shadow, folder: Path) -> tuple[str, ...]:
    """Return the applied tags from the first one on that the folder no longer says, oldest first.

    Nothing for a folder that cannot be read as it is: a journal that is no JSON is no wish to go back.
    """
    found = read_folder(folder)
    if any(problem.code != ProblemCode.MISSING for problem in found.problems):
        return ()
    now = [(entry.tag, entry.path.read_bytes()) for entry in found.migrations]
    common = 0
    for was, said in zip(shadow.texts, now, strict=False):
        if was != said:
            break
        common += 1
    return shadow.tags[common:]


def try_in_memory(folder: Path, policy: GuardPolicy) -> None:
    """Apply the folder to an empty database in memory; raises what a real one would raise."""
    found = read_folder(folder, journal_new_files=True)
    replay(found.migrations, prepare=lambda memory: prepare(memory, policy.functions)).close()


def rewind(
    database: Path,
    folder: Path,
    shadow: Shadow,
    tags: tuple[str, ...],
    *,
    policy: GuardPolicy,
    keep_aside: int,
    emit: Emit,
) -> Rewound:
    """Take the tags back; the caller holds the lock, and has no connection open. Blocks.

    Raises NoWayBack, with the database as it was, when there is neither a down nor a backup.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="local-mcp-gateway-") as place:
            was = Path(place) / "migrations"
            shadow.write(was)
            attempt = Attempt(database, was, policy, emit)
            go_back_held(attempt, steps=len(tags), to=None)
        done = Rewound(tags, "down", ())
    except GatewayError as error:
        done = _restore(database, shadow, tags, policy, keep_aside, error)
    _forget_deleted(folder, tags)
    return done


def _restore(
    database: Path,
    shadow: Shadow,
    tags: tuple[str, ...],
    policy: GuardPolicy,
    keep_aside: int,
    reason: GatewayError,
) -> Rewound:
    """Put the newest backup from before all of the tags in the database's place."""
    kept = set(shadow.tags) - set(tags)
    backups = list_backups(database, policy.backup_folder)
    backup = next((found for found in backups if set(found.applied) <= kept), None)
    if backup is None:
        raise NoWayBack(
            f"{tags[0]} cannot be taken back: there is neither a way back nor a backup from before.",
            hint=f"Write {tags[0]}.down.sql, bring its old text back, or start afresh with `db reset`.",
        ) from reason
    lost = tuple(
        f"{change.table}: {change.rows_now - (change.rows_then or 0)}"
        for change in rows_lost(database, backup) or ()
        if change.rows_now is not None
        and change.rows_now > (change.rows_then or 0)
        and change.table not in GUARD_TABLES
    )
    restore(database, backup, keep_aside=keep_aside)
    return Rewound(tags, f"backup {backup.name}", lost)


def _forget_deleted(folder: Path, tags: tuple[str, ...]) -> None:
    """Take the journal entries of deleted files out: the author deleted the migration, not just SQL."""
    file = folder / "meta" / "_journal.json"
    journal: dict[str, Any] = json.loads(file.read_bytes())
    gone = {tag for tag in tags if not (folder / f"{tag}.sql").exists()}
    kept = [entry for entry in journal["entries"] if entry["tag"] not in gone]
    if len(kept) != len(journal["entries"]):
        journal["entries"] = kept
        replace_durably(file, json.dumps(journal, indent=2, ensure_ascii=False).encode())
