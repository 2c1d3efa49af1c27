"""The manifest next to each backup: its contents and hash, listing, and retention.

A manifest is written after its backup is durable and is the only thing that lists it. It is read as
untrusted input: every file becomes a `Backup` or a named reason why not.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import compress
from operator import not_
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from local_mcp_gateway.backup.files import (
    DELISTED,
    backup_folder,
    backup_pattern,
    is_moment,
    named_failures,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.database import flush
from local_mcp_gateway.errors import BackupForeign, DiskProblem, NoSuchBackup
from local_mcp_gateway.formats import iso
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.regular_file import read_bytes, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


APPLICATION = "local-mcp-gateway"
FORMAT = 1
LARGEST_MANIFEST_BYTES = 16 << 20
REFUSED_KEEPS = 5
"""For how many of the newest migrations a refused start keeps the last backup from before."""


@frozen
class Attempts:
    """Later attempts that found the database as this backup has it, and so made none of their own."""

    before: str | None
    """As `Backup.before`; all attempts at the same migration are counted together."""
    count: int
    last_at: str


class Backup(NamedTuple):
    """A backup that was whole and checked when its manifest was written."""

    path: Path
    name: str
    bytes: int
    sha256: str
    created_at: str
    before: str | None
    """The tag of the first migration that was pending then; None: made on request."""
    fingerprint: str
    """Of the schema in it."""
    applied: tuple[str, ...]
    """Tags of the migrations in it, in order."""
    program_version: str
    verified: bool
    database: str | None
    """The real path of the database that it was made of; None: made by an early version."""
    damage: str | None = None
    """What was wrong with an index of the database when it was made. Then it is listed as unusable."""
    attempts: tuple[Attempts, ...] = ()
    plain_secrets: bool = False
    """It holds tokens and keys of servers that nobody has sealed."""

    @property
    def last_before(self) -> str | None:
        """Return the first migration that was pending at the last attempt; None: made on request."""
        return self.attempts[-1].before if self.attempts else self.before

    @property
    def manifest(self) -> Path:
        """Return where its manifest is."""
        return self.path.with_suffix(".json")

    def as_json(self) -> dict[str, object]:
        """Return what `db backup list --json` prints, paths as text."""
        return {
            "name": self.name,
            "path": str(self.path),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "created_at": self.created_at,
            "before": self.before,
            "fingerprint": self.fingerprint,
            "applied": list(self.applied),
            "program_version": self.program_version,
            "verified": self.verified,
            "database": self.database,
            "damage": self.damage,
            "attempts": [
                {"before": one.before, "count": one.count, "last_at": one.last_at}
                for one in self.attempts
            ],
            "plain_secrets": self.plain_secrets,
        }


class UnusableBackup(NamedTuple):
    """A file in the backup folder that looks like a backup of this database and cannot be used."""

    path: Path
    reason: str


class BackupCatalog(NamedTuple):
    """The backups in a folder of one database, newest first."""

    backups: tuple[Backup, ...]
    unusable: tuple[UnusableBackup, ...]
    foreign: tuple[Backup, ...] = ()
    """Those of other databases of the same name."""


def read_manifest(path: Path) -> Backup | UnusableBackup:
    """Read one manifest; its backup must be there with the recorded size. The hash is not checked."""
    try:
        if path.stat().st_size > LARGEST_MANIFEST_BYTES:
            return UnusableBackup(path, "its manifest is too large to be one")
        backup = parse_manifest(path, read_bytes(path))
    except OSError as error:
        return UnusableBackup(path, f"its manifest cannot be read ({error.strerror})")
    if isinstance(backup, Backup) and backup.damage is not None:
        return UnusableBackup(backup.path, f"it was made of a damaged database ({backup.damage})")
    return backup if isinstance(backup, UnusableBackup) else _present(backup)


def parse_manifest(path: Path, text: bytes) -> Backup | UnusableBackup:
    """Return what a manifest of this path says, whether its backup is there or not."""
    try:
        content = parse_json(text)
    except ValueError:
        return UnusableBackup(path, "its manifest is not valid JSON (cut off or edited)")
    if not isinstance(content, dict):
        return UnusableBackup(path, "its manifest is not a JSON object")
    if content.get("application") != APPLICATION:
        return UnusableBackup(path, "its manifest was written by another application")
    if content.get("format") != FORMAT:
        return UnusableBackup(
            path, f"its manifest has format {content.get('format')!r}, of a newer version"
        )
    return _typed(path, content)


def _typed(path: Path, content: Mapping[str, object]) -> Backup | UnusableBackup:
    wanted: dict[str, type] = {
        "bytes": int, "sha256": str, "created_at": str, "fingerprint": str, "applied": list,
        "program_version": str, "verified": bool,
    }  # fmt: skip
    for key, kind in wanted.items():
        if type(content.get(key)) is not kind:
            return UnusableBackup(path, f"its manifest has no usable `{key}`")
    before, database, applied = content.get("before"), content.get("database"), content["applied"]
    if not (before is None or isinstance(before, str)):
        return UnusableBackup(path, "its manifest has no usable `before`")
    if not (database is None or isinstance(database, str)):
        return UnusableBackup(path, "its manifest has no usable `database`")
    if not is_moment(str(content["created_at"])):
        return UnusableBackup(path, "its manifest has no usable `created_at`")
    assert isinstance(applied, list)
    if not all(isinstance(tag, str) for tag in applied):
        return UnusableBackup(path, "its manifest has no usable `applied`")
    damage = content.get("damage")
    if not (damage is None or isinstance(damage, str)):
        return UnusableBackup(path, "its manifest has no usable `damage`")
    attempts = _attempts(content.get("attempts", []))  # early versions recorded none
    if attempts is None:
        return UnusableBackup(path, "its manifest has no usable `attempts`")
    values: dict[str, Any] = {key: content[key] for key in wanted if key != "applied"}
    file = path.with_suffix(".db")
    return Backup(
        path=file,
        name=file.stem,
        before=before,
        applied=tuple(applied),
        database=database,
        damage=damage,
        attempts=attempts,
        plain_secrets=content.get("plain_secrets") is True,  # early versions said nothing
        **values,  # checked above
    )


def _attempts(content: object) -> tuple[Attempts, ...] | None:
    """Return what a manifest says about attempts; None if it is not valid."""
    if not isinstance(content, list):
        return None
    found = []
    for item in content:
        match item:
            case {"before": str() | None as before, "count": int(count), "last_at": str(last_at)}:
                found.append(Attempts(before, count, last_at))
            case _:
                return None
    return tuple(found)


def _present(backup: Backup) -> Backup | UnusableBackup:
    try:
        size = backup.path.stat().st_size
    except OSError as error:
        return UnusableBackup(backup.path, f"the file cannot be read ({error.strerror})")
    if size != backup.bytes:
        return UnusableBackup(
            backup.path,
            f"the file has {size} bytes instead of {backup.bytes} (cut off or replaced)",
        )
    return backup


def is_of(backup: Backup, database: Path) -> bool:
    """Return whether a backup with a matching name was made of this database, not of a namesake.

    A database may have been moved since, with its backups or without: a backup that belongs to no other
    existing database counts as its own.
    """
    return _is_of(backup, database.resolve(), backup_folder(database))


def _is_of(backup: Backup, real: Path, beside: Path) -> bool:
    if backup.database is None:
        return True
    made_of = Path(backup.database)
    is_beside = made_of.name == real.name and backup.path.parent == beside
    return made_of == real or is_beside or not made_of.exists()


def read_catalog(database: Path, folder: Path | None = None) -> BackupCatalog:
    """Read every manifest of this database; reads only, takes no lock, needs no database."""
    ours_only = backup_pattern(database)
    try:
        entries = sorted(backup_folder(database, folder).iterdir())
    except OSError:  # no folder yet, or not readable: nothing to list
        return BackupCatalog((), ())
    ours = [path for path in entries if ours_only.fullmatch(path.stem)]
    manifests = {path for path in ours if path.suffix == ".json"}
    found = [read_manifest(path) for path in sorted(manifests)]
    found += [
        UnusableBackup(path, "it has no manifest")
        for path in ours
        if path.suffix == ".db" and path.with_suffix(".json") not in manifests
    ]
    backups = [item for item in found if isinstance(item, Backup)]
    backups.sort(key=lambda backup: (backup.created_at, backup.name), reverse=True)
    real, beside = database.resolve(), backup_folder(database)
    own = [_is_of(backup, real, beside) for backup in backups]
    return BackupCatalog(
        backups=tuple(compress(backups, own)),
        unusable=tuple(item for item in found if isinstance(item, UnusableBackup)),
        foreign=tuple(compress(backups, map(not_, own))),
    )


def list_backups(database: Path, folder: Path | None = None) -> tuple[Backup, ...]:
    """Return the usable backups of a database, newest first; checks manifests and sizes, not hashes."""
    return read_catalog(database, folder).backups


def find_backup(database: Path, name: str, folder: Path | None = None) -> Backup:
    """Return the backup of that name (or file name, or path), or the newest for `latest`.

    Raises NoSuchBackup, or BackupForeign for one that is there and cannot be used.
    """
    listing = read_catalog(database, folder)
    if name == "latest":
        if listing.backups:
            return listing.backups[0]
        raise NoSuchBackup(
            f"There is no usable backup of {database}.", hint="See `db backup list`."
        )
    wanted = Path(name).name
    for suffix in (".db", ".json"):
        wanted = wanted.removesuffix(suffix)
    if "/" in name:
        found = read_manifest(Path(name).absolute().with_name(wanted + ".json"))
        if isinstance(found, Backup):
            return found
        raise BackupForeign(f"The backup {name} cannot be used: {found.reason}.")
    for backup in listing.backups:
        if backup.name == wanted:
            return backup
    raise _why_not(database, wanted, listing)


def _why_not(database: Path, name: str, listing: BackupCatalog) -> BackupForeign | NoSuchBackup:
    """Return why no usable backup of the database has this name."""
    for unusable in listing.unusable:
        if unusable.path.stem == name:
            return BackupForeign(f"The backup {name} cannot be used: {unusable.reason}.")
    for backup in listing.foreign:
        if backup.name == name:
            return NoSuchBackup(
                f"The backup {name} was made of another database, {backup.database}.",
                hint=f"To put it in this one's place anyway: `db restore {backup.path}`.",
            )
    return NoSuchBackup(f"There is no backup {name!r} of {database}.")


def publish(backup: Backup, temporary: Path) -> None:
    """Rename a flushed backup and its manifest to their final names; both are durable on return.

    The manifest is written and flushed first. Killed before the first rename: nothing is listed. Killed
    between the two: `clean_up` does the second. On an error neither name remains.
    """
    listed = backup.manifest
    with _manifest_file(backup) as prepared, ExitStack() as undo:
        undo.callback(backup.path.unlink, missing_ok=True)
        undo.callback(listed.unlink, missing_ok=True)
        temporary.rename(backup.path)
        flush(backup.path.parent)
        prepared.rename(listed)
        flush(backup.path.parent)
        undo.pop_all()


def record_attempt(backup: Backup, before: str | None) -> Backup:
    """Record that another attempt would have backed up the same content; durable on return.

    Killed before the rename: the manifest is as it was.
    """
    known = next((one for one in backup.attempts if one.before == before), None)
    others = tuple(one for one in backup.attempts if one is not known)
    count = 1 + (known.count if known else 0)
    return _rewritten(backup._replace(attempts=(*others, Attempts(before, count, iso()))))


def mark_plain_secrets(backup: Backup) -> Backup:
    """Record that the backup holds secrets in plain; durable on return. Killed before: as it was."""
    return _rewritten(backup._replace(plain_secrets=True))


def _rewritten(backup: Backup) -> Backup:
    """Replace the manifest by what the backup says now."""
    with (
        named_failures(backup.path, doing="write the manifest of"),
        _manifest_file(backup) as prepared,
    ):
        prepared.rename(backup.manifest)
        flush(backup.manifest.parent)
    return backup


def manifest_text(backup: Backup, **also: object) -> bytes:
    """Return the manifest of a backup, with what else is to be in it."""
    content = {"application": APPLICATION, "format": FORMAT, **backup.as_json(), **also}
    del content["path"]
    return (json.dumps(content, indent=1) + "\n").encode()


@contextmanager
def _manifest_file(backup: Backup) -> Iterator[Path]:
    """Write and flush a manifest under its temporary name; remove it unless the block renames it."""
    text = manifest_text(backup)
    prepared = temporary_path(backup.manifest)
    with temporary_file(prepared) as descriptor:
        write_all(descriptor, text)
        os.fsync(descriptor)
        if os.pread(descriptor, len(text) + 1, 0) != text:
            raise DiskProblem(f"The manifest {prepared} does not read back as written.")
        yield prepared


class Retention(NamedTuple):
    """How many backups the user wants to keep; of several with the same content, only the newest counts."""

    keep_last: int = 10
    """How many of the newest to keep."""
    keep_daily_days: int = 14
    """For how many days to keep the newest of each UTC day as well."""


def retained(
    backups: Sequence[Backup],
    policy: Retention,
    now: datetime,
    *,
    refused: bool = False,
) -> tuple[Backup, ...]:
    """Return the backups to keep, newest first. Pure.

    Whatever the policy says these stay: the newest, the newest made before a migration, and the last one
    from before the newest migration that any backup holds (later ones may all be of attempts that
    failed). After a `refused` start these stay for each of the newest five migrations: it brought
    nothing for which they could go.
    """
    ordered = sorted(backups, key=_age, reverse=True)
    distinct = list({backup.sha256: backup for backup in reversed(ordered)}.values())
    distinct.sort(key=_age, reverse=True)
    kept = {backup.name for backup in distinct[: max(policy.keep_last, 1)]}
    kept |= {backup.name for backup in _one_a_day(distinct, policy.keep_daily_days, now)}
    kept |= {backup.name for backup in [b for b in ordered if b.last_before is not None][:1]}
    kept |= {backup.name for backup in _before_migrations(ordered, REFUSED_KEEPS if refused else 1)}
    return tuple(backup for backup in ordered if backup.name in kept)


def _age(backup: Backup) -> tuple[datetime, str]:
    return datetime.fromisoformat(backup.created_at), backup.name


def _one_a_day(ordered: Sequence[Backup], days: int, now: datetime) -> Iterable[Backup]:
    seen: set[str] = set()
    for backup in ordered:
        day = backup.created_at[:10]
        if day not in seen and datetime.fromisoformat(backup.created_at) > now - timedelta(
            days=days
        ):
            seen.add(day)
            yield backup


def _before_migrations(ordered: Sequence[Backup], count: int) -> Iterable[Backup]:
    """Yield the last backup from before each of the newest migrations."""
    newest = next((backup.applied for backup in ordered if backup.applied), ())
    for tag in newest[-count:]:
        yield from [backup for backup in ordered if tag not in backup.applied][:1]


def prune(
    backups: Sequence[Backup],
    policy: Retention,
    now: datetime,
    *,
    refused: bool = False,
) -> tuple[Backup, ...]:
    """Remove the backups that the policy does not keep; return them."""
    kept = {backup.name for backup in retained(backups, policy, now, refused=refused)}
    removed = tuple(backup for backup in backups if backup.name not in kept)
    remove_backups(removed)
    return removed


def remove_backups(backups: Iterable[Backup]) -> None:
    """Remove these backups.

    A backup is delisted first; if killed after that, the next cleanup removes its file.
    """
    for backup in backups:
        with named_failures(backup.path, doing="remove the backup"):
            delisted = backup.manifest.with_name(f".{backup.manifest.name}{DELISTED}")
            backup.manifest.rename(delisted)
            flush(backup.path.parent)
            backup.path.unlink(missing_ok=True)
            delisted.unlink(missing_ok=True)
