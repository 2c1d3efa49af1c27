"""A folder or an S3 bucket as a place, by obstore."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from local_mcp_gateway.backup import PIECE_BYTES, StoreError
from local_mcp_gateway.database import flush

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from obstore.store import ObjectStore

CONNECT_S: Final = 10
STALLED_S: Final = 30
RETRIES: Final = 3
PART_BYTES: Final = 8 << 20
"""Of one request of an upload, unless the object has more than `MOST_PARTS` of them."""
MOST_PARTS: Final = 9_000
"""S3 takes 10,000."""


def folder(path: Path) -> ObstorePlace:
    """Return the place in a folder that is there."""
    return ObstorePlace(LocalStore(path), path)


def bucket(
    url: str, endpoint: str, region: str, request_s: int, options: Mapping[str, Any]
) -> ObstorePlace:
    """Return the place in a bucket; `options` are its keys."""
    if endpoint:
        options = {**options, "endpoint": endpoint, "virtual_hosted_style_request": False}
    store = S3Store.from_url(
        url,
        region=region or os.environ.get("AWS_REGION") or "us-east-1",
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=request_s),
            "read_timeout": timedelta(seconds=STALLED_S),
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=request_s),
        },
        **options,
    )
    return ObstorePlace(store)


class ObstorePlace:
    """Its own objects: obstore connects with each request."""

    def __init__(self, store: ObjectStore, path: Path | None = None) -> None:
        """Store the arguments; `path` is the folder, if it is one."""
        self.store, self._path = store, path

    def connected(self) -> AbstractContextManager[ObstorePlace]:
        """Return itself."""
        return nullcontext(self)

    def sizes(self) -> dict[str, int]:
        """Return the size of each object."""
        with _explained():
            found = obstore.list_with_delimiter(self.store)["objects"]
            return {str(item["path"]): int(item["size"]) for item in found}

    def unfinished(self) -> list[str]:
        """Return what killed writes left in a folder: obstore writes `NAME` under `NAME#1`, and does not list that."""
        with _explained():
            files = self._path.iterdir() if self._path else ()
            return [file.name for file in files if re.search(r"#\d+$", file.name)]

    def exists(self, name: str) -> bool:
        """Tell whether there is an object of the name."""
        with _explained():
            try:
                obstore.head(self.store, name)
            except (NotFoundError, FileNotFoundError):
                return False
        return True

    def read(self, name: str) -> bytes | None:
        """Return an object, or None."""
        with _explained():
            try:
                return bytes(obstore.get(self.store, name).bytes())
            except (NotFoundError, FileNotFoundError) as error:
                if "<Code>NoSuchBucket</Code>" in str(error):
                    raise
                return None

    def pieces(self, name: str) -> Generator[bytes, None, None]:
        """Yield an object piece by piece."""
        with _explained():
            for chunk in obstore.get(self.store, name).stream(min_chunk_size=PIECE_BYTES):
                yield bytes(chunk)

    def write(self, name: str, content: bytes) -> None:
        """Write an object in place of the one of its name."""
        with _explained():
            obstore.put(self.store, name, content)
            self._flush(name)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object, or return False where one of the name is there."""
        with _explained():
            try:
                obstore.put(self.store, name, content, mode="create")
            except AlreadyExistsError:
                return False
            self._flush(name)
        return True

    def send(self, name: str, pieces: Iterator[bytes], about_bytes: int) -> None:
        """Write an object in parts, which obstore withdraws after an error."""
        part = max(PART_BYTES, about_bytes // MOST_PARTS)
        with _explained():
            obstore.put(
                self.store, name, pieces, use_multipart=True, chunk_size=part, max_concurrency=2
            )
            try:
                self._flush(name)
            except BaseException:
                self.delete(name)
                raise

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        with _explained():
            if self._path is not None:
                (self._path / name).unlink(missing_ok=True)
            else:
                obstore.delete(self.store, name)

    def _flush(self, name: str) -> None:
        if self._path is not None:
            flush(self._path / name)
            flush(self._path)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise _store_error(error) from error


def _store_error(error: Exception) -> StoreError:
    """Return the reason in the store's own words, on one line, and what to do if that is known."""
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
    if code:
        words = said[1].strip().rstrip(".") if said else "it answers"
        return StoreError(f"{words} ({code[1]}).", _HINTS.get(code[1]))
    first = " ".join(text.split())
    return StoreError(first.rpartition(" - ")[2][:300])


_KEYS: Final = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the credentials of the unit, and what they may do."
_HINTS: Final = {
    "NoSuchBucket": "Create the bucket, or correct its name.",
    **dict.fromkeys(
        ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId"),
        _KEYS,
    ),
}
