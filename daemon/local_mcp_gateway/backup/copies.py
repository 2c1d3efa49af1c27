"""Copies of backups off the machine: encrypted with age as they are sent, and listed once they are whole.

A copy is two objects at a place. `NAME.ORIGIN.TOKEN.age` is the backup; `NAME.json` is its
manifest, which names the other with its size and SHA-256, and is written only when that was read back. ORIGIN
stands for one backup folder (`copy_record`): only what has ours is ever removed. TOKEN is new at each upload,
so that two uploads of one backup never mix.

Nothing is stored twice: pyrage reads and writes Python files, so a pipe stands between it and the store, with
a thread at one end. Each side counts and hashes what went by.

Killed at any point: no manifest, so no copy, and an object without one that the next run removes. What is
there is read as untrusted input.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from local_mcp_gateway.backup.copy_record import FACTS, Copy, CopyCatalog, parse_copy
from local_mcp_gateway.backup.create import Job
from local_mcp_gateway.backup.manifest import LARGEST_MANIFEST_BYTES, UnusableBackup, manifest_text
from local_mcp_gateway.backup.objects import PIECE_BYTES, StoreError
from local_mcp_gateway.database import UNWATCHED, Run
from local_mcp_gateway.errors import BackupDamaged, CopyFailed, CopyKeyProblem, Interrupted
from local_mcp_gateway.formats import iso
from local_mcp_gateway.regular_file import open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from pyrage.x25519 import Identity, Recipient

    from local_mcp_gateway.backup.manifest import Backup
    from local_mcp_gateway.backup.objects import Objects, Place

Result = TypeVar("Result")

SEALED: Final = ".age"
_ANOTHER: Final = "Choose another one: `db backup copies --check` reads each of them."
GRACE_S: Final = 2.0
"""How long an upload may take to withdraw at a stop."""


@dataclass(frozen=True, slots=True)
class CopyStore:
    """A place for copies. Its methods block; a stop is noticed within a fraction of a second."""

    url: str
    place: Place

    def read(self, *, run: Run = UNWATCHED) -> CopyCatalog:
        """Read every manifest. Raises CopyFailed."""
        return unhurried(lambda: self._read(run), run)

    def send(
        self,
        backup: Backup,
        *,
        origin: str,
        host: str,
        recipients: Sequence[Recipient],
        run: Run = UNWATCHED,
    ) -> Copy:
        """Send a backup and return its copy, which has been read back whole.

        Raises CopyFailed, BackupDamaged if the backup here is not what its manifest says, Interrupted.
        """
        return unhurried(lambda: self._send(backup, origin, host, recipients, run), run)

    def check(self, copy: Copy, *, run: Run = UNWATCHED) -> None:
        """Read a copy in full; raises BackupDamaged unless it is what was sent. Needs no key."""

        def check() -> None:
            with self._connected(f"read {copy.object_name} at") as objects:
                self._check(objects, copy, run)

        unhurried(check, run)

    def fetch(
        self, copy: Copy, target: Path, identities: Sequence[Identity], *, run: Run = UNWATCHED
    ) -> Backup:
        """Decrypt a copy into an empty file; return the backup as it is there, compared with its manifest.

        Raises CopyKeyProblem, BackupDamaged, CopyFailed, Interrupted; then the file is of no use.
        """
        return unhurried(lambda: self._fetch(copy, target, identities, run), run)

    def remove(self, copy: Copy) -> None:
        """Remove a copy: first its manifest, so that what a kill leaves is not listed. Raises CopyFailed."""
        with self._connected("remove a copy from") as objects:
            objects.delete(f"{copy.backup.name}.json")
            objects.delete(copy.object_name)

    def tidy(self, catalog: CopyCatalog, origin: str) -> None:
        """Remove what killed uploads of this origin left. Raises CopyFailed."""
        listed = {copy.object_name for copy in catalog.copies}
        left = [name for name in catalog.objects if name not in listed and f".{origin}." in name]
        manifests = tuple(f"{name.partition(f'.{origin}.')[0]}.json." for name in left)
        with self._connected("remove what a killed upload left at") as objects:
            left += [
                name
                for name in objects.unfinished()
                if f".{origin}." in name or name.startswith(manifests)
            ]
            for name in left:
                objects.delete(name)

    def _read(self, run: Run) -> CopyCatalog:
        copies: list[Copy] = []
        unusable: list[UnusableBackup] = []
        with self._connected("list the copies at") as objects:
            sizes = objects.sizes()
            for name, size in sizes.items():
                run.checkpoint("while the copies were listed")
                if not name.endswith(".json"):
                    continue
                path = Path(name)
                if size > LARGEST_MANIFEST_BYTES:
                    unusable.append(UnusableBackup(path, "its manifest is too large to be one"))
                    continue
                text = objects.read(name)
                if text is None:  # removed since it was listed
                    continue
                read = parse_copy(path, text)
                if isinstance(read, Copy) and sizes.get(read.object_name) != read.bytes:
                    there = sizes.get(read.object_name)
                    state = "is not there" if there is None else f"has {there} bytes"
                    reason = f"its object {state} instead of {read.bytes} bytes"
                    unusable.append(UnusableBackup(path, reason))
                elif isinstance(read, Copy):
                    copies.append(read)
                elif read is not None:
                    unusable.append(read)
        copies.sort(key=lambda copy: (copy.backup.created_at, copy.backup.name), reverse=True)
        sealed = tuple(name for name in sizes if name.endswith(SEALED))
        return CopyCatalog(tuple(copies), tuple(unusable), sealed)

    def _send(
        self, backup: Backup, origin: str, host: str, recipients: Sequence[Recipient], run: Run
    ) -> Copy:
        name = f"{backup.name}.{origin}.{secrets.token_hex(4)}{SEALED}"
        sent = Counted()
        pieces = encrypted(backup, recipients, sent, run)
        with self._connected(f"copy {backup.name} to") as objects, closing(pieces):
            objects.send(name, pieces, backup.bytes)
            copy = Copy(backup, name, sent.bytes, sent.sha256, origin, host, iso())
            try:
                self._check(objects, copy, run)
                self._write_manifest(objects, copy)
            except BaseException:
                with suppress(StoreError):  # the next run tries again
                    objects.delete(name)
                raise
        return copy

    def _write_manifest(self, objects: Objects, copy: Copy) -> None:
        text = manifest_text(copy.backup, copy=dict(zip(FACTS, copy[1:], strict=True)))
        name = f"{copy.backup.name}.json"
        objects.write(name, text)
        if objects.read(name) != text:
            raise CopyFailed(f"The manifest {name} at {self.url} does not read back as written.")

    def _check(self, objects: Objects, copy: Copy, run: Run) -> None:
        read = Counted()
        for _ in _pieces(objects, copy, run, read):
            pass
        self._require_whole(copy, read)

    def _require_whole(self, copy: Copy, read: Counted) -> None:
        if (read.bytes, read.sha256) != (copy.bytes, copy.sha256):
            raise BackupDamaged(
                f"The copy of {copy.backup.name} at {self.url} is not what was sent: it was cut off or"
                " changed.",
                hint=_ANOTHER,
            )

    def _fetch(self, copy: Copy, target: Path, identities: Sequence[Identity], run: Run) -> Backup:
        sent, wanted = Counted(), copy.backup
        with (
            self._connected(f"read {copy.object_name} at") as objects,
            closing(_pieces(objects, copy, run, sent)) as pieces,
        ):
            try:
                plain = decrypt_into(target, pieces, identities, most=wanted.bytes)
            except NotDecrypted as error:
                if error.no_key:
                    self._check(objects, copy, run)  # a header that was changed looks the same
                    raise CopyKeyProblem(
                        f"The key that was given does not open the copy of {wanted.name}.",
                        hint="Give the key whose public half was in backup.copy_recipients when it was copied.",
                    ) from None
                plain = Counted()
            else:
                self._require_whole(copy, sent)
        if (plain.bytes, plain.sha256) != (wanted.bytes, wanted.sha256):
            raise BackupDamaged(
                f"The copy of {wanted.name} at {self.url} does not decrypt to what its manifest says.",
                hint=_ANOTHER,
            )
        return wanted._replace(path=target)

    @contextmanager
    def _connected(self, doing: str) -> Iterator[Objects]:
        """Connect for the block, and translate what the place says; `doing` completes "Cannot …"."""
        try:
            with self.place.connected() as objects:
                yield objects
        except StoreError as error:
            text = f"Cannot {doing} {self.url}: {error.reason}"
            raise CopyFailed(text, hint=error.hint) from error


def _pieces(objects: Objects, copy: Copy, run: Run, read: Counted) -> Generator[bytes, None, None]:
    with closing(objects.pieces(copy.object_name)) as pieces:
        for piece in pieces:
            run.checkpoint("while a copy was read")
            read.add(piece)
            run.progress("read copy", read.bytes, copy.bytes)
            yield piece


def unhurried(work: Callable[[], Result], run: Run) -> Result:
    """Do blocking work in a thread: a stop does not wait for the network."""
    job = Job(work)
    while job.is_alive():
        job.join(0.05)
        if run.stopped:
            job.join(GRACE_S)
            if job.is_alive():
                raise Interrupted("Stopped by a signal while the store had not answered.")
    return cast("Result", job.outcome())


class Counted:
    """The size and the SHA-256 of what went by."""

    def __init__(self) -> None:
        self.bytes = 0
        self._digest = hashlib.sha256()

    def add(self, piece: bytes | memoryview) -> None:
        """Count a piece."""
        self.bytes += len(piece)
        self._digest.update(piece)

    @property
    def sha256(self) -> str:
        """Return the hash so far, in hex."""
        return self._digest.hexdigest()


class _Source(io.RawIOBase):
    """A file whose content is counted as it is read."""

    def __init__(self, file: io.FileIO) -> None:
        self._file, self.read_so_far = file, Counted()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
        self.read_so_far.add(memoryview(buffer)[:count])
        return count


class _Limited(io.BufferedIOBase):
    """A file that takes no more than it should hold, and counts."""

    def __init__(self, file: io.BufferedRandom, most: int) -> None:
        self._file, self._most, self.written = file, most, Counted()

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.written.add(piece)
        if self.written.bytes > self._most:
            raise OSError("there is more than the manifest says")
        return self._file.write(piece)


def encrypted(
    backup: Backup, recipients: Sequence[Recipient], sent: Counted, run: Run
) -> Generator[bytes, None, None]:
    """Yield the encrypted backup; raises before the last piece if the file is not the backup."""
    reading, writing = os.pipe()
    job = Job(lambda: _seal_into(backup, recipients, writing))
    held: bytes | None = None
    with os.fdopen(reading, "rb", buffering=PIECE_BYTES) as pipe:
        while piece := pipe.read(PIECE_BYTES):
            run.checkpoint("while a backup was copied")
            run.progress("copy", min(sent.bytes, backup.bytes), backup.bytes)
            if held is not None:
                yield held
            sent.add(piece)
            held = piece
    job.outcome()
    if held is not None:
        yield held


def _seal_into(backup: Backup, recipients: Sequence[Recipient], writing: int) -> None:
    """Encrypt a backup into a pipe. Runs in a thread of its own."""
    import pyrage

    with io.BufferedWriter(io.FileIO(writing, "wb"), PIECE_BYTES) as pipe:
        with io.FileIO(open_file(backup.path), "rb") as file:
            source = _Source(file)
            pyrage.encrypt_io(io.BufferedReader(source, PIECE_BYTES), pipe, list(recipients))
        read = source.read_so_far
        if (read.bytes, read.sha256) != (backup.bytes, backup.sha256):
            raise BackupDamaged(
                f"The backup {backup.name} was changed after it was made: it is not copied."
            )


class NotDecrypted(Exception):
    """What was fetched does not decrypt; `no_key`: none of the keys fits, or what names them was changed."""

    def __init__(self, *, no_key: bool) -> None:
        super().__init__()
        self.no_key = no_key


def decrypt_into(
    target: Path, pieces: Iterable[bytes], identities: Sequence[Identity], most: int
) -> Counted:
    """Decrypt into an empty file, at most so many bytes; return what is in it.

    Raises NotDecrypted, or what the pieces raise.
    """
    import pyrage

    reading, writing = os.pipe()
    pouring = Job(lambda: _pour(pieces, writing))
    failed: Exception | None = None
    try:
        with os.fdopen(reading, "rb") as source, target.open("r+b") as file:
            plain = _Limited(file, most)
            pyrage.decrypt_io(source, plain, list(identities))
            file.flush()
    except (pyrage.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; a block that was changed has no number
        failed = error
    pouring.outcome()
    if failed is not None:
        raise NotDecrypted(no_key="No matching keys" in str(failed)) from failed
    return plain.written


def _pour(pieces: Iterable[bytes], writing: int) -> None:
    """Write all of it into a pipe, or until its reader closes it."""
    with suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
        for piece in pieces:
            pipe.write(piece)
