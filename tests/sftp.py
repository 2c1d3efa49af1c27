"""An SFTP server as a process, by asyncssh, and the keys of its host and its user."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from tests.harness import REPOSITORY
from tests.needs import attempt

USER = "ann"
READ_ONLY, NO_LINKS, DYING = "read-only", "no-links", "dying"


@dataclass
class Sftp:
    """A server whose root is a folder; what it takes for its keys is in another one."""

    root: Path
    keys: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"sftp://{USER}@127.0.0.1:{self.port}/elsewhere"

    @property
    def folder(self) -> Path:
        """Return where its objects are."""
        return self.root / "elsewhere"

    @property
    def key(self) -> Path:
        """Return the key of the user."""
        return self.keys / "user"

    @property
    def host_key(self) -> str:
        """Return the public key that a client is shown."""
        return (self.keys / "host.pub").read_text().strip()

    def start(self, *options: str) -> None:
        """Start it, again at the port that it had."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.sftp", *map(str, (self.root, self.keys, self.port)), *options],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )  # fmt: skip
        assert self.process.stdout is not None, "it is a pipe"
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        """End it at once, with all connections."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def freeze(self) -> None:
        """Let it take connections and answer nothing, as behind a network that is cut."""
        assert self.process is not None, "it runs"
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None, "it runs"
        self.process.send_signal(signal.SIGCONT)


def make_key(file: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """Write a private key and its public half, and return the latter; skip where ssh-keygen is missing."""
    command = ("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", file)
    attempt("no ssh-keygen", *command)
    return file.with_suffix(".pub").read_text().strip()


@contextmanager
def running_sftp(folder: Path) -> Iterator[Sftp]:
    """Run a server with a folder of its own, and keys that are made now."""
    server = Sftp(folder / "root", folder / "keys")
    server.folder.mkdir(parents=True)
    server.keys.mkdir()
    make_key(server.keys / "host")
    make_key(server.key)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Folder(asyncssh.SFTPServer):
    """A root that a client does not leave."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], root: str) -> None:
        super().__init__(channel, chroot=root.encode())


class ReadOnly(Folder):
    """As of a file system that is mounted so."""

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if pflags & asyncssh.FXF_WRITE:
            raise asyncssh.SFTPPermissionDenied("Permission denied")
        return super().open(path, pflags, attrs)


class NoLinks(Folder):
    """As many are that are not OpenSSH's."""

    def link(self, *_: bytes) -> None:
        raise asyncssh.SFTPOpUnsupported("no links")


class Dying(Folder):
    """As where the machine loses power while the first byte is written."""

    def write(self, *_: object) -> int:
        os._exit(1)


KINDS = {READ_ONLY: ReadOnly, NO_LINKS: NoLinks, DYING: Dying}


async def _serve(root: str, keys: Path, port: int, kind: type[Folder]) -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=sorted(str(file) for file in keys.glob("host*") if file.suffix != ".pub"),
        authorized_client_keys=str(keys / "user.pub"),
        sftp_factory=lambda channel: kind(channel, root),
    )
    sys.stdout.write(f"{server.get_port()}\n")
    sys.stdout.flush()
    await server.wait_closed()


if __name__ == "__main__":
    root, keys, port, *options = sys.argv[1:]
    kind = KINDS[options[0]] if options else Folder
    asyncio.run(_serve(root, Path(keys), int(port), kind))
