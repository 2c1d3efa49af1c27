"""The places off this machine: a folder or an S3 bucket, by URL."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from local_mcp_gateway.errors import ConfigProblem, CopyFailed, ReplicaProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from obstore.store import ObjectStore

CONNECT_S: Final = 10
REQUEST_S: Final = 120
"""For one part of an upload, 8 MiB: 70 kB/s."""
STALLED_S: Final = 30
RETRIES: Final = 3


def folder_of(url: str, setting: str) -> Path | None:
    """Return the folder of a `file:///` URL, None for an S3 one; raises ConfigProblem for any other."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return Path(unquote(parts.path))
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigProblem(
            f"{setting} is {url!r}, which is neither an S3 bucket nor a folder.",
            hint="Write s3://bucket/path or file:///folder.",
            key=setting,
        )
    if parts.username or parts.password or parts.query:
        raise ConfigProblem(
            f"{setting} holds more than a bucket and a path.",
            hint="Keep the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in systemd credentials.",
            key=setting,
        )
    return None


def require_endpoint(endpoint: str, setting: str) -> None:
    """Raise ConfigProblem unless it is empty or the URL of a server: obstore panics at anything else."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
        usable = usable and not re.search(r"[\s?#]", endpoint)
    except ValueError:
        usable = False
    if endpoint and not usable:
        raise ConfigProblem(
            f"{setting} is {endpoint!r}, which is not the URL of a server.",
            hint="Write https://host, or http://host:port.",
            key=setting,
        )


def require_folder(folder: Path, missing: type[CopyFailed | ReplicaProblem]) -> None:
    """Raise `missing` unless the folder is there."""
    try:
        if folder.is_dir():
            return
        there = folder.exists()
        problem = f"{folder} is not a folder." if there else f"The folder {folder} does not exist."
    except OSError as error:  # as where the server of a mount cannot be reached
        problem = f"The folder {folder} cannot be used: {error.strerror}."
    raise missing(
        problem,
        hint="Connect its disk, or create the folder: it is not made here, so that nothing is"
        " written in the place of a disk that is not mounted.",
    )


def open_store(
    url: str,
    *,
    setting: str,
    endpoint: str,
    region: str,
    keys: Callable[[], Mapping[str, str]],
    missing: type[CopyFailed | ReplicaProblem],
    request_s: int = REQUEST_S,
) -> ObjectStore:
    """Return the store at a URL. Nothing is asked of it yet, but a folder has to be there.

    `keys` returns those of the bucket, as variables (`BucketKeys`), and is not asked for a folder; `request_s` limits a
    request with all its retries. Raises ConfigProblem, `missing` for a folder that is not there, ImportError where
    obstore is not installed.
    """
    folder = folder_of(url, setting)
    from obstore.store import LocalStore, S3Store

    if folder is not None:
        require_folder(folder, missing)
        return LocalStore(folder)
    options: dict[str, Any] = {**keys()}
    if endpoint:
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    return S3Store.from_url(
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
