"""Copies of backups off the machine: encrypted with age as they are sent, and listed once they are whole.

A copy is two objects in a folder or a bucket. `NAME.ORIGIN.TOKEN.age` is the backup; `NAME.json` is its
manifest, which names the other with its size and SHA-256, and is written only when that was read back. ORIGIN
stands for one backup folder (`copy_record`): only what has ours is ever removed. TOKEN is new at each upload,
so that two uploads of one backup never mix.

Killed at any point: no manifest, so no copy, and an object without one that the next run removes. What is
there is read as untrusted input.
"""

from __future__ import annotations

import re
import secrets
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from local_mcp_gateway.backup.copy_record import FACTS, Copy, CopyCatalog, parse_copy
from local_mcp_gateway.backup.create import Job
from local_mcp_gateway.backup.encryption import (
    PIECE_BYTES,
    Counted,
    NotDecrypted,
    decrypt_into,
    encrypted,
)
from local_mcp_gateway.backup.manifest import LARGEST_MANIFEST_BYTES, UnusableBackup, manifest_text
from local_mcp_gateway.database import UNWATCHED, Run, flush
from local_mcp_gateway.errors import BackupDamaged, CopyFailed, CopyKeyProblem, Interrupted
from local_mcp_gateway.formats import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from obstore.store import ObjectStore
    from pyrage.x25519 import Identity, Recipient

    from local_mcp_gateway.backup.manifest import Backup

Result = TypeVar("Result")

SEALED: Final = ".age"
PART_BYTES: Final = 8 << 20
"""Of one request of an upload, unless the backup has more than `MOST_PARTS` of them."""
MOST_PARTS: Final = 9_000
"""S3 takes 10,000."""
_ANOTHER: Final = "Choose another one: `db backup copies --check` reads each of them."
GRACE_S: Final = 2.0
"""How long an upload may take to withdraw at a stop."""


@dataclass(frozen=True, slots=True)
class CopyStore:
    """A place for copies. Its methods block; a stop is noticed within a fraction of a second."""

    url: str
    objects: ObjectStore
    folder: Path | None = None
    """Set if the place is a folder: what is written there is flushed to its disk."""

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
        return unhurried(lambda: self._check(copy, run), run)

    def fetch(
        self, copy: Copy, target: Path, identities: Sequence[Identity], *, run: Run = UNWATCHED
    ) -> Backup:
        """Decrypt a copy into an empty file; return the backup as it is there, compared with its manifest.

        Raises CopyKeyProblem, BackupDamaged, CopyFailed, Interrupted; then the file is of no use.
        """
        return unhurried(lambda: self._fetch(copy, target, identities, run), run)

    def remove(self, copy: Copy) -> None:
        """Remove a copy: first its manifest, so that what a kill leaves is not listed. Raises CopyFailed."""
        import obstore

        with self._named("remove a copy from"):
            obstore.delete(self.objects, f"{copy.backup.name}.json")
            obstore.delete(self.objects, copy.object_name)

    def tidy(self, catalog: CopyCatalog, origin: str) -> None:
        """Remove what killed uploads of this origin left. Raises CopyFailed."""
        import obstore

        listed = {copy.object_name for copy in catalog.copies}
        left = [name for name in catalog.objects if name not in listed and f".{origin}." in name]
        with self._named("remove what a killed upload left at"):
            for name in left:
                obstore.delete(self.objects, name)
            # obstore writes a file under `NAME#1`, and does not list it.
            for part in self.folder.iterdir() if self.folder else ():
                if f".{origin}." in part.name and re.search(rf"{SEALED}#\d+$", part.name):
                    part.unlink(missing_ok=True)

    def _read(self, run: Run) -> CopyCatalog:
        import obstore

        copies: list[Copy] = []
        unusable: list[UnusableBackup] = []
        with self._named("list the copies at"):
            found = obstore.list_with_delimiter(self.objects)["objects"]
            sizes = {str(item["path"]): int(item["size"]) for item in found}
            for name, size in sizes.items():
                run.checkpoint("while the copies were listed")
                if not name.endswith(".json"):
                    continue
                path = Path(name)
                if size > LARGEST_MANIFEST_BYTES:
                    unusable.append(UnusableBackup(path, "its manifest is too large to be one"))
                    continue
                read = parse_copy(path, bytes(obstore.get(self.objects, name).bytes()))
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
        objects = tuple(name for name in sizes if name.endswith(SEALED))
        return CopyCatalog(tuple(copies), tuple(unusable), objects)

    def _send(
        self, backup: Backup, origin: str, host: str, recipients: Sequence[Recipient], run: Run
    ) -> Copy:
        import obstore
        from obstore.exceptions import BaseError

        name = f"{backup.name}.{origin}.{secrets.token_hex(4)}{SEALED}"
        sent = Counted()
        part = max(PART_BYTES, backup.bytes // MOST_PARTS)
        pieces = encrypted(backup, recipients, sent, run)
        with self._named(f"copy {backup.name} to"), closing(pieces):
            obstore.put(
                self.objects,
                name,
                pieces,
                use_multipart=True,
                chunk_size=part,
                max_concurrency=2,
            )
            copy = Copy(backup, name, sent.bytes, sent.sha256, origin, host, iso())
            try:
                self._flush(name)
                self._check(copy, run)
                self._write_manifest(copy)
            except BaseException:
                with suppress(BaseError, OSError):  # the next run tries again
                    obstore.delete(self.objects, name)
                raise
        return copy

    def _write_manifest(self, copy: Copy) -> None:
        import obstore

        text = manifest_text(copy.backup, copy=dict(zip(FACTS, copy[1:], strict=True)))
        name = f"{copy.backup.name}.json"
        obstore.put(self.objects, name, text)
        self._flush(name)
        if bytes(obstore.get(self.objects, name).bytes()) != text:
            raise CopyFailed(f"The manifest {name} at {self.url} does not read back as written.")

    def _flush(self, name: str) -> None:
        if self.folder is not None:
            flush(self.folder / name)
            flush(self.folder)

    def _check(self, copy: Copy, run: Run) -> None:
        read = Counted()
        for _ in self._pieces(copy, run, read):
            pass
        self._require_whole(copy, read)

    def _pieces(self, copy: Copy, run: Run, read: Counted) -> Iterator[bytes]:
        import obstore

        with self._named(f"read {copy.object_name} at"):
            for chunk in obstore.get(self.objects, copy.object_name).stream(
                min_chunk_size=PIECE_BYTES
            ):
                run.checkpoint("while a copy was read")
                piece = bytes(chunk)
                read.add(piece)
                run.progress("read copy", read.bytes, copy.bytes)
                yield piece

    def _require_whole(self, copy: Copy, read: Counted) -> None:
        if (read.bytes, read.sha256) != (copy.bytes, copy.sha256):
            raise BackupDamaged(
                f"The copy of {copy.backup.name} at {self.url} is not what was sent: it was cut off or"
                " changed.",
                hint=_ANOTHER,
            )

    def _fetch(self, copy: Copy, target: Path, identities: Sequence[Identity], run: Run) -> Backup:
        sent, wanted = Counted(), copy.backup
        pieces = self._pieces(copy, run, sent)
        try:
            plain = decrypt_into(target, pieces, identities, most=wanted.bytes)
        except NotDecrypted as error:
            if error.no_key:
                self._check(copy, run)  # a header that was changed looks the same
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
    def _named(self, doing: str) -> Iterator[None]:
        """Translate what the store raises; `doing` completes "Cannot …"."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            reason, hint = explain_store_error(error)
            raise CopyFailed(f"Cannot {doing} {self.url}: {reason}", hint=hint) from error


def explain_store_error(error: Exception) -> tuple[str, str | None]:
    """Return the reason in the store's own words, on one line, and what to do if that is known."""
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
    if code:
        words = said[1].strip().rstrip(".") if said else "it answers"
        return f"{words} ({code[1]}).", _HINTS.get(code[1])
    first = " ".join(text.split())
    return first.rpartition(" - ")[2][:300], None


_KEYS: Final = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the credentials of the unit, and what they may do."
_HINTS: Final = {
    "NoSuchBucket": "Create the bucket, or correct backup.copy_to.",
    **dict.fromkeys(
        ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId"),
        _KEYS,
    ),
}


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
