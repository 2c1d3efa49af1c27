"""Copies of backups off this machine, as the settings say: where, to which keys, and when.

A gateway copies after it is ready: at the start, after each backup that it makes, and looks every ten minutes for
those of commands. `db backup copy` does it in a process of its own, so that a slow store or an error in a library
is nothing to the calls that are served, and a start never waits for it. No copies are made in dev mode.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from local_mcp_gateway.backup import (
    MARGIN_BYTES,
    Copied,
    CopyStore,
    Retention,
    copy_backups,
    copy_of,
    list_backups,
    make_folder,
    named_failures,
    not_copied,
    read_record,
    require_free,
    temporary_file,
    temporary_path,
)
from local_mcp_gateway.errors import ConfigProblem, CopyFailed, CopyKeyProblem
from local_mcp_gateway.json_input import parse_json
from local_mcp_gateway.regular_file import read_given
from local_mcp_gateway.service.object_store import KINDS, Access, open_place
from local_mcp_gateway.service.secrets import BucketKeys, Unusable, private_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyrage.x25519 import Identity, Recipient

    from local_mcp_gateway.backup import Backup, Copy, CopyRecord
    from local_mcp_gateway.config import Settings
    from local_mcp_gateway.database import Run
    from local_mcp_gateway.log import Emit

SETTING: Final = "backup.copy_to"
LOOK_S: Final = 600.0
"""Interval of looking for backups that commands have made."""
COMPARE_S: Final = 24 * 3600.0
"""Interval of comparing with what is really there, and of thinning out by age."""
BACKOFF_S: Final = (60.0, 3600.0)
STOP_S: Final = 5.0
_NO_RESULT: Final = {
    "code": "unexpected",
    "message": "`db backup copy` ended without a result.",
    "hint": "Run it by hand to see why.",
}


def store_of(settings: Settings, url: str = "") -> CopyStore:
    """Return the place of the copies, or the one at a URL; raises ConfigProblem, CopyFailed."""
    chosen = url or settings.backup.copy_to
    if not chosen:
        raise ConfigProblem(
            "No place for copies of backups is configured.",
            hint=f"Set `[backup] copy_to` to {KINDS}, or give its URL.",
            key=SETTING,
        )
    setting = "The URL" if url else SETTING
    with _installed():
        place = open_place(
            chosen,
            setting=setting,
            access=Access.of(settings, "backup"),
            keys=BucketKeys.of(settings, "backup").variables,
            missing=CopyFailed,
        )
    return CopyStore(chosen.rstrip("/"), place)


@contextmanager
def _installed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigProblem(
            f"Copies of backups need {error.name}, which is not installed.",
            hint="`pip install 'local-mcp-gateway[copies]'`, or leave backup.copy_to empty.",
            key=SETTING,
        ) from None


def recipients_of(settings: Settings) -> list[Recipient]:
    """Return the keys that copies are encrypted to; raises ConfigProblem: none is sent unencrypted."""
    with _installed():
        from pyrage import RecipientError
        from pyrage.x25519 import Recipient
    found = []
    for text in settings.backup.copy_recipients:
        try:
            found.append(Recipient.from_str(text))
        except RecipientError:
            secret = text.upper().startswith("AGE-SECRET-KEY-")
            shown = "a secret key" if secret else f"{text!r}, which is not an age key"
            raise ConfigProblem(
                f"backup.copy_recipients holds {shown}.",
                hint="Write the public key (age1…): `db backup key` shows it.",
                key="backup.copy_recipients",
            ) from None
    if not found:
        raise ConfigProblem(
            "backup.copy_recipients is empty, and copies are only made encrypted.",
            hint="`db backup key` makes a key and shows the line for the configuration.",
            key="backup.copy_recipients",
        )
    return found


def identities_of(settings: Settings, given: Path | None = None) -> list[Identity]:
    """Return the secret keys of the given file, else of the configured one; raises CopyKeyProblem."""
    with _installed():
        from pyrage import IdentityError
        from pyrage.x25519 import Identity
    file = given or settings.copy_key_file
    try:
        text = read_given(given) if given else private_file.read(file)
    except Unusable as error:
        raise CopyKeyProblem(f"No copy can be opened: {error.reason}.", hint=error.hint) from None
    except OSError as error:
        raise CopyKeyProblem(f"The key {file} cannot be read: {error.strerror}.") from None
    if text is None:
        raise CopyKeyProblem(
            f"The key that opens the copies is not here: there is no {file}.",
            hint="Bring it from where you keep it, and name it with --key FILE.",
        )
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    try:
        found = [Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except IdentityError:
        found = []
    if not found:
        raise CopyKeyProblem(
            f"{file} is not a file of age keys.",
            hint="It has a line that begins with AGE-SECRET-KEY-1, as `db backup key` writes it.",
        )
    return found


def make_key(settings: Settings) -> tuple[str, bool]:
    """Return the public key of the configured key file, and whether it was made now; durable.

    Raises CopyKeyProblem.
    """
    with _installed():
        from pyrage.x25519 import Identity
    file = settings.copy_key_file
    made = Identity.generate()
    text = f"# Opens copies of backups. Keep it where a lost machine does not take it along.\n# public key: {made.to_public()}\n{made}\n"
    try:
        if not settings.backup.copy_key_file:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with private_file.locked(file) as target:
            is_new = private_file.create(target, text.encode())
    except OSError as error:
        raise CopyKeyProblem(
            f"The key {file} cannot be written: {error.strerror}.",
            hint="Give another place with `[backup] copy_key_file`.",
        ) from None
    return str(identities_of(settings)[0].to_public()), is_new


def copy_now(
    settings: Settings,
    names: Sequence[str] = (),
    *,
    on_copy: Callable[[Copy], None] = lambda _: None,
    run: Run,
) -> Copied:
    """Copy every backup (or these) that is not off the machine yet; raises as `copy_backups` does."""
    if not settings.backup.copy_to:
        store_of(settings)  # raises: nothing is configured, and nothing has failed
    return copy_backups(
        settings.database_path,
        settings.backup_folder,
        lambda: (store_of(settings), recipients_of(settings)),
        url=settings.backup.copy_to.rstrip("/"),
        host=socket.gethostname(),
        retention=Retention(settings.backup.keep_last, settings.backup.keep_daily_days),
        names=names,
        on_copy=on_copy,
        run=run,
    )


@contextmanager
def fetched_copy(
    settings: Settings, url: str, name: str, key: Path | None, run: Run
) -> Iterator[Backup]:
    """Yield a copy as a backup that was decrypted and compared with its manifest, until the block ends.

    It is written into the backup folder under a name that the next start's cleanup removes. Raises
    NoSuchBackup, CopyKeyProblem, CopyFailed, BackupDamaged, NoRoom.
    """
    database, folder = settings.database_path, settings.backup_folder
    store, identities = store_of(settings, url), identities_of(settings, key)
    origin = read_record(database, folder).origin
    copy = copy_of(store.read(run=run), database, name, origin=origin, url=store.url)
    require_free(folder, copy.backup.bytes + MARGIN_BYTES, what="the copy")
    path = temporary_path(folder / f"{database.resolve().stem}-fetched-{os.getpid()}.db")
    with ExitStack() as removed_after:
        with named_failures(path, doing="write what is fetched to"):
            make_folder(folder)
            removed_after.enter_context(temporary_file(path))
            backup = store.fetch(copy, path, identities, run=run)
        yield backup


def status_of(settings: Settings) -> dict[str, Any] | None:
    """Return what is off the machine, by the record; None where no copies are wanted. Asks no network."""
    url = settings.backup.copy_to.rstrip("/")
    if not url:
        return None
    database, folder = settings.database_path, settings.backup_folder
    record = read_record(database, folder).at(url)
    failure, times = record.failure, sorted(record.copied.values())
    return {
        "url": url,
        "copied": len(times),
        "missing": len(not_copied(list_backups(database, folder), record)),
        "oldest": times[0] if times else None,
        "newest": times[-1] if times else None,
        "listed_at": record.listed_at or None,
        "problem": failure and failure.message,
        "hint": failure and failure.hint,
    }


class Copier:
    """Copies backups while the gateway serves. Made and run on the event loop; `on_event` is for any thread."""

    def __init__(
        self, settings: Callable[[], Settings], options: Sequence[str], emit: Emit
    ) -> None:
        self._settings, self._options, self._emit = settings, options, emit
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self._pause_s = BACKOFF_S[0]
        self._status: dict[str, Any] | None = None

    def status(self) -> dict[str, Any] | None:
        """Return what is off the machine, as of the last look; None where no copies are wanted."""
        return self._status

    def on_event(self, event: str) -> None:
        """Look at once after a backup, and after new settings."""
        if event in {"backup.created", "service.reloaded"}:
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Copy what is not off the machine, until cancelled; a failure is reported and tried again."""
        due = 0.0  # the first run compares with what is really there
        while True:
            self._news.clear()
            pause_s = LOOK_S
            if self._settings().backup.copy_to and (
                self._loop.time() >= due or await anyio.to_thread.run_sync(self._is_behind)
            ):
                if await self._copy():
                    due, self._pause_s = self._loop.time() + COMPARE_S, BACKOFF_S[0]
                else:
                    due, pause_s = 0.0, self._pause_s
                    self._pause_s = min(self._pause_s * 2, BACKOFF_S[1])
            self._status = await anyio.to_thread.run_sync(status_of, self._settings())
            with anyio.move_on_after(pause_s):
                await self._news.wait()

    def _record(self) -> CopyRecord:
        settings = self._settings()
        record = read_record(settings.database_path, settings.backup_folder)
        return record.at(settings.backup.copy_to.rstrip("/"))

    def _is_behind(self) -> bool:
        found = status_of(self._settings())
        return found is not None and bool(found["missing"] or found["problem"])

    async def _copy(self) -> bool:
        """Run the command to its end and report what came of it; return whether all is copied."""
        url = self._settings().backup.copy_to
        before = await anyio.to_thread.run_sync(self._record)
        said = await self._run_command()
        after = await anyio.to_thread.run_sync(self._record)
        for name in after.copied:
            if name not in before.copied:
                self._emit("backup.copied", name=name, url=url)
        try:
            value: Any = parse_json(said)
            removed, error = value.get("removed"), value.get("error")
        except (ValueError, AttributeError):
            removed, error = None, _NO_RESULT
        if removed:
            self._emit("backup.copies_pruned", names=removed, url=url)
        if error is not None and error["code"] != "busy":  # then a person is doing it
            shown = {key: error[key] for key in ("code", "message", "hint")}
            self._emit("backup.copy_failed", url=url, **shown)
        return error is None

    async def _run_command(self) -> bytes:
        """Return what the command prints; at a stop it is asked to end, then killed."""
        command = (sys.executable, "-m", "local_mcp_gateway", *self._options)
        process = await asyncio.create_subprocess_exec(
            *(*command, "db", "backup", "copy", "--json"),
            stdin=DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=DEVNULL,
            start_new_session=True,
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 10)
        try:
            return (await process.communicate())[0]
        finally:
            if process.returncode is None:
                with anyio.CancelScope(shield=True), suppress(ProcessLookupError):
                    process.terminate()
                    with anyio.move_on_after(STOP_S):
                        await process.wait()
                    if process.returncode is None:
                        process.kill()
                        await process.wait()
