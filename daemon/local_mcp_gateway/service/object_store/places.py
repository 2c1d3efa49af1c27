"""The places off this machine by URL: a folder, an S3 bucket, or a folder of an SFTP server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from local_mcp_gateway.errors import ConfigProblem, CopyFailed, ReplicaProblem
from local_mcp_gateway.frozen import frozen
from local_mcp_gateway.log import redact_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from local_mcp_gateway.backup import Place
    from local_mcp_gateway.config import Settings

KINDS: Final = "s3://bucket/path, sftp://user@host/folder or file:///folder"
REQUEST_S: Final = 120
"""For one part of an upload, 8 MiB: 70 kB/s."""
SSH_PORT: Final = 22
_HOST_KEY: Final = re.compile(r"(ssh-|ecdsa-)\S+ [A-Za-z0-9+/]+=*( .*)?")


@frozen
class Bucket:
    """A place in an S3 bucket."""

    url: str


@frozen
class SshFolder:
    """A folder of an SFTP server."""

    user: str
    host: str
    port: int
    path: str

    @property
    def address(self) -> str:
        """Return host and port as one text."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def place_of(url: str, setting: str) -> Path | Bucket | SshFolder:
    """Return what a URL names; raises ConfigProblem."""
    try:
        parts = urlsplit(url)
        port = parts.port or SSH_PORT
    except ValueError:
        parts = urlsplit("")
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return Path(unquote(parts.path))
    if parts.scheme not in {"s3", "sftp"} or not parts.hostname:
        shown = "names no place" if "@" in url else f"is {url!r}, which names no place"
        raise ConfigProblem(f"{setting} {shown}.", hint=f"Write {KINDS}.", key=setting)
    if parts.scheme == "s3":
        if parts.username or parts.password or parts.query:
            raise ConfigProblem(
                f"{setting} holds more than a bucket and a path.",
                hint="Keep the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in systemd credentials.",
                key=setting,
            )
        return Bucket(url)
    if parts.password is not None or parts.query or parts.fragment:
        raise ConfigProblem(
            f"{setting} holds more than a user, a server and a folder.",
            hint="A key logs in, never a password: name its file with ssh_key, or use one of ~/.ssh.",
            key=setting,
        )
    if not parts.username or not parts.path:
        raise ConfigProblem(
            f"{setting} is {url!r}, without a user or a folder.",
            hint="Write sftp://user@host/folder; the folder begins at the server's root.",
            key=setting,
        )
    return SshFolder(unquote(parts.username), parts.hostname, port, unquote(parts.path))


@frozen
class Access:
    """What the settings say on how to get into a place."""

    prefix: str
    """Begins the names of the settings."""
    endpoint: str
    region: str
    ssh_key: Path | None
    """None: those of ~/.ssh."""
    ssh_host_key: str
    """Empty: known_hosts says it."""

    @classmethod
    def of(cls, settings: Settings, section: str) -> Access:
        """Return those of `replica`, or of `backup` for its copies."""
        replica, backup = settings.replica, settings.backup
        if section == "replica":
            texts = (replica.endpoint, replica.region)
            return cls("replica.", *texts, settings.replica_ssh_key, replica.ssh_host_key)
        texts = (backup.copy_endpoint, backup.copy_region)
        return cls("backup.copy_", *texts, settings.copy_ssh_key, backup.copy_ssh_host_key)

    def require_usable(self, place: Path | Bucket | SshFolder) -> None:
        """Raise ConfigProblem where a setting for this kind of place can never be used."""
        if isinstance(place, Bucket):
            require_endpoint(self.endpoint, f"{self.prefix}endpoint")
        if isinstance(place, SshFolder) and self.ssh_host_key:
            self._require_host_key()

    def _require_host_key(self) -> None:
        if _HOST_KEY.fullmatch(self.ssh_host_key) is None:
            setting = f"{self.prefix}ssh_host_key"
            raise ConfigProblem(
                f"{setting} is not the public key of a server.",
                hint="Write its kind and the key, such as 'ssh-ed25519 AAAA…': a .pub file in the server's /etc/ssh.",
                key=setting,
            )


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
            f"{setting} is {redact_url(endpoint)!r}, which is not the URL of a server.",
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
    raise missing(problem, hint=CREATE_IT)


CREATE_IT: Final = (
    "Connect its disk, or create the folder: it is not made here, so that nothing is"
    " written in the place of a disk that is not mounted."
)


def require_keys(place: Path | Bucket | SshFolder, access: Access) -> None:
    """Raise StoreError where there is no key for an SFTP server, or of it; asks no network, and nothing of others."""
    if isinstance(place, SshFolder):
        from local_mcp_gateway.service.object_store.sftp import SftpPlace

        SftpPlace(place, access, REQUEST_S).require_keys()


def open_place(
    url: str,
    *,
    setting: str,
    access: Access,
    keys: Callable[[], Mapping[str, str]],
    missing: type[CopyFailed | ReplicaProblem],
    request_s: int = REQUEST_S,
) -> Place:
    """Return the place at a URL. Nothing is asked of it yet, but a folder of this machine has to be there.

    `keys` returns those of the bucket, as variables (`BucketKeys`), and is asked for nothing else; `request_s` limits
    a request with all its retries. Raises ConfigProblem, `missing` for a folder that is not there, ImportError where
    the library is not installed.
    """
    place = place_of(url, setting)
    access.require_usable(place)
    if isinstance(place, SshFolder):
        from local_mcp_gateway.service.object_store.sftp import SftpPlace

        return SftpPlace(place, access, request_s)
    from local_mcp_gateway.service.object_store.stores import bucket, folder

    if isinstance(place, Path):
        require_folder(place, missing)
        return folder(place)
    options: dict[str, Any] = {**keys()}
    return bucket(place.url, access.endpoint, access.region, request_s, options)
