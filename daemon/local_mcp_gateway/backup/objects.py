"""The interface of a place off this machine, be it a folder, a bucket or a folder of an SFTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

PIECE_BYTES: Final = 1 << 20


class StoreError(Exception):
    """What a place says, in one sentence, or what keeps it from answering; `hint` says what to do where that is known."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


class PlaceMissing(StoreError):
    """The folder is not there: its disk may be disconnected."""


class Objects(Protocol):
    """The objects of a place that is connected. Each method blocks, and raises StoreError.

    What was written is on the disk of a folder, and of a server that offers it, when a method returns.
    """

    def sizes(self) -> Mapping[str, int]:
        """Return the size of each object; those in folders below are left out."""

    def unfinished(self) -> Sequence[str]:
        """Return the names of what killed writes left, as far as the place shows them."""

    def exists(self, name: str) -> bool:
        """Tell whether there is an object of the name."""

    def read(self, name: str) -> bytes | None:
        """Return an object, or None if there is none of the name."""

    def pieces(self, name: str) -> Generator[bytes, None, None]:
        """Yield an object piece by piece; to be closed while connected."""

    def write(self, name: str, content: bytes) -> None:
        """Write an object in place of the one of its name; whoever reads it finds either."""

    def create(self, name: str, content: bytes) -> bool:
        """Write an object, or return False where one of the name is there: of two writers one wins.

        Whoever reads it finds all of it or nothing, whenever its writer or the place is killed.
        """

    def send(self, name: str, pieces: Iterator[bytes], about_bytes: int) -> None:
        """Write an object of about this size piece by piece; nothing is left of it after an error of any kind."""

    def delete(self, name: str) -> None:
        """Remove an object, or what a killed write left, if it is there."""


class Place(Protocol):
    """A place that can be connected to."""

    def connected(self) -> AbstractContextManager[Objects]:
        """Connect for the block, in which one thread uses the objects; raises StoreError."""
