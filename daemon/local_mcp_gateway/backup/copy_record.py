"""Copy the backups that are not off the machine yet, and record what is there and why the last run failed.

The record is a file in the backup folder, `NAME-copies.json`, so that lists and checks need no network. Every run
compares it with what is there. If it is lost, a new origin begins: older copies stay, and nobody here removes them.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from local_mcp_gateway.backup.files import (
    backup_folder,
    backup_pattern,
    make_folder,
    named_failures,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.backup.manifest import (
    Backup,
    UnusableBackup,
    find_backup,
    list_backups,
    parse_manifest,
    retained,
)
from local_mcp_gateway.database import UNWATCHED, Run, flush
from local_mcp_gateway.errors import (
    BackupDamaged,
    BackupForeign,
    GatewayError,
    Interrupted,
    NoSuchBackup,
)
from local_mcp_gateway.formats import iso
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.regular_file import read_bytes, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from pyrage.x25519 import Recipient

    from local_mcp_gateway.backup.copies import CopyStore
    from local_mcp_gateway.backup.manifest import Retention


@frozen
class CopyFailure:
    """Why the last run did not finish."""

    at: str
    code: str
    message: str
    hint: str


@frozen
class CopyRecord:
    """The content of the file."""

    origin: str = ""
    """Identifies this backup folder in the names of copies; empty: none was made yet."""
    url: str = ""
    copied: Mapping[str, str] = field(default_factory=dict)
    """The names of the backups that are at the URL, and since when."""
    failure: CopyFailure | None = None
    listed_at: str = ""
    """When it was last compared with what is there."""

    def at(self, url: str) -> CopyRecord:
        """Return what it says of this place: nothing, if it was written for another."""
        return (
            self
            if self.url == url
            else replace(self, url=url, copied={}, failure=None, listed_at="")
        )


def read_record(database: Path, folder: Path | None = None) -> CopyRecord:
    """Return the record; an empty one where there is none or it is not valid."""
    return _load(_path(database, folder))


def _load(path: Path) -> CopyRecord:
    try:
        content: Any = parse_json(read_bytes(path))
        failure = content["failure"]
        return CopyRecord(
            str(content["origin"]),
            str(content["url"]),
            {str(name): str(at) for name, at in content["copied"].items()},
            None if failure is None else CopyFailure(**{key: str(failure[key]) for key in _KEYS}),
            str(content.get("listed_at", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return CopyRecord()


_KEYS = ("at", "code", "message", "hint")


def _path(database: Path, folder: Path | None) -> Path:
    return backup_folder(database, folder) / f"{database.resolve().stem}-copies.json"


def _write(path: Path, record: CopyRecord) -> None:
    """Replace the record, durably. Killed before: it is as it was."""
    failure = record.failure
    content = {
        "origin": record.origin,
        "url": record.url,
        "copied": dict(record.copied),
        "failure": failure and {key: getattr(failure, key) for key in _KEYS},
        "listed_at": record.listed_at,
    }
    prepared = temporary_path(path)
    with named_failures(path, doing="write"), temporary_file(prepared) as descriptor:
        write_all(descriptor, (json.dumps(content, indent=1) + "\n").encode())
        os.fsync(descriptor)
        prepared.rename(path)
        flush(path.parent)


def not_copied(backups: Sequence[Backup], record: CopyRecord) -> tuple[Backup, ...]:
    """Return the backups that the record has no copy of."""
    return tuple(backup for backup in backups if backup.name not in record.copied)


class Copy(NamedTuple):
    """A copy off the machine, as its manifest says."""

    backup: Backup
    object_name: str
    bytes: int
    sha256: str
    """Of the encrypted object."""
    origin: str
    host: str
    copied_at: str

    def as_json(self) -> dict[str, object]:
        """Return what `db backup copies --json` prints."""
        shown = self.backup.as_json()
        del shown["path"]
        return {
            **shown,
            "copied_at": self.copied_at,
            "copy_bytes": self.bytes,
            "host": self.host,
            "origin": self.origin,
        }


class CopyCatalog(NamedTuple):
    """What is off the machine, newest first."""

    copies: tuple[Copy, ...]
    unusable: tuple[UnusableBackup, ...]
    objects: tuple[str, ...]
    """The names of all encrypted objects, those without a manifest too."""


def copy_of(catalog: CopyCatalog, database: Path, name: str, *, origin: str, url: str) -> Copy:
    """Return the copy of that name, or the newest one of the database for `latest`.

    `latest` means this machine's own (by `origin`), else those of a database of this name, if they are of
    one. Raises NoSuchBackup, or BackupForeign for one that is there and cannot be used.
    """
    if name != "latest":
        wanted = name.removesuffix(".json")
        for copy in catalog.copies:
            if copy.backup.name == wanted:
                return copy
        for unusable in catalog.unusable:
            if unusable.path.stem == wanted:
                raise BackupForeign(
                    f"The copy {wanted} at {url} cannot be used: {unusable.reason}."
                )
        raise NoSuchBackup(
            f"There is no copy {wanted!r} at {url}.", hint=f"See `db backup copies --from {url}`."
        )
    ours = backup_pattern(database)
    fitting = [copy for copy in catalog.copies if ours.fullmatch(copy.backup.name)]
    fitting = [copy for copy in fitting if copy.origin == origin] or fitting
    if not fitting:
        others = f" There are {len(catalog.copies)} of other databases." if catalog.copies else ""
        raise NoSuchBackup(
            f"No copy at {url} is of a database {database.name}.{others}",
            hint=f"See `db backup copies --from {url}`, and give a name.",
        )
    if len({copy.origin for copy in fitting}) > 1:
        raise NoSuchBackup(
            f"The copies at {url} are of several databases {database.name}, so `latest` is not clear.",
            hint=f"See `db backup copies --from {url}`, and give a name.",
        )
    return fitting[0]


FACTS: Final = {"object": str, "bytes": int, "sha256": str, "origin": str, "host": str, "copied_at": str}  # fmt: skip


def parse_copy(path: Path, text: bytes) -> Copy | UnusableBackup | None:
    """Return what a manifest says; None for a file of another program."""
    backup = parse_manifest(path, text)
    try:
        content: Any = parse_json(text)
    except ValueError:
        return backup if isinstance(backup, UnusableBackup) else None
    facts = content.get("copy") if isinstance(content, dict) else None
    if not isinstance(facts, dict):
        return None
    if isinstance(backup, UnusableBackup):
        return backup
    if any(type(facts.get(key)) is not kind for key, kind in FACTS.items()):
        return UnusableBackup(path, "its manifest does not name the object of the copy")
    return Copy(backup, *(facts[key] for key in FACTS))


@frozen
class Copied:
    """What one run did."""

    copies: tuple[Copy, ...]
    removed: tuple[str, ...]
    kept: int


def copy_backups(
    database: Path,
    folder: Path | None,
    open_store: Callable[[], tuple[CopyStore, Sequence[Recipient]]],
    *,
    url: str,
    host: str,
    retention: Retention,
    names: Sequence[str] = (),
    on_copy: Callable[[Copy], None] = lambda _: None,
    run: Run = UNWATCHED,
) -> Copied:
    """Copy every backup (or those `names`) that is not at the place yet, oldest last, and prune there.

    `open_store` returns the place and the keys to encrypt to; what it raises counts as a failure too. Needs no
    lock of the database, and only reads the backups; raises DatabaseBusy while another command copies. A damaged
    backup is passed over until the others are copied. A failure is recorded and raised.
    """
    path = _path(database, folder)
    chosen = [find_backup(database, name, folder) for name in names]
    with _taking_turns(path) as known:
        record = replace(known.at(url), origin=known.origin or secrets.token_hex(6))
        try:
            store, recipients = open_store()
            catalog = store.read(run=run)
            record = replace(record, copied=_of(catalog, record.origin), listed_at=iso())
            _write(path, record)
            damaged: BackupDamaged | None = None
            copies = []
            for backup in chosen or list_backups(database, folder):
                if backup.name in record.copied:
                    continue
                try:
                    copy = store.send(
                        backup, origin=record.origin, host=host, recipients=recipients, run=run
                    )
                except BackupDamaged as error:
                    damaged = error
                    continue
                copies.append(copy)
                record = replace(record, copied={**record.copied, backup.name: copy.copied_at})
                _write(path, record)
                on_copy(copy)
            removed, kept = _thin_out(store, record, retention, list_backups(database, folder), run)
            gone = {name: at for name, at in record.copied.items() if name not in removed}
            record = replace(record, copied=gone, failure=None)
            if damaged is not None:
                raise damaged
        except Interrupted:
            raise
        except GatewayError as error:
            failure = CopyFailure(iso(), error.code, error.message, error.hint)
            _write(path, replace(record, failure=failure))
            raise
        _write(path, record)
    return Copied(tuple(copies), removed, kept)


@contextmanager
def _taking_turns(path: Path) -> Iterator[CopyRecord]:
    """Keep other commands from copying at the same time; yield the record."""
    with ExitStack() as ended_after:
        with named_failures(path.parent, doing="write into"):
            make_folder(path.parent)
            ended_after.enter_context(temporary_file(temporary_path(path.with_suffix(".turn"))))
        yield _load(path)


def _of(catalog: CopyCatalog, origin: str) -> dict[str, str]:
    return {copy.backup.name: copy.copied_at for copy in catalog.copies if copy.origin == origin}


def _thin_out(
    store: CopyStore,
    record: CopyRecord,
    retention: Retention,
    here: Sequence[Backup],
    run: Run,
) -> tuple[tuple[str, ...], int]:
    """Remove the copies of this origin that the policy keeps neither there nor here.

    One with secrets in plain goes with the backup: who removed that wanted them gone.
    """
    catalog = store.read(run=run)
    store.tidy(catalog, record.origin)
    ours = [copy for copy in catalog.copies if copy.origin == record.origin]
    kept = _kept([copy.backup for copy in ours], retention, {backup.name for backup in here})
    doomed = [copy for copy in ours if copy.backup.name not in kept]
    for copy in doomed:
        run.checkpoint("while copies were removed")
        store.remove(copy)
    return tuple(copy.backup.name for copy in doomed), len(ours) - len(doomed)


def _kept(copies: Sequence[Backup], retention: Retention, here: Collection[str]) -> set[str]:
    kept = {backup.name for backup in retained(copies, retention, datetime.now(UTC))} | set(here)
    return {
        copy.name
        for copy in copies
        if copy.name in kept and (not copy.plain_secrets or copy.name in here)
    }
