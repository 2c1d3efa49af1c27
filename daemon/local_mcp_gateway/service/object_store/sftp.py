"""A folder of an SFTP server as a place, by asyncssh.

The server's key is always compared with the one in the settings, else with those in known_hosts. ssh's own
configuration is not read, since Litestream, which writes to the same folder, does not know it either. Each use is a
connection of its own: none can be stale.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import asyncssh

from local_mcp_gateway.backup import PIECE_BYTES, PlaceMissing, StoreError
from local_mcp_gateway.service.object_store.places import CREATE_IT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator, Iterator, Sequence

    from local_mcp_gateway.service.object_store.places import Access, SshFolder

Result = TypeVar("Result")

CONNECT_S: Final = 10.0
CLOSE_S: Final = 1.0
UNFINISHED: Final = ".part"
"""Ends the name of what is being written, until it has the name that it is to have."""
DEFAULT_KEYS: Final = ("id_ed25519", "id_ecdsa", "id_rsa")
LITESTREAM_ORDER: Final = (
    *("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-256", "rsa-sha2-512", "ssh-rsa", "ssh-ed25519"),
)
"""The kinds of host keys that Litestream asks for, best first: it refuses a key that it was not given."""
KINDS: Final = ("ecdsa", "rsa", "ed25519")
"""The same for a reader."""
_SYSTEM_KNOWN_HOSTS: Final = Path("/etc/ssh/ssh_known_hosts")


class SftpPlace:
    """A folder of an SFTP server; each use connects."""

    def __init__(self, folder: SshFolder, access: Access, request_s: float) -> None:
        """Store the arguments; `request_s` limits a request."""
        self._folder, self._access, self._request_s = folder, access, request_s

    @contextmanager
    def connected(self) -> Iterator[SftpObjects]:
        """Connect, log in and find the folder; raises StoreError."""
        with self._session(self._keys(), os.environ.get("SSH_AUTH_SOCK")) as (objects, _):
            yield objects

    def require_keys(self) -> None:
        """Raise StoreError where there is no key to log in with, or the server's is not known; asks no network."""
        with _explained(self._folder):
            self._require_any(self._keys(), os.environ.get("SSH_AUTH_SOCK"))
            _trusted(self._folder, self._access)

    def litestream_keys(self) -> dict[str, object]:
        """Log in as Litestream will, and return the keys that it needs: it takes any server where it is given none.

        Raises StoreError, as where there is no key of the user that it can read, or the one of the server that it is
        shown is not known.
        """
        prefix, keys = self._access.prefix, self._keys()
        if not keys:
            raise StoreError(
                "there is no key of the user that Litestream can read.",
                f"It knows no agent and no passphrase: name a key without one in {prefix}ssh_key.",
            )
        try:
            with self._session(keys[:1], None, LITESTREAM_ORDER) as (_, connection):
                shown = connection.get_server_host_key()
        except _KeyNotKnown as error:
            host, port = self._folder.host, self._folder.port
            raise StoreError(
                error.reason,
                f"Litestream is shown the first of the server's keys of the kinds {', '.join(KINDS)}. `ssh-keyscan -p {port}"
                f" {host}` lists them: compare that one with the server's own, and add it to ~/.ssh/known_hosts or"
                f" write it to {prefix}ssh_host_key. If it was known, somebody may be in between.",
            ) from None
        assert shown is not None, "it was compared"
        return {"key-path": str(keys[0]), "host-key": shown.export_public_key().decode().strip()}

    @contextmanager
    def _session(
        self, keys: Sequence[Path], agent: str | None, kinds: Sequence[str] = ()
    ) -> Iterator[tuple[SftpObjects, asyncssh.SSHClientConnection]]:
        """Connect for the block; `kinds` of the server's key, best first."""
        with asyncio.Runner() as runner:
            connection = self._run(runner, self._connect(keys, agent, kinds))
            try:
                client = self._run(runner, connection.start_sftp_client())
                objects = SftpObjects(runner, client, self._folder, self._request_s)
                objects.require_folder()
                yield objects, connection
            finally:
                runner.run(_close(connection))

    def _run(self, runner: asyncio.Runner, work: Awaitable[Result]) -> Result:
        folder, prefix = self._folder, self._access.prefix
        try:
            with _explained(folder):
                return runner.run(_within(work, CONNECT_S))
        except _Refused:
            raise StoreError(
                f"{folder.host} does not let {folder.user} in with this key.",
                f"Add its public half to authorized_keys there, or name another one in {prefix}ssh_key.",
            ) from None

    async def _connect(
        self, keys: Sequence[Path], agent: str | None, kinds: Sequence[str]
    ) -> asyncssh.SSHClientConnection:
        folder = self._folder
        self._require_any(keys, agent)
        return await asyncssh.connect(
            folder.host,
            folder.port,
            username=folder.user,
            known_hosts=_trusted(folder, self._access),
            server_host_key_algs=list(kinds) or (),
            client_keys=[str(key) for key in keys],
            agent_path=None if self._access.ssh_key else agent,
            preferred_auth="publickey",
            config=None,
        )

    def _require_any(self, keys: Sequence[Path], agent: str | None) -> None:
        if not keys and not agent:
            raise StoreError(
                "there is no key of the user to log in with.",
                f"Name its file in {self._access.prefix}ssh_key, or make one in ~/.ssh with ssh-keygen.",
            )

    def _keys(self) -> Sequence[Path]:
        """Return the key of the settings, else those of ~/.ssh that have no passphrase."""
        if (key := self._access.ssh_key) is not None:
            if (problem := _problem_with(key)) is not None:
                setting = f"{self._access.prefix}ssh_key"
                raise StoreError(f"the key {key} cannot be used: {problem}.", f"See {setting}.")
            return [key]
        home = _ssh_folder()
        files = [home / name for name in DEFAULT_KEYS] if home else []
        return [file for file in files if _problem_with(file) is None]


class SftpObjects:
    """The objects of a folder, while it is connected."""

    def __init__(
        self,
        runner: asyncio.Runner,
        client: asyncssh.SFTPClient,
        folder: SshFolder,
        request_s: float,
    ) -> None:
        self._runner, self._client = runner, client
        self._folder, self._request_s = folder, request_s

    def require_folder(self) -> None:
        """Raise PlaceMissing unless the folder is there."""
        path, host = self._folder.path, self._folder.host
        if not self._run(self._client.exists(path)):
            raise PlaceMissing(f"The folder {path} does not exist on {host}.", CREATE_IT)
        if not self._run(self._client.isdir(path)):
            raise PlaceMissing(f"{path} is not a folder on {host}.", CREATE_IT)

    def sizes(self) -> dict[str, int]:
        """Return the size of each object."""
        found = self._run(self._client.readdir(self._folder.path))
        return {
            str(item.filename): item.attrs.size or 0
            for item in found
            if item.attrs.type == asyncssh.FILEXFER_TYPE_REGULAR
            and not str(item.filename).endswith(UNFINISHED)
        }

    def unfinished(self) -> list[str]:
        """Return the names of what killed writes left."""
        names = self._run(self._client.listdir(self._folder.path))
        return [str(name) for name in names if str(name).endswith(UNFINISHED)]

    def exists(self, name: str) -> bool:
        """Tell whether there is an object of the name; one question to the server."""
        return self._run(self._client.exists(self._path(name)))

    def read(self, name: str) -> bytes | None:
        """Return an object, or None."""
        try:
            return b"".join(self.pieces(name))
        except StoreError:
            if self.exists(name):
                raise
            return None

    def pieces(self, name: str) -> Generator[bytes, None, None]:
        """Yield an object piece by piece."""
        file = self._run(self._client.open(self._path(name), "rb"))
        try:
            while piece := cast("bytes", self._run(file.read(PIECE_BYTES))):
                yield piece
        finally:
            with suppress(StoreError):
                self._run(file.close())

    def write(self, name: str, content: bytes) -> None:
        """Write a file under another name, which then replaces the one of its name."""
        with self._written(name, content) as part:
            self._run(self._client.posix_rename(part, self._path(name)))

    def create(self, name: str, content: bytes) -> bool:
        """Write a file under another name, and link it to its own, which replaces none.

        Where a server has no links it is renamed in the way of SFTP 3, which replaces none either.
        """
        with self._written(name, content) as part:
            for give_name in (self._client.link, self._client.rename):
                try:
                    self._run(give_name(part, self._path(name)))
                except StoreError as error:
                    if self.exists(name):
                        return False
                    problem = error
                else:
                    return True
            raise problem

    def send(self, name: str, pieces: Iterator[bytes], about_bytes: int) -> None:
        """Write a file piece by piece."""
        del about_bytes
        self._write(name, pieces)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.exists(name):
            self._run(self._client.remove(self._path(name)))

    @contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[str]:
        """Yield the path of a whole file that the block gives its name; what is left of it is removed."""
        part = f"{name}.{token_hex(4)}{UNFINISHED}"
        self._write(part, iter([content]))
        try:
            yield self._path(part)
        finally:
            self._try_delete(part)

    def _write(self, name: str, pieces: Iterator[bytes]) -> None:
        file = self._run(self._client.open(self._path(name), "wb"))
        try:
            for piece in pieces:
                self._run(file.write(piece))
            with suppress(_Unsupported):
                self._run(file.fsync())
            self._run(file.close())
        except BaseException:
            with suppress(StoreError):
                self._run(file.close())
            self._try_delete(name)
            raise

    def _try_delete(self, name: str) -> None:
        with suppress(StoreError):
            self.delete(name)

    def _path(self, name: str) -> str:
        return f"{self._folder.path.rstrip('/')}/{name}"

    def _run(self, work: Awaitable[Result]) -> Result:
        with _explained(self._folder):
            return self._runner.run(_within(work, self._request_s))


class _Unsupported(StoreError):
    """The server does not offer this."""


class _KeyNotKnown(StoreError):
    """The server shows another key."""


class _Refused(StoreError):
    """The user's key does not let in."""


@contextmanager
def _explained(folder: SshFolder) -> Iterator[None]:
    """Translate what asyncssh raises into a sentence."""
    try:
        yield
    except asyncssh.Error as error:
        kind, reason, hint = _KINDS.get(type(error), _OTHER)
        said = error.reason.rstrip(".")
        raise kind(
            reason.format(host=folder.host, user=folder.user, said=said, path=folder.path), hint
        ) from None
    except TimeoutError:
        raise StoreError(f"{folder.host} did not answer in time.") from None
    except OSError as error:
        # An attempt at one address has a number, at several only a text.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise StoreError(f"{folder.address}: {reason}.") from None
    except ValueError as error:  # as a line of known_hosts that cannot be read
        raise StoreError(f"{error}.") from None


_NOT_FOUND: Final = (StoreError, "not found in {path} on {host}.", None)
_OTHER: Final[tuple[type[StoreError], str, str | None]] = (StoreError, "{host} says: {said}.", None)
_KINDS: Final[dict[type[Exception], tuple[type[StoreError], str, str | None]]] = {
    asyncssh.HostKeyNotVerifiable: (
        _KeyNotKnown,
        "{host} shows a key that is not the one known for it.",
        "Compare it with the server's own, and correct what is known. If the server is the same, somebody may be in between.",
    ),
    asyncssh.PermissionDenied: (_Refused, "{said}.", None),
    asyncssh.ConnectionLost: (
        StoreError,
        "{host} closed the connection.",
        "See whether it is an SSH server that listens there, and what it has logged.",
    ),
    asyncssh.ChannelOpenError: (
        StoreError,
        "{host} lets {user} in, but offers no SFTP: {said}.",
        "An `sftp` subsystem in its configuration does.",
    ),
    asyncssh.SFTPOpUnsupported: (_Unsupported, "{host} cannot do this: {said}.", None),
    asyncssh.SFTPNoSuchFile: _NOT_FOUND,
    asyncssh.SFTPNoSuchPath: _NOT_FOUND,
    asyncssh.SFTPFailure: (
        StoreError,
        "{host} says: {said}.",
        "Servers say no more where their disk is full: see whether it is.",
    ),
}


async def _within(work: Awaitable[Result], limit_s: float) -> Result:
    async with asyncio.timeout(limit_s):
        return await work


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        await asyncio.wait_for(connection.wait_closed(), CLOSE_S)
    except TimeoutError:
        connection.abort()


def _problem_with(key: Path) -> str | None:
    """Return what keeps a file from being a key without a passphrase, if anything does."""
    try:
        asyncssh.read_private_key(key)
    except OSError as error:
        return error.strerror
    except ValueError as error:
        return str(error)
    return None


def _ssh_folder() -> Path | None:
    try:
        return Path.home() / ".ssh"
    except RuntimeError:  # nobody's
        return None


def _trusted(folder: SshFolder, access: Access) -> Any:
    """Return the keys that the server may have, as asyncssh takes them; raises StoreError if there are none."""
    if access.ssh_host_key:
        return ([asyncssh.import_public_key(access.ssh_host_key)], [], [])
    home = _ssh_folder()
    files = [home / "known_hosts", _SYSTEM_KNOWN_HOSTS] if home else [_SYSTEM_KNOWN_HOSTS]
    files = [file for file in files if file.is_file()]
    if files:
        known = asyncssh.read_known_hosts([str(file) for file in files])
        found = known.match(folder.host, "", folder.port)
        if found[0] or found[1]:
            return found
    raise StoreError(
        f"the key of {folder.host} is not known.",
        f"`ssh -p {folder.port} {folder.user}@{folder.host}` shows it, and keeps it in ~/.ssh/known_hosts; or write it"
        f" to {access.prefix}ssh_host_key.",
    )
